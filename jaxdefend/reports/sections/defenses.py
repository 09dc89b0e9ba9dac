"""Repairs and the guard."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdefend.reports.activations import CLEAN
from jaxdefend.reports.blocks import (
    Block,
    Cell,
    Charts,
    Table,
    Text,
    rows,
)
from jaxdefend.reports.blocks import cell as as_cell
from jaxdefend.reports.charts import (
    attack,
    bar_chart,
    error_chart,
    history_chart,
    score_chart,
)
from jaxdefend.reports.facts import Defended, Facts, drawn
from jaxdefend.results.detection import error_curve
from jaxdefend.results.rates import Rate, defense_effectiveness
from jaxdefend.results.text import printable


def repair_blocks(facts: Facts) -> list[Block]:
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


def guard_blocks(facts: Facts) -> list[Block]:
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
