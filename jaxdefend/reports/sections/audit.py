"""The audit, and defenses side by side."""

from collections.abc import Mapping
from typing import Any

from jaxdefend.reports.blocks import (
    Block,
    Cell,
    Table,
    Text,
    rows,
)
from jaxdefend.reports.blocks import cell as as_cell
from jaxdefend.reports.comparison import Comparison
from jaxdefend.reports.facts import Facts
from jaxdefend.reports.sections.net import OPEN
from jaxdefend.results.rates import Rate
from jaxdefend.results.text import printable


def audit_blocks(facts: Facts) -> list[Block]:
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


def comparison_blocks(facts: Facts) -> list[Block]:
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
    return [Table("Nets × repairs × detectors", header, rows(lines), folded=len(lines) > OPEN)]
