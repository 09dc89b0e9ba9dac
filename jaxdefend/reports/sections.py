"""The sections of a page, of what is known."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdefend.reports.activations import CLEAN, Activations
from jaxdefend.reports.bars import rates_at_drops
from jaxdefend.reports.blocks import (
    Block,
    Cell,
    Charts,
    Drawing,
    Explorer,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    rows,
    uri,
)
from jaxdefend.reports.blocks import cell as as_cell
from jaxdefend.reports.charts import (
    Line,
    Series,
    attack,
    bar_chart,
    channel_chart,
    count_chart,
    curve_chart,
    error_chart,
    history_chart,
    score_chart,
)
from jaxdefend.reports.comparison import Comparison
from jaxdefend.reports.demonstrations import Demonstration
from jaxdefend.reports.facts import Defended, Facts, drawn
from jaxdefend.results.detection import error_curve
from jaxdefend.results.rates import Rate, defense_effectiveness
from jaxdefend.results.text import printable

# Lines of a table that stand open; longer ones are folded.
_OPEN = 25
# Bars of a chart that shows classes.
_BARS = 10


def sections(facts: Facts, pictures: int = 12) -> list[Section]:
    """All that there is something to say about.

    Args:
        pictures: of each kind, so that the page keeps to its size.
    """
    found = [
        Section("net", "The net", _net(facts)),
        Section("data", "The images", _data(facts)),
        Section("curve", "The pruning curve", _curve(facts, pictures)),
        Section("activations", "What the channels respond to", _activations(facts)),
        Section("repairs", "Repairs", _repairs(facts)),
        Section("guard", "The guard", _guard(facts)),
        Section("audit", "The audit", _audit(facts)),
        Section("comparison", "Defenses side by side", _comparison(facts)),
        Section("gallery", "Images to look at", _gallery(facts, pictures)),
        Section("confusions", "What is called what", _confusions(facts)),
    ]
    return [section for section in found if section.blocks]


# --- The net and the data --------------------------------------------------------------------------------------------


def _net(facts: Facts) -> list[Block]:
    lines: list[Sequence[object]] = []
    if facts.name:
        lines.append(["file", facts.name])
    if facts.sha256:
        lines.append(["sha256", facts.sha256])
    if facts.input_scale:
        lines.append(["input scale", facts.input_scale])
    summary = facts.summary
    if summary is None:
        return [Table("What is known of the net", ["", ""], rows(lines))] if lines else []
    lines += [["file format", summary.format]] if summary.format else []
    lines += [
        ["images", "×".join(map(str, summary.image_shape)) + " (rows × columns × channels)"],
        ["classes", f"{summary.classes:,}"],
        ["parameters", f"{summary.parameters:,}"],
        ["multiply-adds per image", f"{summary.multiply_adds:,}"],
    ]
    layers = [
        [
            layer.name,
            layer.kind,
            " + ".join(layer.reads) or "the images",
            Cell(layer.size, float(np.prod(layer.shape))),
            layer.parameters,
            Cell("–") if layer.zero is None else Cell(f"{layer.zero} of {layer.channels}", float(layer.zero)),
            layer.multiply_adds,
        ]
        for layer in summary.layers
    ]
    header = ["layer", "kind", "reads", "shape", "parameters", "zero channels", "multiply-adds"]
    return [
        Table("What is known of the net", ["", ""], rows(lines)),
        *map(Text, summary.found),
        Table("Layers", header, rows(layers), folded=len(layers) > _OPEN),
        Drawing(summary.svg(), f"The graph of {printable(facts.name, 80)}: blue convolutions, orange dense layers."),
    ]


def _data(facts: Facts) -> list[Block]:
    sizes: dict[str, tuple[int, str]] = {}
    if facts.sweep:
        n = facts.sweep["n"]
        sizes["validation"] = (int(n["valid"]), "clean; order, drops and thresholds go by them")
        if facts.sweep["valid_accuracy"] != facts.sweep["test_accuracy"] or n["valid"] != n["test"]:
            sizes["test"] = (int(n["test"]), "clean; what is reported")
        for name, size in n["poisoned"].items():
            sizes[str(name)] = (int(size), "with a trigger, labelled with the attacker's target")
    elif facts.badnet:
        sizes["clean"] = (facts.badnet.clean.n, "what is reported")
        sizes |= {
            name: (rate.n, "with a trigger, labelled with the attacker's target")
            for name, rate in facts.badnet.poisoned.items()
        }
    blocks: list[Block] = []
    if sizes:
        blocks.append(
            Table(
                "Sets of images", ["set", "images", "what they are"], rows([[k, n, w] for k, (n, w) in sizes.items()])
            )
        )
    if facts.samples:
        for name, pixels in facts.samples.pixels.items():
            labels = facts.samples.labels[name]
            what = "clean images" if name == CLEAN else f"images with {printable(name, 60)}"
            blocks.append(
                Pictures(
                    what[0].upper() + what[1:],
                    [
                        Picture(
                            uri(image),
                            f"{what[:-1] if name == CLEAN else what}, label {_of(labels, k)}",
                            _of(labels, k),
                        )
                        for k, image in enumerate(pixels)
                    ],
                    "Under each image its label." if name == CLEAN else "Under each image the attacker's target.",
                )
            )
    return blocks


def _of(labels: Any, k: int) -> str:
    return "–" if labels is None else str(labels[k])


# --- The curve -------------------------------------------------------------------------------------------------------


def _curve(facts: Facts, pictures: int) -> list[Block]:
    sweep = facts.sweep
    if sweep is None:
        return []
    lines = _lines(sweep)
    layer, n = printable(sweep["layer"], 60), sweep["n"]
    sets = ", ".join(
        [
            f"{n['valid']:,} validation",
            f"{n['test']:,} test",
            *(f"{v:,} with {printable(k, 30)}" for k, v in n["poisoned"].items()),
        ]
    )
    marks = {str(repair["drop"]): int(repair["pruned"]) for repair in sweep["repairs"]}
    name = printable(facts.name, 60)
    caption = f"{name}: rates by the number of pruned channels of {layer}, with 95 % intervals; images: {sets}."
    chart = curve_chart(lines, marks, f"channels of {layer} pruned", caption, id="curve-chart")
    # The words are too long for so many bars.
    bars = {name.replace("BadNet", "B").replace("GoodNet", "G"): rates for name, rates in rates_at_drops(sweep).items()}
    colours = {"clean accuracy": "test"} | {f"ASR, {name}": attack(i) for i, name in enumerate(sweep["attack_success"])}
    blocks: list[Block] = [
        Text(
            f"The channels of {layer} are zeroed one after another, the least active on clean images first. A backdoor "
            "that lives in channels which clean images do not use goes early; one that does not, late. Drop X is the "
            "first point that is X percentage points below the first in validation accuracy."
        ),
        Charts(
            [
                chart,
                bar_chart(
                    bars,
                    colours,
                    "B, the net; at each drop B′, the repaired net, and G, the GoodNet of both; with 95 % intervals.",
                ),
            ]
        ),
    ]
    if facts.walk is not None and len(facts.walk.faces) and len(facts.walk.faces[0].answers) == len(sweep["order"]) + 1:
        blocks += _explorer(facts, lines, pictures)
    header = [
        "pruned",
        "channel",
        *(line.series.name for line in lines),
        "GoodNet, test",
        "GoodNet, clean called backdoored",
    ]
    goodnet = sweep["goodnet"]
    header += [f"GoodNet, attack success, {name}" for name in goodnet["attack_success"]]
    table = []
    for k in range(len(sweep["order"]) + 1):
        shares = [_shared(line.shares[k], line.low[k], line.high[k]) for line in lines]
        limits = goodnet["intervals"]
        shares += [_shared(goodnet[key][k], *limits[key][k]) for key in ("test_accuracy", "flagged_clean")]
        shares += [_shared(of[k], *limits["attack_success"][name][k]) for name, of in goodnet["attack_success"].items()]
        table.append([k, Cell("–") if k == 0 else as_cell(int(sweep["order"][k - 1])), *shares])
    blocks.append(Table("Every point of the curve", header, rows(table), folded=True))
    repairs = [
        [
            f"drop {repair['drop']}",
            int(repair["pruned"]),
            Cell(f"{100 * repair['test_accuracy']:.2f} %", repair["test_accuracy"]),
            *(Cell(f"{100 * share:.2f} %", share) for share in repair["attack_success"].values()),
            Cell(f"{100 * repair['goodnet']['test_accuracy']:.2f} %", repair["goodnet"]["test_accuracy"]),
            *(Cell(f"{100 * share:.2f} %", share) for share in repair["goodnet"]["attack_success"].values()),
        ]
        for repair in sweep["repairs"]
    ]
    attacks = [f"attack success, {name}" for name in sweep["attack_success"]]
    header = ["repaired net", "pruned", "B′ clean", *(f"B′ {of}" for of in attacks), "GoodNet clean"]
    header += [f"GoodNet {of}" for of in attacks]
    if repairs:
        blocks.insert(2, Table("Repaired nets on the curve", header, rows(repairs)))
    return blocks


def _shared(share: float, low: float, high: float) -> Cell:
    return Cell(f"{100 * share:.2f} %", float(share), f"95 % interval {100 * low:.2f}–{100 * high:.2f} %")


def _lines(sweep: Mapping[str, Any]) -> list[Line]:
    intervals = sweep["intervals"]

    def line(series: Series, shares: Sequence[float], limits: Sequence[Sequence[float]]) -> Line:
        low, high = zip(*limits, strict=True)
        return Line(series, list(map(float, shares)), list(map(float, low)), list(map(float, high)))

    is_same = sweep["valid_accuracy"] == sweep["test_accuracy"]
    found = [line(Series("clean accuracy, validation", "valid"), sweep["valid_accuracy"], intervals["valid_accuracy"])]
    if not is_same:
        found.append(line(Series("clean accuracy, test", "test"), sweep["test_accuracy"], intervals["test_accuracy"]))
    for number, (name, shares) in enumerate(sweep["attack_success"].items()):
        series = Series(f"attack success, {printable(name, 40)}", attack(number), dashed=True)
        found.append(line(series, shares, intervals["attack_success"][name]))
    return found


def _explorer(facts: Facts, lines: Sequence[Line], pictures: int) -> list[Block]:
    """The slider with its faces, and the same at the drops as a table, for those without a script."""
    walk, sweep = facts.walk, facts.sweep
    assert walk is not None and sweep is not None
    faces, data = [], []
    for face in walk.faces:
        what = f"clean, label {face.label}" if face.set == CLEAN else f"{printable(face.set, 30)}, target {face.label}"
        faces.append(Picture(uri(face.pixels), f"image, {what}: the net answers {face.badnet}", what))
        data.append(
            {"clean": face.set == CLEAN, "label": face.label, "b": face.badnet, "answers": face.answers.tolist()}
        )
    curve = [{"name": line.series.name, "shares": line.shares, "low": line.low, "high": line.high} for line in lines]
    start = next((int(repair["pruned"]) for repair in sweep["repairs"]), 0)
    content = {"n": walk.classes, "order": [int(channel) for channel in sweep["order"]], "curve": curve, "faces": data}
    points = {"0": 0} | {f"drop {name}": pruned for name, pruned in walk.drops.items()}
    table = []
    for face in walk.faces:
        goodnet = walk.goodnet(face)
        shown = ["clean" if face.set == CLEAN else face.set, face.label, face.badnet]
        for k in points.values():
            said = "backdoored" if goodnet[k] == walk.classes else str(goodnet[k])
            shown.append(Cell(f"{face.answers[k]} → {said}", float(face.answers[k])))
        table.append(shown)
    header = ["set", "label or target", "B", *(f"B′ → GoodNet at {name}" for name in points)]
    return [
        Explorer(len(sweep["order"]), start, faces, content),
        Table("The same images at the drops", header, rows(table), folded=True),
    ]


# --- Activations -----------------------------------------------------------------------------------------------------


def _activations(facts: Facts) -> list[Block]:
    blocks: list[Block] = []
    for found in facts.activations:
        order = np.argsort(-found.means(), kind="stable")
        layer = printable(found.layer, 60)
        silent = len(found.silent())
        text = (
            f"Mean activation of the {found.channels} channels of {layer}, read behind {printable(found.place, 60)}. "
            f"{silent} of them are zero on all clean images."
        )
        for name in found.poisoned:
            more = found.responsive(name)
            if len(more):
                top = ", ".join(map(str, more[:8].tolist()))
                text += f" On images with {printable(name, 40)}, {len(more)} respond more than on clean ones, "
                text += f"most of all {top}."
        clean = found.means()[order].tolist()
        channels = order.tolist()
        sizes = found.n
        charts = [channel_chart(clean, None, channels, "valid", f"{layer}: {sizes[CLEAN]:,} clean images.")]
        for number, name in enumerate(found.poisoned):
            caption = f"{layer}: {sizes[name]:,} images with {printable(name, 40)}; the line is that of clean images."
            charts.append(channel_chart(clean, found.means(name)[order].tolist(), channels, attack(number), caption))
        heats = [
            Picture(
                heat_map(found, name),
                f"heat maps of the channels of {layer} on {'clean images' if name == CLEAN else printable(name, 40)}",
                "clean" if name == CLEAN else f"with {printable(name, 40)}",
            )
            for name in found.maps
        ]
        scale = (
            f"Dark is zero, yellow {float(found.maps[CLEAN].max()):.3g} and above: the highest mean on clean images."
        )
        table = [
            [channel, *(float(found.means(name)[channel]) for name in found.maps)]
            + [float(found.means(name)[channel] - found.means()[channel]) for name in found.poisoned]
            for channel in range(found.channels)
        ]
        header = ["channel", *("clean" if name == CLEAN else f"with {name}" for name in found.maps)]
        header += [f"difference, {name}" for name in found.poisoned]
        blocks += [
            Text(text),
            Charts(charts),
            Pictures("Heat maps of the mean activation, a small map per channel", heats, scale, wide=True),
            Table(f"Mean activation of every channel of {layer}", header, rows(table), folded=True),
        ]
    for demonstration in facts.demonstrations:
        blocks += _demonstration(demonstration)
    return blocks


def heat_map(found: Activations, name: str) -> str:
    """The maps of all channels side by side, on the scale of the clean ones, inside the page."""
    from matplotlib import colormaps

    maps, clean = found.maps[name], found.maps[CLEAN]
    rows_, columns, channels = maps.shape
    across = max(1, int(np.ceil(np.sqrt(channels * rows_ / columns))))
    down = -(-channels // across)
    tiles = np.full((down * across, rows_ + 1, columns + 1), np.nan)
    tiles[:channels, :rows_, :columns] = np.moveaxis(maps, -1, 0)
    flat = tiles.reshape(down, across, rows_ + 1, columns + 1).swapaxes(1, 2).reshape(down * (rows_ + 1), -1)
    coloured = colormaps["viridis"](np.clip(flat / (float(clean.max()) or 1.0), 0, 1), bytes=True)[..., :3]
    coloured[np.isnan(flat)] = 255
    return uri(np.ascontiguousarray(coloured), is_photo=False)


def _demonstration(found: Demonstration) -> list[Block]:
    blocks: list[Block] = []
    shown = min(8, len(found.perturbations))
    for name, image in found.images.items():
        what = "a clean image" if name == CLEAN else f"an image with {printable(name, 40)}"
        label, under = found.labels[name], found.under[name]
        pictures = [Picture(uri(image), f"{what}: the net answers {label}", f"as it is: {label}")]
        if found.shown is not None:
            pictures += [
                Picture(uri(found.shown[name][k]), f"{what} under another image: {under[k]}", str(under[k]))
                for k in range(shown)
            ]
        kept = f"{found.kept(name)} of {len(under)}"
        if found.what == "overlays":
            heading = f"STRIP: {what} under other clean images"
            note = f"Under each the net's answer. It keeps its label under {kept}."
            note += "" if name == CLEAN else " A trigger shows through what is laid over it."
        else:
            heading = f"Masks: {what} with most channels masked"
            note = f"Each mask with the net's answer; white channels are kept. It keeps its label under {kept} masks."
            pictures += [
                Picture(_mask(found.perturbations[k]), f"{what} under a mask: {under[k]}", str(under[k]))
                for k in range(shown)
            ]
        blocks.append(Pictures(heading, pictures, note))
    return blocks


def _mask(mask: np.ndarray) -> str:
    """The channels of a mask as squares, white where they are kept."""
    across = int(np.ceil(np.sqrt(len(mask))))
    squares = np.full(across * -(-len(mask) // across), 128, np.uint8)
    squares[: len(mask)] = 255 * (np.asarray(mask) > 0)
    return uri(np.repeat(np.repeat(squares.reshape(-1, across, 1), 8, axis=0), 8, axis=1), is_photo=False)


# --- Repairs and the guard -------------------------------------------------------------------------------------------


def _repairs(facts: Facts) -> list[Block]:
    if not facts.repairs:
        return []
    blocks: list[Block] = []
    names = list(
        dict.fromkeys(name for each in facts.repairs for of in (each.own, each.goodnet) if of for name in of.poisoned)
    )
    lines: list[Sequence[object]] = []

    def add(who: str, form: str, of: Any) -> None:
        attacks = [as_cell(of.poisoned.get(name)) for name in names]
        rated = of.der
        if not rated and facts.badnet is not None and of is not facts.badnet:
            before = {name: rate for name, rate in facts.badnet.poisoned.items() if name in of.poisoned}
            rated = defense_effectiveness((facts.badnet.clean, before), (of.clean, of.poisoned))
        der = [f"{value:.3f}" for value in rated.values()]
        lines.append([who, form, of.clean, *attacks, of.flagged, " / ".join(der) or None])

    if facts.badnet is not None:
        add("none", "B", facts.badnet)
    groups: dict[str, dict[str, Rate]] = {}
    if facts.badnet is not None:
        groups["B"] = _rates(facts.badnet, names)
    for each in facts.repairs:
        if each.own is not None:
            add(each.name, "B′", each.own)
            groups[f"B′\n{each.name}"] = _rates(each.own, names)
        if each.goodnet is not None:
            add(each.name, "GoodNet", each.goodnet)
            groups[f"GoodNet\n{each.name}"] = _rates(each.goodnet, names)
    header = ["repair", "net", "clean accuracy", *(f"attack success, {name}" for name in names)]
    header += ["clean called backdoored", "DER"]
    if lines:
        blocks.append(
            Text(
                "B is the net as it is, B′ a repaired one. The GoodNet answers what both say, and “backdoored” where "
                "they differ. DER, the defense effectiveness rating, is 1 for a defense that stops a sure attack at no "
                "cost and 0.5 for one that does nothing."
            )
        )
        blocks.append(Table("Repaired nets", header, rows(lines)))
        colours = {"clean accuracy": "test"} | {f"ASR, {name}": attack(i) for i, name in enumerate(names)}
        charts = [bar_chart(groups, colours, "Clean accuracy and attack success, with 95 % intervals.")]
        blocks.append(Charts(charts + _histories(facts.repairs)))
    settings: list[Sequence[object]] = [
        [each.name, key.replace("_", " "), _setting(value)]
        for each in facts.repairs
        for key, value in each.settings.items()
        if key not in ("cells", "held_back_accuracy")
    ]
    blocks += [Text(printable(note, 400)) for each in facts.repairs for note in each.notes]
    if settings:
        blocks.append(
            Table(
                "Settings of the repairs, and what the clean images decided",
                ["repair", "", ""],
                rows(settings),
                folded=True,
            )
        )
    return blocks


def _histories(repairs: Sequence[Defended]) -> list[Any]:
    charts = []
    for each in repairs:
        known = [epoch for epoch in each.history if np.isfinite(epoch.loss)]
        if len(known) > 1:
            losses = [float(epoch.loss) for epoch in known]
            counts = [None if epoch.held_out is None else float(epoch.held_out) for epoch in known]
            charts.append(history_chart(losses, counts, f"Training of the repair {printable(each.name, 40)}."))
    return charts


def _rates(of: Any, names: Sequence[str]) -> dict[str, Rate]:
    return {"clean accuracy": of.clean} | {f"ASR, {name}": of.poisoned[name] for name in names if name in of.poisoned}


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_setting(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return f"{len(value)}: " + " ".join(map(str, value[:80])) if value else "none"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _guard(facts: Facts) -> list[Block]:
    blocks: list[Block] = []
    guard, detect = facts.guard, facts.detect
    if guard is not None:
        lines = [
            [
                name,
                None if level.get("frr_asked") is None else Cell(f"{100 * level['frr_asked']:g} %", level["frr_asked"]),
                _threshold(name, level["threshold"]),
                None if level.get("frr_95") is None else Cell(f"{100 * level['frr_95']:.2f} %", level["frr_95"]),
                as_cell(int(held["clean_score"]["n"])),
                "decides" if name == guard["detector"] and number == 0 else "",
            ]
            for name, held in guard["detectors"].items()
            for number, level in enumerate(held["levels"])
        ]
        header = ["detector", "FRR asked", "rejects", "FRR at most, with 95 % confidence", "calibrated on", ""]
        blocks.append(Table("Thresholds, from clean images alone", header, rows(lines)))
    if detect is None:
        return blocks
    lines, sets = [], list(dict.fromkeys(of for found in detect["detectors"].values() for of in found["poisoned"]))
    for name, found in detect["detectors"].items():
        clean = found["guarded"]["clean"]
        n = int(clean["n"])
        frr = Rate(round(float(found["frr_measured"]) * n), n)
        accuracy = Rate(int(clean["correct"]), n)
        base = [name, _threshold(name, found["threshold"]), frr, accuracy]
        for of in sets or [None]:
            if of is None:
                lines.append(base)
                continue
            on, left = found["poisoned"][of], found["guarded"]["poisoned"][of]
            area = on.get("auroc_where_it_fires")
            far = Rate(int(left["hits"]), int(on["fires"])) if int(on["fires"]) else None
            limits = on.get("auroc_interval_where_it_fires")
            tip = f"95 % interval {limits[0]:.4f}–{limits[1]:.4f}" if limits else ""
            auroc = Cell("–") if area is None else Cell(f"{area:.4f}", float(area), tip)
            lines.append([*base, of, far, auroc, Rate(int(left["hits"]), int(left["n"]))])
    header = ["detector", "rejects", "FRR", "guarded accuracy"]
    header += ["poisoned set", "FAR", "AUROC", "guarded attack success"] if sets else []
    blocks.append(
        Text(
            "FRR: clean images rejected. FAR: of the images on which the attack succeeds, those that pass. Guarded: an "
            "image that is rejected counts neither as recognised nor as attacked."
        )
    )
    blocks.append(Table("Detectors on these images", header, rows(lines)))
    blocks += _scores(facts)
    return blocks


def _threshold(name: str, threshold: float) -> Cell:
    if drawn(name)[1]:
        return Cell(f"entropy below {-float(threshold):.4f} bits", float(threshold))
    return Cell(f"score above {float(threshold):.4f}", float(threshold))


def _scores(facts: Facts) -> list[Block]:
    detect = facts.detect
    assert detect is not None
    if CLEAN not in facts.scores:
        return []
    charts, curves = [], {}
    colours = {"clean": "valid"}
    poisoned = [name for name in facts.scores if name != CLEAN]
    colours |= {f"with {name}": attack(i) for i, name in enumerate(poisoned)}
    sizes = ", ".join(
        f"{len(next(iter(of.values()), [])):,} {name if name == CLEAN else f'with {printable(name, 30)}'}"
        for name, of in facts.scores.items()
    )
    for name, found in detect["detectors"].items():
        own = {
            "clean" if of == CLEAN else f"with {of}": by[name]
            for of, by in facts.scores.items()
            if len(by.get(name, ()))
        }
        if "clean" not in own:
            continue
        label, entropy = drawn(name)
        caption = (
            f"{printable(facts.name, 60)}, {name}: {sizes}; of the poisoned images those on which the attack succeeds."
        )
        charts.append(score_chart(own, colours, float(found["threshold"]), label, entropy, caption))
        curves |= {
            (f"{name}, {of}" if len(poisoned) > 1 else name): error_curve(
                facts.scores[CLEAN][name], facts.scores[of][name]
            )
            for of in poisoned
            if len(facts.scores[of].get(name, ()))
        }
    if curves:
        charts.append(error_chart(curves, f"{printable(facts.name, 60)}: errors at every threshold."))
    return [Charts(charts)] if charts else []


# --- Audit, comparison -----------------------------------------------------------------------------------------------


def _audit(facts: Facts) -> list[Block]:
    blocks: list[Block] = []
    for audit in facts.audits:
        blocks.append(Text(f"Verdict: {printable(audit.get('verdict', 'not told'), 200)}."))
        lines = []
        for suspect in audit.get("suspects") or []:
            tip = ""
            if limits := suspect.get("interval"):
                tip = f"95 % interval {100 * float(limits[0]):.1f}–{100 * float(limits[1]):.1f} %"
            success = suspect.get("success")
            lines.append(
                [
                    suspect.get("class"),
                    None if suspect.get("p_value") is None else float(suspect["p_value"]),
                    None if suspect.get("score") is None else float(suspect["score"]),
                    Cell("–") if success is None else Cell(f"{100 * float(success):.1f} %", float(success), tip),
                    None if suspect.get("trigger") is None else str(suspect["trigger"]),
                ]
            )
        if lines:
            header = ["class", "p-value", "score", "its trigger works on", "trigger"]
            blocks.append(Table("Suspected target classes", header, rows(lines)))
        file = audit.get("file")
        told = [audit.get("graph"), file.get("findings") if isinstance(file, Mapping) else None]
        found = [each for part in told if isinstance(part, list | tuple) for each in part if isinstance(each, Mapping)]
        if found:
            lines = [
                [
                    printable(each.get("where", ""), 100),
                    printable(each.get("message", ""), 400),
                    "yes" if each.get("is_suspicious") else "no",
                ]
                for each in found
            ]
            blocks.append(Table("What the graph and the file say", ["where", "what", "suspicious"], rows(lines)))
        untested = audit.get("not_tested")
        if isinstance(untested, list | tuple):
            blocks.append(Text(f"Not tested: {'; '.join(printable(each, 200) for each in untested)}."))
    return blocks


def _comparison(facts: Facts) -> list[Block]:
    found = facts.comparison
    if found is None:
        return []
    records = [row.record() for row in found.rows] if isinstance(found, Comparison) else list(found["rows"])
    sets = list(dict.fromkeys(name for row in records for name in row["attack_success"]))

    def rate(of: Mapping[str, Any] | None) -> Cell:
        return as_cell(None if of is None else Rate(int(of["count"]), int(of["n"])))

    lines = [
        [row["net"], row["repair"], row["form"], row["detector"], rate(row["clean_accuracy"])]
        + [rate(row["attack_success"].get(name)) for name in sets]
        + [" / ".join(f"{float(value):.3f}" for value in row["der"].values()) or None]
        for row in records
    ]
    header = [
        "net",
        "repair",
        "form",
        "detector",
        "clean accuracy",
        *(f"attack success, {name}" for name in sets),
        "DER",
    ]
    return [Table("Nets × repairs × detectors", header, rows(lines), folded=len(lines) > _OPEN)]


# --- Images ----------------------------------------------------------------------------------------------------------


def _gallery(facts: Facts, pictures: int) -> list[Block]:
    gallery = facts.gallery
    if gallery is None:
        return []
    blocks: list[Block] = [
        Text(
            "Under each image: its label, or the attacker's target, → the net's answer, with the confidence, and where "
            f"there is one the GoodNet's answer; {gallery.backdoored} means backdoored. The most confident come first."
        )
    ]
    for group in gallery.groups:
        shown = []
        for picture in group.pictures[:pictures]:
            bad = picture.label != picture.answer if picture.set == CLEAN else picture.label == picture.answer
            mark = "flag" if picture.goodnet == gallery.backdoored else "bad" if bad else "good"
            alt = f"{picture.name}: label {picture.label}, answer {picture.answer}"
            shown.append(Picture(uri(picture.pixels), alt, picture.caption(), mark))
        heading = group.title[0].upper() + group.title[1:]
        note = f"{group.total:,} of {group.n:,} images" + (f"; {len(shown)} shown." if shown else ".")
        blocks.append(Pictures(heading, shown, note))
    return blocks


def _confusions(facts: Facts) -> list[Block]:
    found = facts.confusions
    if found is None:
        return []
    blocks: list[Block] = []
    name = printable(facts.name, 60)
    charts = []
    if found.mistaken:
        wrong = [(str(of.label), of.wrong.count) for of in found.mistaken[:_BARS]]
        n = f"{found.n[CLEAN]:,} clean images"
        charts.append(count_chart(wrong, "valid", "class", f"{name}: classes most often misclassified; {n}."))
        answers = [(str(label), count) for label, count in found.wrong_answers[:_BARS]]
        charts.append(count_chart(answers, "test", "class", f"{name}: most frequent wrong answers; {n}."))
    else:
        blocks.append(Text(f"All {found.n[CLEAN]:,} clean images are recognised."))
    for number, (of, counted) in enumerate(found.attacked.items()):
        caption = f"{name}: answers to {found.n[of]:,} images with {printable(of, 40)}."
        charts.append(count_chart([(str(label), c) for label, c in counted[:_BARS]], attack(number), "class", caption))
    blocks.append(Charts(charts))
    if found.mistaken:
        lines = [
            [of.label, of.wrong, ", ".join(f"{answer} ({count})" for answer, count in of.answers[:6])]
            for of in found.mistaken[:100]
        ]
        shown = "" if len(found.mistaken) <= 100 else f" (the first 100 of {len(found.mistaken):,})"
        header = ["class", "misclassified", "called (how often)"]
        blocks.append(
            Table(f"Clean classes that are misclassified{shown}", header, rows(lines), folded=len(lines) > 10)
        )
    for of, counted in found.attacked.items():
        target = found.targets[of]
        lines = [
            [Cell(f"{label}{' (target)' if label == target else ''}", float(label)), Rate(count, found.n[of])]
            for label, count in counted[:100]
        ]
        heading = f"What images with {printable(of, 40)} are called"
        blocks.append(Table(heading, ["answer", "images"], rows(lines), folded=len(lines) > 10))
    return blocks
