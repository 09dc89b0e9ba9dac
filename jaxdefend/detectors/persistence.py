"""Persistence: a backdoored image keeps its label, or the net its certainty, when most of the channels are gone."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Float

from jaxdefend.datasets.images import ImageSet
from jaxdefend.detectors import Persistence
from jaxdefend.detectors.base import Fit, Measure, Measures, Scene, Scores, combined, keys, measures
from jaxdefend.detectors.masks import random_masks, under_masks
from jaxdefend.nets.batches import Batches
from jaxdefend.nets.net import Net

# What the score is, on figures.
LABEL = "standard deviations below clean"

# The measure that is an entropy, for people.
ENTROPY = "few_entropy"

# The most suspicious measures that an image can have.
LEAST = {"few_entropy": Measure(np.zeros(1), bits=True), "few_changed": Measure(np.zeros(1))}

# The measures whose fits to clean images the score is made with.
FITS = ("few_entropy", "few_changed")


def measure(settings: Persistence, net: Net, images: ImageSet, scene: Scene) -> Measures:
    """Entropy under masks that leave few channels, and the share of them that change the label."""
    masks = random_masks(keys(scene.seed)[0], net, settings.masks, settings.keep)
    return measures_under(net, scene.batches(images, "persistence"), masks)


def measures_under(net: Net, batches: Batches, masks: Float[Array, "m c"]) -> Measures:
    """The measures under masks that are given."""
    entropy, changed = under_masks(net, batches, masks)
    return {"few_entropy": Measure(np.asarray(entropy), bits=True), "few_changed": Measure(np.asarray(changed))}


def changed_share(settings: Persistence, net: Net, images: ImageSet, scene: Scene) -> float:
    """How often clean images lose their label under the masks."""
    return float(measures(settings, net, images, scene, {})["few_changed"].values.mean())


def score(measures: Measures, clean: Mapping[str, Fit]) -> Scores:
    """Standard deviations below clean images, of the more suspicious measure."""
    return combined({name: measures[name] for name in FITS}, clean)
