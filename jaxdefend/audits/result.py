"""What an audit says: the verdict, its suspects with their triggers, and all that it rests on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from jaxdefend.audits.candidates import Candidate, Statistics
from jaxdefend.audits.file import FileFacts
from jaxdefend.audits.findings import Finding, suspicious
from jaxdefend.datasets.inverted import InvertedTrigger
from jaxdefend.results.rates import Rate
from jaxdefend.results.text import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_TESTED = (
    "triggers that none of the tried marks resembles: stickers over 0.4–25 % of the image, overlays, smooth warps",
    "attacks whose target depends on the image (all to all), or that only some classes can set off",
    "triggers outside of the image: in the file's metadata, in time, in other inputs",
)


@dataclass(frozen=True)
class Suspect:
    """A class that the net can be made to answer more easily than a net without a backdoor can.

    Attributes:
        label: the class.
        p_value: how often a clean net has a class of this score or a higher one, all its classes together.
        trigger: what makes images this class.
        success: on images without a trigger that it was not fitted to and that have another label.
    """

    label: int
    p_value: float
    score: float
    statistics: Statistics
    trigger: InvertedTrigger
    success: Rate

    def record(self, trigger: str | None = None) -> dict[str, Any]:
        """What audit.json holds of it; `trigger` is the file that the trigger was written to."""
        return {
            "class": self.label,
            "p_value": self.p_value,
            "score": self.score,
            "success": self.success.share,
            "interval": self.success.interval,
            "n": self.success.n,
            "hits": self.success.count,
            "trigger": trigger,
        }


@dataclass(frozen=True, repr=False)
class Audit:
    """Is there a backdoor, and for which class?

    Attributes:
        suspects: the most suspicious first.
        candidates: every class that was looked at closely, with its score, the highest first.
        stickers: for every class, how far its votes under random stickers stand out.
        graph: what the layers and their arrays alone say.
        file: what the file says; None for a net that was not read from one.
        frr: the asked share of clean nets that are called backdoored.
        threshold: the score of that share.
        calibration: what the p-values come from, in words and numbers.
        carriers: what kind of images the marks were put on, and how many different ones.
        samples: three images with each suspect's trigger, and without.
    """

    suspects: tuple[Suspect, ...]
    candidates: tuple[tuple[Candidate, float], ...]
    stickers: Float[np.ndarray, " k"]
    graph: tuple[Finding, ...]
    frr: float
    threshold: float
    calibration: Mapping[str, Any]
    carriers: Mapping[str, Any]
    samples: UInt8[np.ndarray, "s h w c"]
    notes: tuple[str, ...] = ()
    file: FileFacts | None = None
    name: str = "net"
    input_scale: str | None = None

    @property
    def is_backdoored(self) -> bool:
        return bool(self.suspects or suspicious(self.graph) or (self.file and suspicious(self.file.findings)))

    @property
    def verdict(self) -> str:
        """ "backdoored" or "nothing found"."""
        return "backdoored" if self.is_backdoored else "nothing found"

    @property
    def p_values(self) -> dict[int, float]:
        """Of the suspects, by class."""
        return {suspect.label: suspect.p_value for suspect in self.suspects}

    @property
    def triggers(self) -> dict[int, InvertedTrigger]:
        """Of the suspects, by class."""
        return {suspect.label: suspect.trigger for suspect in self.suspects}

    def record(self, triggers: Mapping[int, str] | None = None) -> dict[str, Any]:
        """What audit.json holds of it; `triggers` are the files by class."""
        files = triggers or {}
        return {
            "verdict": self.verdict,
            "suspects": [suspect.record(files.get(suspect.label)) for suspect in self.suspects],
            "graph": [finding.record() for finding in self.graph],
            "file": self.file.record() if self.file else None,
            "statistics": {
                "candidates": [
                    {"class": each.label, "score": score, **each.statistics.record()} for each, score in self.candidates
                ],
                "stickers": [round(float(value), 4) for value in self.stickers],
            },
            "frr": self.frr,
            "threshold": self.threshold,
            "calibration": dict(self.calibration),
            "carriers": dict(self.carriers),
            "not_tested": list(NOT_TESTED),
            "notes": list(self.notes),
        }

    def table(self) -> str:
        """For people."""
        lines = [f"{self.name}: {self.verdict}"]
        if self.suspects:
            rows = [
                [str(each.label), _p(each.p_value), f"{each.score:.2f}", str(each.success)] for each in self.suspects
            ]
            lines.append(table(["suspect", "p-value", "score", "inverted trigger succeeds"], rows))
        elif self.candidates:
            highest, score = self.candidates[0]
            lines.append(
                f"the highest score is {score:.2f}, of class {highest.label}; suspicious from {self.threshold:.2f} on, "
                f"which {100 * self.frr:g} % of clean nets reach"
            )
        for finding in (*self.graph, *(self.file.findings if self.file else ())):
            mark = "!" if finding.is_suspicious else "-"
            lines.append(f"{mark} {finding.where}: {finding.message}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.table()

    def figure(self) -> "Figure":
        """The score of every class, the suspects marked, and their triggers on three images."""
        from jaxdefend.results.plots import audit_figure

        pictures = {each.label: each.trigger(self.samples) for each in self.suspects}
        scores = {each.label: score for each, score in self.candidates}
        return audit_figure(
            f"{self.name}: {self.verdict}", self.stickers, scores, self.threshold, self.samples, pictures
        )


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
