"""The detectors as scores, higher meaning backdoored, and those made of two measures."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from jaxdefend.defenses.mask_entropy import OFFSET
from jaxdefend.defenses.strip import Blend

DETECTORS = ("persistence", "masks", "strip", "both", "goodnet")
DEFAULT = "persistence"
# The two measures that a detector is made of. Under masks that leave few channels: entropy, share of changed labels.
PARTS = {"persistence": ("few_entropy", "few_changed"), "both": ("masks", "strip")}
# Measures in bits; low where suspicious, as the share of changed labels is.
ENTROPIES = ("masks", "few_entropy", "strip")
# The entropy of a detector that has one.
ENTROPY_OF = {"persistence": "few_entropy", "masks": "masks", "strip": "strip"}

Scores = Float[np.ndarray, " n"]


class Settings(NamedTuple):
    """All that the scores depend on beside the net and the overlay pool."""

    seed: int = 0
    masks: int = 100
    keep: float = 0.4
    keep_few: float = 0.2
    overlays: int = 100
    blend: Blend = Blend()


class Fit(NamedTuple):
    """Mean and standard deviation of a measure of clean images, of entropies on the logarithmic scale of `level`."""

    mean: float
    std: float


@partial(jax.jit, static_argnums=0)
def keys(seed: int) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """Of the masks and of the overlays. In one piece, since each of the operations alone would be compiled alone."""
    masks, overlays = jax.random.split(jax.random.key(seed))
    return masks, overlays


def level(name: str, values: Scores) -> Scores:
    """A measure on the scale on which it is compared: entropies are skewed, their logarithms are nearly normal."""
    values = values.astype(np.float64)
    return np.log2(values + OFFSET) if name in ENTROPIES else values


def fitted(name: str, values: Scores) -> Fit:
    """To clean images. A standard deviation of zero becomes one, so that it divides."""
    levels = level(name, values)
    return Fit(float(levels.mean()), float(levels.std()) or 1.0)


def combined(measures: Mapping[str, Scores], clean: Mapping[str, Fit]) -> Scores:
    """The more suspicious of the measures: the largest of how many standard deviations each lies below clean images."""
    below = [(clean[name].mean - level(name, values)) / clean[name].std for name, values in measures.items()]
    return np.max(below, axis=0)
