"""The detectors as scores, higher meaning backdoored, and the one made of two."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdefend.defenses.mask_entropy import OFFSET
from jaxdefend.defenses.strip import Blend

DETECTORS = ("masks", "strip", "both", "goodnet")
# Those of one entropy an image; "both" is made of them.
ENTROPIES = ("masks", "strip")

Scores = Float[np.ndarray, " n"]


class Settings(NamedTuple):
    """All that the scores depend on beside the net and the overlay pool."""

    seed: int = 0
    masks: int = 100
    keep: float = 0.4
    overlays: int = 100
    blend: Blend = Blend()


class LogNormal(NamedTuple):
    """Mean and standard deviation of log₂ of the entropies of clean images."""

    mean: float
    std: float


def log_normal(entropies: Scores) -> LogNormal:
    """Of these entropies, in bits. A standard deviation of zero becomes one, so that it divides."""
    logarithms = np.log2(entropies.astype(np.float64) + OFFSET)
    return LogNormal(float(logarithms.mean()), float(logarithms.std()) or 1.0)


def combined(entropies: Mapping[str, Scores], clean: Mapping[str, LogNormal]) -> Scores:
    """The more suspicious of the detectors: the largest of how many standard deviations each lies below clean images.

    Entropies are skewed and their scales differ from net to net; their logarithms are nearly normal.
    """
    below = [
        (clean[name].mean - np.log2(values.astype(np.float64) + OFFSET)) / clean[name].std
        for name, values in entropies.items()
    ]
    return np.max(below, axis=0)
