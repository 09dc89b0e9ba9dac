"""From statistics to a score, and from a score to a p-value: the numbers come from a zoo of nets.

The zoo, what was chosen on which nets and how it did on nets set aside: docs/notes/audit.md.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from jaxdefend.audits.candidates import Statistics
from jaxdefend.audits.carriers import N
from jaxdefend.audits.refined import FITTED

# Nets with fewer classes have a score of their own.
MANY = 40


@dataclass(frozen=True)
class Calibration:
    """How a score is made and how often a clean net's highest one is as high.

    Above the median of the clean nets' highest scores the tail is taken as exponential; the highest of a net already
    counts all its classes.

    Attributes:
        nets: which clean nets it comes from.
        median: of their highest scores.
        scale: mean excess over the median.
        uses_margin_alone: the score is the logarithm of the margin; otherwise a weighted sum.
    """

    nets: str
    median: float
    scale: float
    uses_margin_alone: bool = False

    def score(self, found: Statistics) -> float:
        if self.uses_margin_alone:
            return math.log(max(found.margin, 0.1))
        # Logistic regression of target classes against the other candidates, rounded.
        return (
            2.16 * found.stickers
            + 0.58 * found.overlays
            + 0.64 * min(max(found.kernel, -2.0), 6.0)
            + 0.64 * _log_odds(found.half)
            + 0.47 * _log_odds(found.full)
            + 0.37 * _log_odds(found.overlay)
            + 1.05 * math.log(max(found.margin, 0.2))
            - 5.06
        )

    def p_value(self, score: float) -> float:
        """How often the highest score of a clean net is this one or higher."""
        if score >= self.median:
            return 0.5 * math.exp((self.median - score) / self.scale)
        return 1 - 0.5 * math.exp((score - self.median) / self.scale)

    def threshold(self, frr: float) -> float:
        """The score that so many clean nets reach."""
        return self.median + self.scale * math.log(0.5 / frr)

    def record(self) -> dict[str, Any]:
        return asdict(self)


def _log_odds(share: float, images: int = N - FITTED) -> float:
    """Of a share of images, half an image added on both sides."""
    return math.log((share * images + 0.5) / ((1 - share) * images + 0.5))


FACES = Calibration("26 clean nets: 20 DeepIDs of the zoo, the shipped ones, and repaired nets", -2.3, 1.25)
FEW_CLASSES = Calibration("the other classes of 7 nets for MNIST, on clean images", -1.2, 0.55, True)
DRAWN_SHAPES = Calibration("the other classes of 7 nets for MNIST, on drawn shapes", 1.05, 0.5, True)


def calibration_of(classes: int, carriers: str) -> Calibration:
    """The one for a net of so many classes and this kind of carriers, see `carriers.Carriers.kind`."""
    if carriers == "drawn shapes":
        return DRAWN_SHAPES
    return FACES if classes >= MANY else FEW_CLASSES
