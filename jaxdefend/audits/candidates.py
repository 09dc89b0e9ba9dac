"""From cheap statistics of all classes to dear ones of the few that stand out: the cascade of an audit."""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxdefend.audits.carriers import Carriers
from jaxdefend.audits.kernel import column_means
from jaxdefend.audits.marks import OVERLAYS, STICKERS, WARPS, Family
from jaxdefend.audits.refined import Refined, refined
from jaxdefend.audits.votes import excess, votes
from jaxdefend.nets.net import Net
from jaxdefend.results.progress import Progress, Report

# Random marks of each family, and the best of a class's that its refinement begins with.
MARKS = {STICKERS: 3072, OVERLAYS: 1024, WARPS: 512}
_BEGIN_WITH = 16
# Classes that are refined.
_WITH_STICKERS, _WITH_OVERLAYS = 6, 4


@dataclass(frozen=True)
class Statistics:
    """What was measured of one class.

    Attributes:
        stickers, overlays, warps: how far the votes under random marks stand out, see `votes.excess`.
        kernel: robust z of its column in the last kernel.
        faint, half, full: share of images the refined sticker takes to the class, at opacity 0.25, 0.5 and 1.
        margin: of the class's logit under the refined sticker at opacity 1, see `refined.Refined`.
        overlay: share of images the refined overlay takes to the class at half its strength; 0 if none was refined.
    """

    stickers: float
    overlays: float
    warps: float
    kernel: float
    faint: float
    half: float
    full: float
    margin: float
    overlay: float

    def record(self) -> dict[str, float]:
        return asdict(self)


class Candidate(NamedTuple):
    """A class that was looked at closely; `marks` are its refined ones by family."""

    label: int
    statistics: Statistics
    marks: dict[Family, Float[np.ndarray, " p"]]


class Ranked(NamedTuple):
    """All classes by how far the votes under random stickers stand out, and the candidates among them."""

    stickers: Float[np.ndarray, " k"]
    candidates: tuple[Candidate, ...]


def candidates(net: Net, carriers: Carriers, seed: int, report: Report) -> Ranked:
    """Votes and kernel columns of all classes, then refined stickers and overlays of those that stand out."""
    key = jax.random.key(seed, impl="threefry2x32")
    marks = {family: family.draw(key, number, net.image_shape) for family, number in MARKS.items()}
    given = {family: votes(net, carriers, family, drawn, seed, report) for family, drawn in marks.items()}
    standing = {family: excess(each) for family, each in given.items()}
    columns = column_means(net)

    first = np.argsort(-standing[STICKERS], kind="stable")
    with_stickers = _distinct([*first[:5], np.argmax(columns), *first[5:]], _WITH_STICKERS)
    first = np.argsort(-standing[OVERLAYS], kind="stable")
    with_overlays = _distinct([*first[:3], np.argmax(standing[WARPS]), *first[3:]], _WITH_OVERLAYS)

    def improved(family: Family, labels: Int[np.ndarray, " s"]) -> Refined:
        report(Progress(f"refined {family.name}", 0, len(labels), "classes"))
        best = np.argsort(-given[family][:, labels], axis=0, kind="stable")[:_BEGIN_WITH].T
        found = refined(net, carriers, family, marks[family][best], labels, jax.random.fold_in(key, 1))
        report(Progress(f"refined {family.name}", len(labels), len(labels), "classes"))
        return found

    stickers, overlays = improved(STICKERS, with_stickers), improved(OVERLAYS, with_overlays)
    found = []
    for place, label in enumerate(with_stickers):
        beside = np.flatnonzero(with_overlays == label)
        best = {STICKERS: stickers.marks[place]}
        if len(beside):
            best[OVERLAYS] = overlays.marks[beside[0]]
        faint, half, full = map(float, stickers.success[place])
        measured = Statistics(
            *(float(standing[family][label]) for family in MARKS),
            kernel=float(columns[label]),
            faint=faint,
            half=half,
            full=full,
            margin=float(stickers.margin[place, -1]),
            overlay=float(overlays.success[beside[0], 1]) if len(beside) else 0.0,
        )
        found.append(Candidate(int(label), measured, best))
    return Ranked(standing[STICKERS], tuple(found))


def _distinct(labels: list, number: int) -> Int[np.ndarray, " s"]:
    """The first different ones."""
    return np.array(list(dict.fromkeys(int(label) for label in labels))[:number])
