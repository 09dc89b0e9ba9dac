"""Entropy under random channel masks: a backdoored image keeps its label when most of the channels are gone."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Num, PRNGKeyArray

from jaxdefend import InputError
from jaxdefend.nets.convolution import PRECISION
from jaxdefend.nets.deepid import DeepID, features, kernel_and_bias, logits
from jaxdefend.nets.devices import each, on_devices
from jaxdefend.nets.inference import Batches, entropy, largest

# Channels that are masked: those of conv_3, behind its pool.
CHANNELS = 60

# Bits that are added to an entropy before its logarithm: below this, sure is sure.
OFFSET = 0.01

# Images whose masked heads run together: 100 masks of 8 images are 4 MB of logits.
_BLOCK = 8


def random_masks(key: PRNGKeyArray, masks: int = 100, keep: float = 0.4) -> Float[Array, "m 60"]:
    """0/1 masks, each channel kept with probability `keep`.

    Raises: InputError if there are none, or `keep` is no probability.
    """
    if masks < 1:
        raise InputError(f"{masks} masks; expected at least one")
    if not 0 < keep < 1:
        raise InputError(f"channels kept with probability {keep:g}; expected one above 0 and below 1")
    return _random_masks(key, masks, keep)


@partial(jax.jit, static_argnames="masks")
def _random_masks(key: PRNGKeyArray, masks: int, keep: float | Float[Array, ""]) -> Float[Array, "m 60"]:
    return jax.random.bernoulli(key, keep, (masks, CHANNELS)).astype(jnp.float32)


class UnderMasks(NamedTuple):
    """Of each image: `entropies`, and the share of the masks under which the net changes its label."""

    entropy: Float[Array | np.ndarray, " n"]
    changed: Float[Array | np.ndarray, " n"]


def entropies(net: DeepID, batches: Batches, masks: Float[Array, "m 60"]) -> Float[np.ndarray, " n"]:
    """Entropy of the predictions for an image under channel masks of pool_3, in bits, geometric mean over the masks.

    STRIP (Gao et al. 2019) with masks in place of overlays: it needs no other images, and the convolutions run once.
    Under a few masks that hit what carries the trigger, a backdoored image is as unsure as any; they weigh little in
    a geometric mean and much in an arithmetic one. Related: Li et al. 2025 (PSBD, dropout at inference).
    """
    return np.asarray(under_masks(net, batches, masks).entropy)


def under_masks(net: DeepID, batches: Batches, masks: Float[Array, "m 60"]) -> UnderMasks:
    """Both at the cost of one. Source of the second: Li et al. 2025 (PSBD), the shift ratio, here of one image."""
    found = [
        [values[labels >= 0] for values in under] for under, labels in on_devices(_under_masks, net, batches, masks)
    ]
    return UnderMasks(*map(np.concatenate, zip(*found, strict=True)))


@jax.jit
def _under_masks(
    net: DeepID, pixels: Num[Array, "n 55 47 3"], labels: Int32[Array, " n"], masks: Float[Array, "m 60"]
) -> UnderMasks:
    return each(_of_part, net, (pixels,), masks)


def _of_part(net: DeepID, pixels: Num[Array, "n 55 47 3"], masks: Float[Array, "m 60"]) -> UnderMasks:
    pooled = features(net, pixels, ("pool_3",))["pool_3"]

    def of_one(image: tuple[Float[Array, "5 4 60"], Int32[Array, ""]]) -> UnderMasks:
        pooled, label = image
        found = masked_logits(net, pooled, masks)
        mean = jnp.exp2(jnp.log2(entropy(found) + OFFSET).mean()) - OFFSET
        return UnderMasks(mean, (found[:, label] < found.max(axis=-1)).mean(dtype=jnp.float32))

    return lax.map(of_one, (pooled, largest(logits(net, {"pool_3": pooled}))), batch_size=_BLOCK)


def masked_logits(net: DeepID, pooled: Float[Array, "5 4 60"], masks: Float[Array, "m 60"]) -> Float[Array, "m k"]:
    """The logits of one image, given as its pool_3, under each mask.

    conv_4 and fc_1 are linear in the channels: the share of each is computed once, and a mask only adds shares.
    """
    rows, columns, channels = pooled.shape
    to_conv_4, conv_4_bias = kernel_and_bias(net, "conv_4")
    to_fc_1, fc_1_bias = kernel_and_bias(net, "fc_1")
    windows = jnp.stack([pooled[top : top + 4, left : left + 3] for top in (0, 1) for left in (0, 1)])
    conv_4 = jnp.einsum("tijc,tck->cijk", windows, to_conv_4.reshape(4, channels, -1), precision=PRECISION)
    to_fc_1 = to_fc_1.reshape(rows * columns, channels, -1)
    fc_1 = jnp.einsum("pc,pcd->cd", pooled.reshape(-1, channels), to_fc_1, precision=PRECISION)
    known = {
        "conv_4": jax.nn.relu(jnp.tensordot(masks, conv_4, 1, precision=PRECISION) + conv_4_bias),
        "fc_1": jnp.dot(masks, fc_1, precision=PRECISION) + fc_1_bias,
    }
    return logits(net, known)
