"""Pruning (Liu, Dolan-Gavitt & Garg 2018, "Fine-Pruning", section 3.1): channel orders, masks, and the curve."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32, Num

from jaxdefend import InputError
from jaxdefend.nets.convolution import PRECISION
from jaxdefend.nets.deepid import POOLED, DeepID, features, kernel_and_bias, logits
from jaxdefend.nets.devices import each, on_devices, over_processes
from jaxdefend.nets.inference import Batches, largest

# Masks that go through the head together. Two CPU cores, 61 masks, 256 images: 4 at a time 0.35 s, all 0.92 s.
_MASKS_AT_ONCE = 4


def mean_activations(net: DeepID, batches: Batches, layer: str) -> Float[np.ndarray, " c"]:
    """Mean of each channel of `layer` behind its pool, over positions and images, of all processes.

    Summed on the host in float64, so that devices and batches of any number give the same order.
    """
    channels = getattr(net, layer).bias.shape[0]
    sums = np.zeros(channels + 1)
    for means, labels in on_devices(partial(_means, layer=layer), net, batches):
        there = labels >= 0
        sums += [*means[there].sum(axis=0, dtype=np.float64), there.sum()]
    *total, n = over_processes(sums)
    return np.asarray(total) / n


@partial(jax.jit, static_argnames="layer")
def _means(net: DeepID, pixels: Num[Array, "n 55 47 3"], labels: Int32[Array, " n"], layer: str) -> Float[Array, "n c"]:
    def of_part(net: DeepID, pixels: Num[Array, "n 55 47 3"]) -> Float[Array, "n c"]:
        return features(net, pixels, (POOLED[layer],))[POOLED[layer]].mean(axis=(1, 2))

    return each(of_part, net, (pixels,))


def filter_norms(net: DeepID, layer: str) -> Float[np.ndarray, " c"]:
    """L1 norm of the kernel of each output channel (Li et al. 2017, "Pruning filters for efficient ConvNets", 3.1)."""
    return np.abs(np.asarray(getattr(net, layer).kernel[...])).sum(axis=(0, 1, 2))


def ascending(scores: Float[np.ndarray, " c"]) -> Int[np.ndarray, " c"]:
    """Channels by score, the lowest first, ties by index."""
    return np.argsort(scores, kind="stable")


def checked_order(order: Sequence[int], channels: int) -> Int[np.ndarray, " c"]:
    """The order as an array. Raises: InputError unless it names each of 0 … channels − 1 once."""
    missing = sorted(set(range(channels)) - set(order))
    superfluous = sorted(set(order) - set(range(channels)))
    repeated = sorted({channel for channel in order if list(order).count(channel) > 1})
    if missing or superfluous or repeated:
        raise InputError(
            f"the order must name each channel 0…{channels - 1} once; "
            f"missing {missing}, superfluous {superfluous}, repeated {repeated}"
        )
    return np.asarray(order)


def nested_masks(order: Int[np.ndarray, " c"]) -> Float[np.ndarray, "m c"]:
    """Masks of 0, 1, … C pruned channels: row k zeroes the first k of the order."""
    place = np.argsort(order)
    return (place[None, :] >= np.arange(len(order) + 1)[:, None]).astype(np.float32)


class Counts(NamedTuple):
    """Of the images under each mask: B′ right; B′ agrees with B (the GoodNet lets them pass); both."""

    right: Int32[Array, " m"]
    agreed: Int32[Array, " m"]
    agreed_right: Int32[Array, " m"]


@partial(jax.jit, static_argnames="layer")
def masked_counts(
    net: DeepID,
    pixels: Num[Array, "n 55 47 3"],
    labels: Int32[Array, " n"],
    masks: Float[Array, "m c"],
    layer: str,
) -> Counts:
    """Counts under any masks at any convolution: features once, then the head `vmap`ped over the masks."""
    found = each(partial(_labels_under, layer=layer), net, (pixels,), masks)
    return _counts(found, labels)


@jax.jit
def nested_counts(
    net: DeepID, pixels: Num[Array, "n 55 47 3"], labels: Int32[Array, " n"], order: Int[Array, " c"]
) -> Counts:
    """`masked_counts` for `nested_masks(order)` at conv_3, telescoped."""
    return _counts(each(_labels_along, net, (pixels,), order), labels)


def _labels_under(
    net: DeepID, pixels: Num[Array, "n 55 47 3"], masks: Float[Array, "m c"], layer: str
) -> Int32[Array, "n m+1"]:
    """The BadNet's label of each image, and its label under each mask."""
    pooled = POOLED[layer]
    known = features(net, pixels, (pooled, "fc_1") if layer == "conv_4" else (pooled,))

    def labels_under(mask: Float[Array, " c"]) -> Int32[Array, " n"]:
        return largest(logits(net, known | {pooled: known[pooled] * mask}))

    found = lax.map(labels_under, masks, batch_size=_MASKS_AT_ONCE)
    return jnp.concatenate([largest(logits(net, known))[None], found]).T


def _labels_along(net: DeepID, pixels: Num[Array, "n 55 47 3"], order: Int[Array, " c"]) -> Int32[Array, "n c+2"]:
    """`_labels_under(net, pixels, nested_masks(order), "conv_3")`, telescoped.

    conv_4 and fc_1 are linear in the channels of pool_3. So we start with all channels pruned and bring them back in
    reverse order, each adding its share to the inputs of the two ReLUs: its convolution is computed once in all, not
    once a mask. Adding up, rather than taking away, leaves no rounding error behind when little is left.

    An image in which the channel is zero keeps its label. So no head is computed for a channel that is zero in all
    images and, on a CPU, for one that is zero in all but a sixteenth only the heads of these.
    """
    pooled = features(net, pixels, ("pool_3",))["pool_3"]
    badnet = largest(logits(net, {"pool_3": pooled}))
    n, rows, columns, channels = pooled.shape
    to_conv_4, conv_4_bias = kernel_and_bias(net, "conv_4")
    to_fc_1, fc_1_bias = kernel_and_bias(net, "fc_1")
    to_fc_1 = to_fc_1.reshape(rows, columns, channels, -1)
    few = max(n // 16, 1)

    def labels_of(conv_4: Float[Array, "n i j k"], fc_1: Float[Array, "n d"]) -> Int32[Array, " n"]:
        return largest(logits(net, {"conv_4": jax.nn.relu(conv_4), "fc_1": fc_1}))

    def bring_back(state: tuple[Array, Array, Array], channel: Int[Array, ""]) -> tuple[tuple, Array]:
        activation = pooled[..., channel]
        seen = jnp.any(activation != 0, axis=(1, 2))
        count = seen.sum()

        def add(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            conv_4, fc_1, found = state
            windows = [activation[:, top : top + 4, left : left + 3] for top in (0, 1) for left in (0, 1)]
            kernel = to_conv_4[:, :, channel].reshape(4, -1)
            conv_4 += jnp.dot(jnp.stack(windows, axis=-1), kernel, precision=PRECISION)
            kernel = to_fc_1[:, :, channel].reshape(rows * columns, -1)
            fc_1 += jnp.dot(activation.reshape(n, -1), kernel, precision=PRECISION)

            if jax.default_backend() != "cpu":
                # A GPU waits for the host before a branch: one is enough.
                return conv_4, fc_1, labels_of(conv_4, fc_1)

            def of_few() -> Array:
                # Places that are left over lie behind the last image: what is found for them is dropped.
                (places,) = jnp.nonzero(seen, size=few, fill_value=n)
                return found.at[places].set(labels_of(conv_4[places], fc_1[places]), mode="drop")

            return conv_4, fc_1, lax.cond(count > few, lambda: labels_of(conv_4, fc_1), of_few)

        state = lax.cond(count > 0, add, lambda state: state, state)
        return state, state[2]

    conv_4 = jnp.broadcast_to(conv_4_bias, (n, rows - 1, columns - 1, len(conv_4_bias)))
    fc_1 = jnp.broadcast_to(fc_1_bias, (n, len(fc_1_bias)))
    nothing = labels_of(conv_4, fc_1)
    _, found = lax.scan(bring_back, (conv_4, fc_1, nothing), order[:0:-1])
    return jnp.concatenate([badnet[None], badnet[None], found[::-1], nothing[None]]).T


def _counts(found: Int32[Array, "n r"], labels: Int32[Array, " n"]) -> Counts:
    """Of the BadNet's labels, in the first column, and those under each mask, in the others."""
    badnet, repaired, labels = found[:, :1], found[:, 1:], labels[:, None]
    right, agreed = repaired == labels, (repaired == badnet) & (labels >= 0)
    return Counts(right.sum(axis=0), agreed.sum(axis=0), (right & agreed).sum(axis=0))


@dataclass(frozen=True)
class Curve:
    """Counts of `n` images at every number of pruned channels, 0 … C: `Counts`, on the host."""

    n: int
    right: Int[np.ndarray, " m"]
    agreed: Int[np.ndarray, " m"]
    agreed_right: Int[np.ndarray, " m"]


def curve(net: DeepID, batches: Batches, order: Int[np.ndarray, " c"], layer: str) -> Curve:
    """B′ and GoodNet at every number of pruned channels of `layer`, in the order given; of all processes' images."""
    masks = nested_masks(order)
    running = (
        on_devices(nested_counts, net, batches, order)
        if layer == "conv_3"
        else on_devices(partial(masked_counts, layer=layer), net, batches, masks)
    )
    total, n = np.zeros((3, len(masks)), np.int64), np.zeros(1, np.int64)
    for counts, labels in running:
        total, n = total + np.stack(counts), n + (labels >= 0).sum()
    n, *total = over_processes(np.concatenate([n, total.ravel()]))
    return Curve(int(n), *np.reshape(total, (3, len(masks))))


def first_drop(valid: Curve, drop: Fraction) -> int | None:
    """Pruned channels at the first point whose accuracy is at least `drop` percentage points below the first point's.

    None if there is none. Counts are compared exactly: 2 points of 50 images are one image.
    """
    reached = [100 * (int(valid.right[0]) - int(right)) >= drop * valid.n for right in valid.right]
    return reached.index(True) if any(reached) else None
