"""What detectors share: measures of images, their fits to clean images, and scores made of several measures."""

import math
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray, UInt8

from jaxdefend.datasets.images import ImageSet
from jaxdefend.detectors import DETECTORS, Detector
from jaxdefend.nets.batches import BATCH, Batches, batches
from jaxdefend.nets.devices import gathered
from jaxdefend.nets.net import Net
from jaxdefend.results.progress import Report

# Bits that are added to an entropy before its logarithm: below this, sure is sure.
OFFSET = 0.01

# By which a score may exceed the highest.
ROUNDING = 1e-3

Scores = Float[np.ndarray, " n"]


class Measure(NamedTuple):
    """What a detector measures of each image, low where suspicious; `bits` says that it is an entropy."""

    values: Scores
    bits: bool = False


Measures = dict[str, Measure]


class Scene(NamedTuple):
    """What detectors have beside their settings, the net and the images.

    Attributes:
        pool: clean images to draw overlays from.
        repaired: the repaired net.
        title: what the images are called while they are read.
        smallest: images that go to the devices together at least.
    """

    seed: int
    report: Report
    pool: UInt8[np.ndarray, "p h w c"] | None = None
    repaired: Net | None = None
    title: str = ""
    smallest: int = BATCH

    def batches(self, images: ImageSet, name: str) -> Batches:
        """This process's part of the images in batches, for the detector called `name`."""
        title = f"{self.title}, {name}" if self.title else name
        return batches(images, title, self.report, self.smallest)


def highest_score(detector: Detector, clean: Mapping[str, "Fit"]) -> float:
    """A score that no image exceeds, but for rounding; infinite where the detector knows none.

    Args:
        clean: the fits to clean images that scores are made with.
    """
    module = module_of(detector)
    least = getattr(module, "LEAST", None)
    return math.inf if least is None else float(module.score(least, clean)[0]) + ROUNDING


# Of scores, below which it is rounding.
LEAST_STD = 1e-6


class Fit(NamedTuple):
    """Mean and standard deviation of a measure of clean images, of entropies on the logarithmic scale of `level`."""

    mean: float
    std: float


def name_of(detector: Detector) -> str:
    """What a detector is called."""
    found = next((name for name, kind in DETECTORS.items() if kind is type(detector)), None)
    return found or type(detector).__name__.lower()


def module_of(detector: Detector) -> ModuleType:
    """The module that is called like the detector. It has `measure`, or `parts`, and `score`."""
    return import_module(f"{__package__}.{name_of(detector).replace('-', '_')}")


def parts_of(detector: Detector) -> tuple[Detector, ...]:
    """The detectors whose measures this one is made of; none for one that measures by itself."""
    parts = getattr(module_of(detector), "parts", None)
    return parts(detector) if parts else ()


def measures(detector: Detector, net: Net, images: ImageSet, scene: Scene, known: dict[Detector, Measures]) -> Measures:
    """What the detector measures of every image, by name.

    Args:
        known: what has been measured of these images; it grows.
    """
    if detector not in known:
        parts = parts_of(detector)
        found: Measures = {}
        for part in parts:
            found |= measures(part, net, images, scene, known)
        known[detector] = found if parts else _measured(detector, net, images, scene)
    return known[detector]


def _measured(detector: Detector, net: Net, images: ImageSet, scene: Scene) -> Measures:
    """By every process its part of the images, put together."""
    own = module_of(detector).measure(detector, net, images, scene)
    return {name: Measure(gathered(found.values, len(images)), found.bits) for name, found in own.items()}


@partial(jax.jit, static_argnums=0)
def keys(seed: int) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """Of the masks and of the overlays. In one piece, since each of the operations alone would be compiled alone."""
    masks, overlays = jax.random.split(jax.random.key(seed))
    return masks, overlays


def level(measure: Measure) -> Scores:
    """A measure on the scale on which it is compared: entropies are skewed, their logarithms are nearly normal."""
    values = measure.values.astype(np.float64)
    return np.log2(values + OFFSET) if measure.bits else values


def fitted(measure: Measure) -> Fit:
    """To clean images. A standard deviation of zero, or of rounding alone, becomes one, so that it divides."""
    levels = level(measure)
    std = float(levels.std())
    return Fit(float(levels.mean()), std if std >= LEAST_STD else 1.0)


def combined(measures: Mapping[str, Measure], clean: Mapping[str, Fit]) -> Scores:
    """The more suspicious of the measures: the largest of how many standard deviations each lies below clean images."""
    below = [(clean[name].mean - level(measure)) / clean[name].std for name, measure in measures.items()]
    return np.max(below, axis=0)
