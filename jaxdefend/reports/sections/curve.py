"""The pruning curve, and a few images along it."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxdefend.reports.activations import CLEAN
from jaxdefend.reports.bars import rates_at_drops
from jaxdefend.reports.blocks import (
    Block,
    Cell,
    Charts,
    Explorer,
    Picture,
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
    curve_chart,
)
from jaxdefend.reports.facts import Facts
from jaxdefend.results.text import printable


def curve_blocks(facts: Facts, pictures: int) -> list[Block]:
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
    blocks.append(_every_point(sweep, lines))
    if sweep["repairs"]:
        blocks.insert(2, _repaired_nets(sweep))
    return blocks


def _every_point(sweep: Mapping[str, Any], lines: Sequence[Line]) -> Table:
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
    return Table("Every point of the curve", header, rows(table), folded=True)


def _repaired_nets(sweep: Mapping[str, Any]) -> Table:
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
    return Table("Repaired nets on the curve", header, rows(repairs))


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
