"""One table of nets × repairs × detectors: its rows, and the texts and figures that show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdefend import InputError
from jaxdefend.results.detection import Separation
from jaxdefend.results.rates import Rate
from jaxdefend.results.text import printable, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = "clean"
NONE = "–"


@dataclass(frozen=True)
class Row:
    """What one defense of one net does.

    Attributes:
        net: its name.
        repair, detector: what they are called; "–" for none.
        form: "net": the net, or the repaired one, by itself; "goodnet": the GoodNet of both.
        clean: clean images that get their label; images that a detector rejects do not count.
        poisoned: by set, poisoned images that get the target and are not rejected.
        frr: clean images that the detector rejects, or the GoodNet calls backdoored.
        far: by set, of the images on which the attack on the net succeeds, those that the detector lets pass.
        threshold: images with a higher score are rejected; `in_bits` says that the score is an entropy's negative.
        auroc: by set, how well it separates these from clean images.
        der: by set, the defense effectiveness rating.
        seconds: that the cell took when it was computed.
    """

    net: str
    repair: str
    form: str
    detector: str
    clean: Rate
    poisoned: Mapping[str, Rate]
    der: Mapping[str, float]
    frr: Rate | None = None
    threshold: float | None = None
    in_bits: bool = False
    far: Mapping[str, Rate | None] = field(default_factory=dict)
    auroc: Mapping[str, Separation] = field(default_factory=dict)
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """What compare.json holds of it."""

        def rate(of: Rate | None) -> dict[str, Any] | None:
            return None if of is None else {"count": of.count, "n": of.n, "share": of.share, "interval": of.interval}

        return {
            "net": self.net,
            "repair": self.repair,
            "form": self.form,
            "detector": self.detector,
            "clean_accuracy": rate(self.clean),
            "attack_success": {name: rate(of) for name, of in self.poisoned.items()},
            "der": dict(self.der),
            "frr": rate(self.frr),
            "threshold": self.threshold,
            "entropy_threshold": -self.threshold if self.in_bits and self.threshold is not None else None,
            "far": {name: rate(of) for name, of in self.far.items()},
            "auroc": {name: of.auroc for name, of in self.auroc.items()},
            "auroc_interval": {name: of.auroc_interval for name, of in self.auroc.items()},
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class NetScores:
    """Scores of one net's detectors: by set, "clean" first, then by detector; poisoned images only where the attack
    succeeds. `thresholds` and what is `drawn` of each (label, whether it is an entropy) by detector."""

    scores: Mapping[str, Mapping[str, np.ndarray]]
    thresholds: Mapping[str, float]
    drawn: Mapping[str, tuple[str, bool]]


@dataclass(frozen=True, repr=False)
class Comparison:
    """Rows of one table, of any number of nets; `together` joins several."""

    rows: tuple[Row, ...]
    scores: Mapping[str, NetScores] = field(default_factory=dict)

    @cached_property
    def sets(self) -> list[str]:
        """The poisoned sets of all rows."""
        return list(dict.fromkeys(name for row in self.rows for name in row.poisoned))

    def record(self) -> dict[str, Any]:
        """What compare.json holds of it."""
        return {"rows": [row.record() for row in self.rows]}

    def columns(self) -> dict[str, list]:
        """The columns of compare.csv: a line per row and poisoned set."""
        lines = []
        for row in self.rows:
            for name in row.poisoned or {"": None}:
                of, far, auroc = row.poisoned.get(name), row.far.get(name), row.auroc.get(name)
                line: dict[str, Any] = {
                    "net": row.net,
                    "repair": row.repair,
                    "form": row.form,
                    "detector": row.detector,
                }
                line |= _flat("clean_accuracy", row.clean)
                line |= {"set": name} | _flat("attack_success", of)
                line |= (
                    {"der": row.der.get(name), "threshold": row.threshold} | _flat("frr", row.frr) | _flat("far", far)
                )
                low, high = (auroc.auroc_interval if auroc else None) or (None, None)
                line |= {"auroc": auroc.auroc if auroc else None, "auroc_low": low, "auroc_high": high}
                lines.append(line | {"seconds": round(row.seconds, 3)})
        return {key: [line[key] for line in lines] for key in lines[0]} if lines else {}

    def _tables(self) -> dict[str, tuple[list[str], list[list[str]]]]:
        """By heading: header and lines, with intervals."""
        repairs = [row for row in self.rows if row.detector == NONE]
        guards = [row for row in self.rows if row.detector != NONE and row.repair == NONE]
        both = [row for row in self.rows if row.detector != NONE and row.repair != NONE]

        def asr(row: Row) -> list[str]:
            return [str(row.poisoned[name]) if name in row.poisoned else NONE for name in self.sets]

        def der(row: Row) -> str:
            own = [f"{row.der[name]:.3f}" for name in self.sets if name in row.der]
            return " / ".join(own) or NONE

        found: dict[str, tuple[list[str], list[list[str]]]] = {}
        attacks = [f"ASR {name}" for name in self.sets]
        if repairs:
            lines = [
                [row.net, row.repair, _form(row), str(row.clean), *asr(row), NONE if row.repair == NONE else der(row)]
                for row in repairs
            ]
            found["Repairs"] = (["net", "repair", "form", "clean accuracy", *attacks, "DER"], lines)
        if guards:
            lines = [
                [row.net, row.detector, _threshold(row)]
                + [NONE if row.frr is None else str(row.frr)]
                + [NONE if row.far.get(name) is None else str(row.far[name]) for name in self.sets]
                + [str(row.clean), *asr(row), der(row)]
                for row in guards
            ]
            header = ["net", "detector", "threshold", "FRR", *(f"FAR {name}" for name in self.sets)]
            header += ["guarded accuracy", *(f"guarded {attack}" for attack in attacks), "DER"]
            found["Detectors"] = (header, lines)
        if both:
            lines = [
                [row.net, row.repair, row.detector, _or_none(row.frr), str(row.clean), *asr(row), der(row)]
                for row in both
            ]
            header = ["net", "repair", "detector", "rejected, clean", "clean accuracy", *attacks, "DER"]
            found["GoodNets behind detectors"] = (header, lines)
        return found

    def table(self) -> str:
        """For people: repairs, detectors, and both together."""
        parts = []
        for heading, (header, lines) in self._tables().items():
            shown = [[printable(cell, 60) for cell in line] for line in lines]
            parts.append(f"{heading}\n{table(header, shown)}")
        return "\n\n".join(parts)

    def markdown(self) -> str:
        """The same tables as Markdown; shares with 95 % Wilson intervals."""
        parts = []
        for heading, (header, lines) in self._tables().items():
            rows = [[_escaped(cell) for cell in line] for line in (header, *lines)]
            rows.insert(1, ["---"] * len(header))
            parts.append(f"## {heading}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows))
        return "\n\n".join(parts) + "\n"

    def __repr__(self) -> str:
        return self.table()

    def figure(self, title: str = "") -> "Figure":
        """Clean accuracy and the highest attack success of every row without a detector, one below the other.

        Raises: InputError if there is no such row.
        """
        from jaxdefend.reports.comparison_figures import bars_figure

        return bars_figure(self, title)

    def histograms_figure(self, title: str = "") -> "Figure":
        """Histograms of every detector's scores, a row per net. Raises: InputError if no detector was compared."""
        from jaxdefend.reports.comparison_figures import histograms_figure

        return histograms_figure(self._with_scores(), title)

    def errors_figure(self, title: str = "") -> "Figure":
        """FRR against FAR of every detector, a panel per net and poisoned set.

        Raises: InputError if no detector was compared.
        """
        from jaxdefend.reports.comparison_figures import errors_figure

        return errors_figure(self._with_scores(), title)

    def _with_scores(self) -> Mapping[str, NetScores]:
        found = {name: of for name, of in self.scores.items() if of.thresholds}
        if not found:
            raise InputError("no detectors were compared: there are no scores to draw")
        return found


def rows_of(record: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows in what compare.json holds. Raises: InputError if it holds others."""

    def rate(of: Mapping[str, Any] | None) -> Rate | None:
        return None if of is None else Rate(int(of["count"]), int(of["n"]))

    def there(of: Mapping[str, Any]) -> Rate:
        return Rate(int(of["count"]), int(of["n"]))

    try:
        return tuple(
            Row(
                str(row["net"]),
                str(row["repair"]),
                str(row["form"]),
                str(row["detector"]),
                there(row["clean_accuracy"]),
                {str(name): there(of) for name, of in row["attack_success"].items()},
                {str(name): float(value) for name, value in row["der"].items()},
                rate(row["frr"]),
                None if row["threshold"] is None else float(row["threshold"]),
                row["entropy_threshold"] is not None,
                {str(name): rate(of) for name, of in row["far"].items()},
                {str(name): Separation(area, row["auroc_interval"].get(name)) for name, area in row["auroc"].items()},
                float(row["seconds"]),
            )
            for row in record["rows"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not the rows of a comparison ({printable(error, 80)} is missing or wrong)") from error


def together(comparisons: Sequence[Comparison]) -> Comparison:
    """One table of all of them."""
    scores: dict[str, NetScores] = {}
    for comparison in comparisons:
        scores |= comparison.scores
    return Comparison(tuple(row for comparison in comparisons for row in comparison.rows), scores)


def _form(row: Row) -> str:
    if row.form == "goodnet":
        return "GoodNet"
    return "B" if row.repair == NONE else "B′"


def _or_none(rate: Rate | None) -> str:
    return NONE if rate is None else str(rate)


def _threshold(row: Row) -> str:
    if row.threshold is None:
        return NONE
    return f"{-row.threshold:.4f} bits" if row.in_bits else f"{row.threshold:.4f}"


def _flat(name: str, rate: Rate | None) -> dict[str, Any]:
    if rate is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high", f"{name}_count", f"{name}_n"))
    low, high = rate.interval
    return {
        name: rate.share,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_count": rate.count,
        f"{name}_n": rate.n,
    }


def _escaped(text: str) -> str:
    """For a cell of a Markdown table: no markup, no HTML."""
    plain = printable(text)
    for letter in ("\\", "|", "`", "*", "_", "[", "]", "<", ">", "#"):
        if letter in ("[", "]") and "%" in plain:
            continue
        plain = plain.replace(letter, {"<": "&lt;", ">": "&gt;"}.get(letter, f"\\{letter}"))
    return plain
