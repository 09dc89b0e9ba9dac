"""Scores of clean and of poisoned images, higher meaning backdoored: thresholds, and how well they separate the two."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxdefend import InputError
from jaxdefend.results.rates import Rate
from jaxdefend.results.text import counted

Scores = Float[np.ndarray, " n"]
Clean = Float[np.ndarray, " c"]
Poisoned = Float[np.ndarray, " p"]

# At which FARs are reported.
FRRS = (0.005, 0.01, 0.02, 0.05, 0.1)


def conformal_threshold(clean: Scores, frr: float) -> float:
    """The threshold whose FRR is at most `frr` in expectation, whatever the distribution: images above it are rejected.

    It is the ⌈(n + 1)(1 − frr)⌉-th smallest score.
    Raises: InputError if `frr` is not a share, or finer than n images allow.
    Source: split-conformal prediction (Papadopoulos et al. 2002; Angelopoulos & Bates 2023, section 1).
    """
    rank = _rank(len(clean), frr)
    return float(np.sort(clean)[rank - 1])


def quantile_threshold(clean: Scores, frr: float) -> float:
    """The smallest score that at most a share `frr` of these images exceeds."""
    _check_frr(frr)
    return float(np.sort(clean)[::-1][math.floor(frr * len(clean))])


def normal_threshold(clean: Scores, frr: float) -> float:
    """Where a normal distribution with their mean and standard deviation leaves `frr` above (Gao et al. 2019, STRIP).

    Raises: InputError if there are fewer than two images, or all have one score.
    """
    _check_frr(frr)
    if len(clean) < 2 or clean.std() == 0:
        found = counted(len(clean), "clean image")
        raise InputError(f"{found} with one score; expected several scores to fit a normal to")
    return NormalDist(float(clean.mean(dtype=np.float64)), float(clean.std(dtype=np.float64))).inv_cdf(1 - frr)


def conformal_confidence(n: int, frr: float) -> dict[str, float]:
    """What n images tell about the true FRR of their conformal threshold; it is Beta-distributed over calibration sets.

    Returns: {"expected_frr"; "confidence", the probability that the true FRR is at most `frr`; "frr_95", what it
        exceeds in one of twenty calibrations}; upper bounds where scores tie.
    Source: Vovk 2012, "Conditional validity of inductive conformal predictors", proposition 2.
    """
    # A tenth of a second, which predict does not need.
    from scipy.special import betainc, betaincinv

    above = n + 1 - _rank(n, frr)
    return {
        "expected_frr": above / (n + 1),
        "confidence": float(betainc(above, n + 1 - above, frr)),
        "frr_95": float(betaincinv(above, n + 1 - above, 0.95)),
    }


def _rank(n: int, frr: float) -> int:
    _check_frr(frr)
    # 1 − frr has rounding errors of its own: 0.05 of 399 + 1 are 20 images.
    above = math.floor((n + 1) * frr + 1e-9)
    if above < 1:
        raise InputError(
            f"false rejection rate {frr:g}: finer than {counted(n, 'clean image')} {'allows' if n == 1 else 'allow'}; "
            f"expected {1 / (n + 1):.2g} or more"
        )
    return n + 1 - above


def _check_frr(frr: float) -> None:
    if not 0 < frr < 1:
        raise InputError(f"false rejection rate {frr:g}: expected a share above 0 and below 1, such as 0.01")


def auroc(clean: Clean, poisoned: Poisoned) -> float:
    """Probability that a poisoned image scores higher than a clean one, ties counting half."""
    ordered = np.sort(clean)
    below = np.searchsorted(ordered, poisoned, "left") + np.searchsorted(ordered, poisoned, "right")
    return float(below.mean() / (2 * len(clean)))


def auroc_interval(area: float, clean: int, poisoned: int) -> list[float]:
    """95 % interval (Hanley & McNeil 1982, "The meaning and use of the area under a ROC curve", equation 2)."""
    both, twice = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (poisoned - 1) * (both - area**2) + (clean - 1) * (twice - area**2)
    half = NormalDist().inv_cdf(0.975) * math.sqrt(max(0.0, variance) / (clean * poisoned))
    return [max(0.0, area - half), min(1.0, area + half)]


def accepted_at(clean: Clean, poisoned: Poisoned, frr: float) -> int:
    """How many poisoned images pass the threshold that at most a share `frr` of these clean images exceeds."""
    return int((poisoned <= quantile_threshold(clean, frr)).sum())


def error_curve(clean: Clean, poisoned: Poisoned) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """FRR and FAR at every threshold, the highest first: from (0, …) to (1, 0)."""
    thresholds = np.concatenate([np.unique(np.concatenate([clean, poisoned]))[::-1], [-np.inf]])
    frr = 1 - np.searchsorted(np.sort(clean), thresholds, "right") / len(clean)
    far = np.searchsorted(np.sort(poisoned), thresholds, "right") / len(poisoned)
    return frr, far


def equal_error_rate(clean: Clean, poisoned: Poisoned) -> float:
    """Where FRR and FAR meet: their mean at the threshold at which they differ least."""
    frr, far = error_curve(clean, poisoned)
    nearest = np.abs(frr - far).argmin()
    return float((frr[nearest] + far[nearest]) / 2)


@dataclass(frozen=True)
class Separation:
    """How well scores separate some poisoned images from clean ones.

    Attributes:
        auroc: area under the ROC curve; None where there are no poisoned images, as are the others.
        auroc_interval: its 95 % interval.
        far: poisoned images accepted, at each FRR.
    """

    auroc: float | None = None
    auroc_interval: Sequence[float] | None = None
    far: dict[float, Rate] | None = None
    equal_error_rate: float | None = None

    def record(self, suffix: str = "") -> dict[str, Any]:
        """As detect.json has it; `suffix` says of which images."""
        if self.far is None:
            return {f"{key}{suffix}": None for key in ("auroc", "far_at_frr", "equal_error_rate")}
        return {
            f"auroc{suffix}": self.auroc,
            f"auroc_interval{suffix}": self.auroc_interval,
            f"far_at_frr{suffix}": {f"{frr:g}": rate.share for frr, rate in self.far.items()},
            f"far_interval_at_frr{suffix}": {f"{frr:g}": rate.interval for frr, rate in self.far.items()},
            f"equal_error_rate{suffix}": self.equal_error_rate,
        }


def separation(clean: Clean, poisoned: Poisoned, frrs: Sequence[float] = FRRS) -> Separation:
    """How well the scores separate poisoned images from clean ones, with FARs at these FRRs."""
    if not len(poisoned):
        return Separation()
    area = auroc(clean, poisoned)
    return Separation(
        area,
        auroc_interval(area, len(clean), len(poisoned)),
        {frr: Rate(accepted_at(clean, poisoned, frr), len(poisoned)) for frr in frrs},
        equal_error_rate(clean, poisoned),
    )
