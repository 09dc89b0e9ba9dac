"""Pruning (Liu, Dolan-Gavitt & Garg 2018, "Fine-Pruning", section 3.1): channel orders, masks, and the curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32, Num

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet, as_images, labelled
from jaxdefend.nets import channels as reading
from jaxdefend.nets import kinds
from jaxdefend.nets.batches import Batches, batches
from jaxdefend.nets.devices import on_devices, over_processes, sharded
from jaxdefend.nets.diagnosis import doubts_about_clean, doubts_about_poisoned
from jaxdefend.nets.inference import largest
from jaxdefend.nets.net import Net
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.rates import Rate, wilson
from jaxdefend.results.text import printable, shortened, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Masks that go through the head together. Two CPU cores, 61 masks, 256 images: 4 at a time 0.35 s, all 0.92 s.
_MASKS_AT_ONCE = 4

Order = Literal["activation", "descending", "random", "l1"]
ORDERS: tuple[Order, ...] = get_args(Order)


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
    """Of the images under each mask: B′ is correct; B′ agrees with B (the GoodNet lets them pass); both."""

    correct: Int32[Array, " m"]
    agreed: Int32[Array, " m"]
    agreed_correct: Int32[Array, " m"]


@partial(jax.jit, static_argnames="layer")
def masked_counts(
    net: Net,
    pixels: Num[Array, "n h w c"],
    labels: Int32[Array, " n"],
    masks: Float[Array, "m k"],
    layer: str,
) -> Counts:
    """Counts under any masks of the channels of `layer`: features once, then the head `vmap`ped over the masks."""
    found = sharded(partial(_labels_under, layer=layer), net, (pixels,), masks)
    return _counts(found, labels)


@partial(jax.jit, static_argnames="layer")
def nested_counts(
    net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"], order: Int[Array, " k"], layer: str
) -> Counts:
    """`masked_counts` for `nested_masks(order)`, telescoped; for a layer whose readers are linear in its channels."""
    return _counts(sharded(partial(_labels_along, layer=layer), net, (pixels,), order), labels)


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


def _counts(found: Int32[Array, "n r"], labels: Int32[Array, " n"]) -> Counts:
    """Of the BadNet's labels, in the first column, and those under each mask, in the others."""
    badnet, repaired, labels = found[:, :1], found[:, 1:], labels[:, None]
    correct, agreed = repaired == labels, (repaired == badnet) & (labels >= 0)
    return Counts(correct.sum(axis=0), agreed.sum(axis=0), (correct & agreed).sum(axis=0))


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
        total, n = total + np.stack(counts), n + (labels >= 0).sum()
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


@dataclass(frozen=True)
class Drop:
    """A point of the curve at which so many percentage points of validation accuracy are lost for the first time."""

    points: int | float
    pruned: int
    channels: Int[np.ndarray, " k"]
    net: Net


@dataclass(frozen=True, repr=False)
class Sweep:
    """The pruning curve of a net, and the repaired nets on it.

    Attributes:
        order: the channels of `layer` in the sequence in which they go.
        activation: the mean activation of each channel on the validation images.
        valid, test, poisoned: counts at every number of pruned channels; `test` is `valid` where there are no others.
        drops: percentage points of validation accuracy to give up, for a repaired net each.
        doubts: what may be wrong with labels or pixels.
    """

    net: Net
    layer: str
    order: Int[np.ndarray, " c"]
    activation: Float[np.ndarray, " c"]
    valid: Curve
    test: Curve
    poisoned: Mapping[str, Curve]
    drops: tuple[Fraction, ...]
    doubts: tuple[str, ...] = ()

    @cached_property
    def repaired(self) -> tuple[Drop, ...]:
        """The repaired net of each drop that the curve reaches."""
        return tuple(self.drop(points) for points in self.drops if first_drop(self.valid, points) is not None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know."""
        missing = (
            f"no point of the curve lies {number(points)} points below the first; no net for that drop"
            for points in self.drops
            if first_drop(self.valid, points) is None
        )
        return (*missing, *self.doubts)

    def drop(self, drop: Fraction | float) -> Drop:
        """The repaired net at a drop. Raises: InputError if no point of the curve lies that far below the first."""
        exact = points(drop)
        pruned = first_drop(self.valid, exact)
        if pruned is None:
            raise InputError(f"drop {number(exact)}: no point of the curve lies that far below the first; give up less")
        channels = self.order[:pruned]
        return Drop(number(exact), pruned, channels, self.net.pruned(self.layer, channels))

    @cached_property
    def curves(self) -> dict[str, Any]:
        """Accuracies and attack success at every point, of the repaired nets and of their GoodNets, with intervals."""

        def rates(form: Any) -> dict[str, Any]:
            return {
                "valid_accuracy": form(self.valid.correct, self.valid.n),
                "test_accuracy": form(self.test.correct, self.test.n),
                "attack_success": {name: form(curve.correct, curve.n) for name, curve in self.poisoned.items()},
            }

        def guarded(form: Any) -> dict[str, Any]:
            curves = self.poisoned.items()
            return {
                "test_accuracy": form(self.test.agreed_correct, self.test.n),
                "attack_success": {name: form(curve.agreed_correct, curve.n) for name, curve in curves},
                "flagged_clean": form(self.test.flagged, self.test.n),
                "flagged_poisoned": {name: form(curve.flagged, curve.n) for name, curve in curves},
            }

        def share(counts: np.ndarray, n: int) -> np.ndarray:
            return counts / n

        both = {"intervals": rates(wilson), "goodnet": guarded(share) | {"intervals": guarded(wilson)}}
        return rates(share) | both

    def record(self) -> dict[str, Any]:
        """What sweep.json holds of it."""

        def at_point(value: Any, pruned: int) -> Any:
            if isinstance(value, dict):
                return {key: at_point(inner, pruned) for key, inner in value.items()}
            return value[pruned]

        n = {"valid": self.valid.n, "test": self.test.n}
        return {
            "layer": self.layer,
            "order": self.order,
            "activation": self.activation,
            "pruned": range(len(self.order) + 1),
            "n": n | {"poisoned": {name: curve.n for name, curve in self.poisoned.items()}},
            **self.curves,
            "repairs": [
                {"drop": drop.points, "pruned": drop.pruned, "channels": drop.channels, "file": drop_file(drop)}
                | at_point(self.curves, drop.pruned)
                for drop in self.repaired
            ],
        }

    def columns(self) -> dict[str, Sequence]:
        """The columns of sweep.csv, one row per point."""
        columns: dict[str, Sequence] = {
            "pruned": range(len(self.order) + 1),
            "channel": [None, *self.order.tolist()],
            "mean_activation": [None, *self.activation[self.order].tolist()],
        }
        for prefix, block in (("", self.curves), ("goodnet_", self.curves["goodnet"])):
            for key, limits in block["intervals"].items():
                named = (
                    {f"{key}_{name}": (block[key][name], limits[name]) for name in limits}
                    if isinstance(limits, dict)
                    else {key: (block[key], limits)}
                )
                for name, (shares, bounds) in named.items():
                    columns[prefix + name] = shares
                    columns[f"{prefix}{name}_low"], columns[f"{prefix}{name}_high"] = bounds.T
        return columns

    def figure(self, title: str = "") -> "Figure":
        """Accuracy and attack success against the fraction of channels pruned."""
        from jaxdefend.results.plots import curve_figure

        return curve_figure(title or self.net.name, self.record())

    def __repr__(self) -> str:
        return self.table()

    def table(self) -> str:
        """For people: the BadNet and the repaired nets, with their rates."""
        attacks = [f"ASR {name}" for name in self.poisoned]
        header = ["", "pruned", "valid", "test", *attacks, "GoodNet test", *(f"GoodNet {attack}" for attack in attacks)]

        def row(title: str, k: int) -> list[str]:
            curves = list(self.poisoned.values())
            counts = [(curve.correct, curve.n) for curve in (self.valid, self.test, *curves)]
            counts += [(curve.agreed_correct, curve.n) for curve in (self.test, *curves)]
            return [title, str(k), *(f"{100 * Rate(int(count[k]), n).share:.2f} %" for count, n in counts)]

        return table(header, [row("BadNet", 0), *(row(f"drop {drop.points}", drop.pruned) for drop in self.repaired)])


def drop_file(drop: Drop) -> str:
    """Where the repaired net of a drop stands beside sweep.json."""
    return f"repaired/drop_{drop.points}.h5"


def sweep(
    net: Net,
    clean: Any,
    *,
    test: Any = None,
    poisoned: Mapping[str, Any] | None = None,
    layer: str | None = None,
    order: Order | Sequence[int] | np.ndarray = "activation",
    drops: Sequence[Fraction | float] = (2, 4, 10, 30),
    seed: int = 0,
    progress: Report = silent,
) -> Sweep:
    """Accuracy and attack success at every number of pruned channels, and the repaired nets.

    Args:
        clean: labelled clean images that order and drops go by: what `open_images` gives, an array of pixels 0–255
            with its labels, …
        test: labelled clean images to report; by default `clean`.
        poisoned: sets of images with a trigger by name, labelled with the attacker's target.
        layer: the convolution whose channels are pruned; by default the last one.
        order: which channels go first: the least active on the clean images ("activation"), the most active
            ("descending"), any ("random"), those with the smallest filter norm ("l1"), or the channels in sequence.
        drops: percentage points of validation accuracy to give up, for a repaired net each.
        seed: of the random order.
    Raises: InputError if the images, the layer, the order or a drop cannot be used.
    Source: Liu et al. 2018 (Fine-Pruning), section 3.1.
    """
    layer = checked_layer(net, layer)
    exact = tuple(dict.fromkeys(points(drop) for drop in drops))
    given = None if isinstance(order, str) and order in ORDERS else _given_order(net, layer, order)

    def images(of: Any, what: str) -> ImageSet:
        return labelled(as_images(of, net.image_shape), what)

    valid_images = images(clean, "clean images")
    test_images = None if test is None else images(test, "test images")
    poisoned_images = {name: images(of, f"poisoned images {name}") for name, of in (poisoned or {}).items()}

    activation = mean_activations(net, batches(valid_images, "activations", progress), layer)
    sequence = _named_order(str(order), net, layer, activation, seed) if given is None else given

    def along(images: ImageSet, title: str) -> Curve:
        return curve(net, batches(images, title, progress), sequence, layer)

    valid = along(valid_images, "validation")
    doubts = doubts_about_clean(net, valid_images, "validation images")
    if test_images is not None:
        doubts += doubts_about_clean(net, test_images, "test images")
    for name, poisoned_set in poisoned_images.items():
        doubts += doubts_about_poisoned(net, poisoned_set, name)
    return Sweep(
        net,
        layer,
        sequence,
        activation,
        valid,
        valid if test_images is None else along(test_images, "test"),
        {name: along(images, name) for name, images in poisoned_images.items()},
        exact,
        doubts,
    )


def _given_order(net: Net, layer: str, order: Any) -> Int[np.ndarray, " c"]:
    if isinstance(order, str):
        raise InputError(f"order {order[:80]!r}: expected {', '.join(ORDERS)} or the channels in sequence")
    return checked_order(order, net.graph.channels(layer))


def _named_order(
    order: str, net: Net, layer: str, activation: Float[np.ndarray, " c"], seed: int
) -> Int[np.ndarray, " c"]:
    match order:
        case "activation":
            return ascending(activation)
        case "descending":
            return ascending(-activation)
        case "l1":
            return ascending(filter_norms(net, layer))
        case _:
            return np.asarray(jax.random.permutation(jax.random.key(seed), len(activation)))
