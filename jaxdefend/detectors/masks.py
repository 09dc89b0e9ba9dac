"""Entropy under random channel masks: a backdoored image keeps its label when many of the channels are gone."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Num, PRNGKeyArray

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet
from jaxdefend.detectors import Masks
from jaxdefend.detectors.base import OFFSET, Fit, Measure, Measures, Scene, Scores, keys
from jaxdefend.nets.batches import Batches
from jaxdefend.nets.channels import beside, masked_logits
from jaxdefend.nets.devices import on_devices, sharded
from jaxdefend.nets.inference import entropy, largest
from jaxdefend.nets.net import Net

# What the score is, on figures; it is the negative of what is drawn.
LABEL = "entropy under masks, bits"
NEGATED = True

# The measure that is an entropy, for people.
ENTROPY = "masks"

# The most suspicious measures that an image can have.
LEAST = {"masks": Measure(np.zeros(1), bits=True)}

# Images whose masked heads run together: 100 masks of 8 images are 4 MB of logits.
_BLOCK = 8


def measure(settings: Masks, net: Net, images: ImageSet, scene: Scene) -> Measures:
    """Entropy under masks."""
    masks = random_masks(keys(scene.seed)[0], net, settings.masks, settings.keep)
    return {"masks": Measure(entropies(net, scene.batches(images, "masks"), masks), bits=True)}


def score(measures: Measures, clean: Mapping[str, Fit]) -> Scores:
    """The entropy's negative."""
    return -measures["masks"].values


def random_masks(key: PRNGKeyArray, net: Net, masks: int = 100, keep: float = 0.4) -> Float[Array, "m c"]:
    """0/1 masks of the channels of the net's last convolution, each channel kept with probability `keep`.

    Raises: InputError if there are none, or `keep` is not a probability.
    """
    if masks < 1:
        raise InputError(f"{masks} masks; expected at least one")
    if not 0 < keep < 1:
        raise InputError(f"channels kept with probability {keep:g}; expected one above 0 and below 1")
    channels = net.graph.channels(net.last_convolution)
    return _random_masks(key, masks, channels, keep)


@partial(jax.jit, static_argnames=("masks", "channels"))
def _random_masks(key: PRNGKeyArray, masks: int, channels: int, keep: float | Float[Array, ""]) -> Float[Array, "m c"]:
    return jax.random.bernoulli(key, keep, (masks, channels)).astype(jnp.float32)


class UnderMasks(NamedTuple):
    """Of each image: `entropy`, and the share of the masks under which the net changes its label."""

    entropy: Float[Array | np.ndarray, " n"]
    changed: Float[Array | np.ndarray, " n"]


def entropies(net: Net, batches: Batches, masks: Float[Array, "m c"]) -> Float[np.ndarray, " n"]:
    """Entropy of the predictions for an image under channel masks, in bits, geometric mean over the masks.

    STRIP (Gao et al. 2019) with masks in place of overlays: it needs no other images, and the convolutions run once.
    Under a few masks that hit what carries the trigger, a backdoored image is as unsure as any; they weigh little in
    a geometric mean and much in an arithmetic one. Related: Li et al. 2025 (PSBD, dropout at inference).
    """
    return np.asarray(under_masks(net, batches, masks).entropy)


def under_masks(net: Net, batches: Batches, masks: Float[Array, "m c"]) -> UnderMasks:
    """Both at the cost of one. Source of the second: Li et al. 2025 (PSBD), the shift ratio, here of one image."""
    found = [
        [values[labels >= 0] for values in under] for under, labels in on_devices(_under_masks, net, batches, masks)
    ]
    return UnderMasks(*map(np.concatenate, zip(*found, strict=True)))


@jax.jit
def _under_masks(
    net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"], masks: Float[Array, "m k"]
) -> UnderMasks:
    return sharded(_of_part, net, (pixels,), masks)


def _of_part(net: Net, pixels: Num[Array, "n h w c"], masks: Float[Array, "m k"]) -> UnderMasks:
    place = net.graph.masked_at(net.last_convolution)
    known = net.features(pixels, (place, *beside(net.graph, place)))
    labels = largest(net.logits(known))
    activations = known.pop(place)

    def of_one(image: tuple[Float[Array, "i j k"], dict[str, Array], Int32[Array, ""]]) -> UnderMasks:
        activations, others, label = image
        found = masked_logits(net, place, activations, others, masks)
        mean = jnp.exp2(jnp.log2(entropy(found) + OFFSET).mean()) - OFFSET
        return UnderMasks(mean, (found[:, label] < found.max(axis=-1)).mean(dtype=jnp.float32))

    return lax.map(of_one, (activations, known, labels), batch_size=_BLOCK)
