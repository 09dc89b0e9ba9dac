"""Pruning (Liu, Dolan-Gavitt & Garg 2018, "Fine-Pruning", section 3.1): channel orders, masks, and the curve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32, Num

from jaxdefend import InputError
from jaxdefend.nets import channels as reading
from jaxdefend.nets import kinds
from jaxdefend.nets.batches import Batches
from jaxdefend.nets.devices import on_devices, over_processes, sharded
from jaxdefend.nets.inference import largest
from jaxdefend.nets.net import Net
from jaxdefend.results.text import printable, shortened

# Masks that go through the head together. Two CPU cores, 61 masks, 256 images: 4 at a time 0.35 s, all 0.92 s.
_MASKS_AT_ONCE = 4


def mean_activations(net: Net, batches: Batches, layer: str) -> Float[np.ndarray, " c"]:
    """Mean of each channel of `layer` where it is masked, over positions and images, of all processes.

    Summed on the host in float64, so that devices and batches of any number give the same order.
    """
    sums: Any = 0
    for means, labels in on_devices(partial(_means, layer=layer), net, batches):
        there = labels >= 0
        sums = sums + np.array([*means[there].sum(axis=0, dtype=np.float64), there.sum()])
    *total, n = over_processes(np.asarray(sums))
    return np.asarray(total) / n


@partial(jax.jit, static_argnames="layer")
def _means(net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"], layer: str) -> Float[Array, "n k"]:
    place = net.graph.masked_at(layer)

    def of_part(net: Net, pixels: Num[Array, "n h w c"]) -> Float[Array, "n k"]:
        activations = net.features(pixels, (place,))[place]
        return activations.mean(axis=tuple(range(1, activations.ndim - 1)))

    return sharded(of_part, net, (pixels,))


def filter_norms(net: Net, layer: str) -> Float[np.ndarray, " c"]:
    """L1 norm of the kernel of each output channel (Li et al. 2017, "Pruning filters for efficient ConvNets", 3.1)."""
    kernel = np.abs(np.asarray(last_kernel(net, layer)))
    return kernel.reshape(-1, net.graph.channels(layer)).sum(axis=0)


def last_kernel(net: Net, layer: str) -> Float[Array | np.ndarray, "a b c k"]:
    """The kernel that makes the output channels of a convolution, its last axis those channels."""
    arrays = net.weights[layer]
    name = next(name for name in ("pointwise_kernel", "kernel", "depthwise_kernel") if name in arrays)
    kernel = arrays[name]
    return kernel.reshape(*kernel.shape[:2], 1, -1) if name == "depthwise_kernel" else kernel


def ascending(scores: Float[np.ndarray, " c"]) -> Int[np.ndarray, " c"]:
    """Channels by score, the lowest first, ties by index."""
    return np.argsort(scores, kind="stable")


def checked_order(order: Sequence[int] | np.ndarray, channels: int) -> Int[np.ndarray, " c"]:
    """The order as an array. Raises: InputError unless it names each of 0 … channels − 1 once."""
    listed = np.asarray(order).tolist()
    missing = sorted(set(range(channels)) - set(listed))
    superfluous = sorted(set(listed) - set(range(channels)))
    repeated = sorted({channel for channel in listed if listed.count(channel) > 1})
    if missing or superfluous or repeated:
        raise InputError(
            f"the order must name each channel 0…{channels - 1} once; "
            f"missing {missing}, superfluous {superfluous}, repeated {repeated}"
        )
    return np.asarray(listed)


def nested_masks(order: Int[np.ndarray, " c"]) -> Float[np.ndarray, "m c"]:
    """Masks of 0, 1, … C pruned channels: row k zeroes the first k of the order."""
    place = np.argsort(order)
    return (place[None, :] >= np.arange(len(order) + 1)[:, None]).astype(np.float32)


class Counts(NamedTuple):
    """Of each device's images under each mask: B′ is correct; B′ agrees with B (the GoodNet lets them pass); both.

    The host adds them up: devices that wait for each other's sums may wait for ever, see `mean_and_gradient`.
    """

    correct: Int32[Array, "d m"]
    agreed: Int32[Array, "d m"]
    agreed_correct: Int32[Array, "d m"]


@partial(jax.jit, static_argnames="layer")
def masked_counts(
    net: Net,
    pixels: Num[Array, "n h w c"],
    labels: Int32[Array, " n"],
    masks: Float[Array, "m k"],
    layer: str,
) -> Counts:
    """Counts under any masks of the channels of `layer`: features once, then the head `vmap`ped over the masks."""
    return sharded(partial(_counts, partial(_labels_under, layer=layer)), net, (pixels, labels), masks)


@partial(jax.jit, static_argnames="layer")
def nested_counts(
    net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"], order: Int[Array, " k"], layer: str
) -> Counts:
    """`masked_counts` for `nested_masks(order)`, telescoped; for a layer whose readers are linear in its channels."""
    return sharded(partial(_counts, partial(_labels_along, layer=layer)), net, (pixels, labels), order)


def _labels_under(
    net: Net, pixels: Num[Array, "n h w c"], masks: Float[Array, "m k"], layer: str
) -> Int32[Array, "n m+1"]:
    """The BadNet's label of each image, and its label under each mask."""
    place = net.graph.masked_at(layer)
    known = net.features(pixels, (place, *reading.beside(net.graph, place)))

    def labels_under(mask: Float[Array, " k"]) -> Int32[Array, " n"]:
        return largest(net.logits(known | {place: known[place] * mask}))

    found = lax.map(labels_under, masks, batch_size=_MASKS_AT_ONCE)
    return jnp.concatenate([largest(net.logits(known))[None], found]).T


def _labels_along(
    net: Net, pixels: Num[Array, "n h w c"], order: Int[Array, " k"], layer: str
) -> Int32[Array, "n k+2"]:
    """`_labels_under(net, pixels, nested_masks(order), layer)`, telescoped.

    The readers of the channels are linear in them. So we start with all channels pruned and bring them back in
    reverse order, each adding its share to the sums that go into the readers' activation functions: its convolution
    is computed once in all, not once per mask. Adding up, rather than taking away, leaves no rounding error behind
    when little is left.

    An image in which the channel is zero keeps its label. So no head is computed for a channel that is zero in all
    images and, on a CPU, for one that is zero in all but a sixteenth only the heads of these.
    """
    place = net.graph.masked_at(layer)
    readers = reading.linear_readers(net.graph, place)
    assert readers is not None, layer
    known = net.features(pixels, (place, *reading.beside(net.graph, place)))
    activations = known.pop(place)
    badnet = largest(net.logits({place: activations} | known))
    n = len(activations)
    few = max(n // 16, 1)

    def labels_of(sums: dict[str, Array], others: dict[str, Array]) -> Int32[Array, " n"]:
        return largest(reading.logits_of_sums(net, sums, others))

    def bring_back(state: tuple[dict[str, Array], Array], channel: Int[Array, ""]) -> tuple[tuple, Array]:
        activation = activations[..., channel]
        seen = jnp.any(activation != 0, axis=(1, 2))
        count = seen.sum()

        def add(state: tuple[dict[str, Array], Array]) -> tuple[dict[str, Array], Array]:
            sums, found = state
            sums = {
                reader.layer: sums[reader.layer] + reading.share_of(net, reader, activation, channel)
                for reader in readers
            }
            if jax.default_backend() != "cpu":
                # A GPU waits for the host before a branch: one is enough.
                return sums, labels_of(sums, known)

            def of_few() -> Array:
                # Places that are left over lie behind the last image: what is found for them is dropped.
                (places,) = jnp.nonzero(seen, size=few, fill_value=n)
                chosen, others = jax.tree.map(lambda values: values[places], (sums, known))
                return found.at[places].set(labels_of(chosen, others), mode="drop")

            return sums, lax.cond(count > few, lambda: labels_of(sums, known), of_few)

        state = lax.cond(count > 0, add, lambda state: state, state)
        return state, state[1]

    sums = {reader.layer: reading.sums_of_nothing(net, reader, n) for reader in readers}
    nothing = labels_of(sums, known)
    _, found = lax.scan(bring_back, (sums, nothing), order[:0:-1])
    return jnp.concatenate([badnet[None], badnet[None], found[::-1], nothing[None]]).T


def _counts(
    labels_of: Callable[..., Int32[Array, "n r"]],
    net: Net,
    pixels: Num[Array, "n h w c"],
    labels: Int32[Array, " n"],
    given: Num[Array, "..."],
) -> Counts:
    """Of the BadNet's labels, in the first column of `labels_of`, and those under each mask, in the others."""
    found, labels = labels_of(net, pixels, given), labels[:, None]
    badnet, repaired = found[:, :1], found[:, 1:]
    correct, agreed = repaired == labels, (repaired == badnet) & (labels >= 0)
    return Counts(*(each.sum(axis=0)[None] for each in (correct, agreed, correct & agreed)))


@dataclass(frozen=True)
class Curve:
    """Counts of `n` images at every number of pruned channels, 0 … C: `Counts`, on the host."""

    n: int
    correct: Int[np.ndarray, " m"]
    agreed: Int[np.ndarray, " m"]
    agreed_correct: Int[np.ndarray, " m"]

    @property
    def flagged(self) -> Int[np.ndarray, " m"]:
        """Images that the GoodNet calls backdoored."""
        return self.n - self.agreed


def curve(net: Net, batches: Batches, order: Int[np.ndarray, " c"], layer: str) -> Curve:
    """B′ and GoodNet at every number of pruned channels of `layer`, in the order given; of all processes' images."""
    masks = nested_masks(order)
    running = (
        on_devices(partial(nested_counts, layer=layer), net, batches, order)
        if reading.is_cheap(net.graph, net.graph.masked_at(layer))
        else on_devices(partial(masked_counts, layer=layer), net, batches, masks)
    )
    total, n = np.zeros((3, len(masks)), np.int64), np.zeros(1, np.int64)
    for counts, labels in running:
        total, n = total + np.stack(counts).sum(axis=1), n + (labels >= 0).sum()
    n, *total = over_processes(np.concatenate([n, total.ravel()]))
    return Curve(int(n), *np.reshape(total, (3, len(masks))))


def first_drop(valid: Curve, drop: Fraction) -> int | None:
    """Pruned channels at the first point whose accuracy is at least `drop` percentage points below the first point's.

    None if there is none. Counts are compared exactly: 2 points of 50 images are one image.
    """
    reached = [100 * (int(valid.correct[0]) - int(correct)) >= drop * valid.n for correct in valid.correct]
    return reached.index(True) if any(reached) else None


def points(drop: Fraction | float | str) -> Fraction:
    """Percentage points as an exact number: 0.1 is a tenth. Raises: InputError unless above 0 and at most 100."""
    try:
        exact = Fraction(str(drop))
    except (ValueError, ZeroDivisionError):
        raise InputError(f"drop {str(drop)[:40]}: expected percentage points, such as 2 or 2.5") from None
    if not 0 < exact <= 100:
        raise InputError(f"drop {str(drop)[:40]}: expected percentage points above 0, at most 100")
    return exact


def number(points: Fraction) -> int | float:
    """The number as JSON has it."""
    return int(points) if points.denominator == 1 else float(points)


def prunable(net: Net) -> tuple[str, ...]:
    """The convolutions whose channels can be zeroed. Raises: InputError if there is none."""
    found = tuple(name for name in net.convolutions if kinds.of_zero(net.graph[name]["activation"]) == 0)
    if not found:
        raise InputError("this net has no convolution whose channels could be pruned")
    return found


def checked_layer(net: Net, layer: str | None) -> str:
    """The convolution asked for; by default the last one.

    Raises: InputError if the net has no such convolution, or one whose channels cannot be zeroed.
    """
    if layer is None:
        return net.last_convolution
    if layer not in net.convolutions:
        there = shortened(", ".join(map(printable, net.convolutions)), 300)
        raise InputError(f"layer {printable(layer, 80)}: not a convolution of this net; it has {there}")
    net.graph.masked_at(layer)
    return layer
