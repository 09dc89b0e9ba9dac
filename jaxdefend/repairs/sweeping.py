"""The sweep: the pruning curve of a net on all image sets, and the repaired nets on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet, as_images, labelled, poisoned_sets
from jaxdefend.nets.batches import batches
from jaxdefend.nets.diagnosis import doubts_about_clean, doubts_about_poisoned
from jaxdefend.nets.net import Net
from jaxdefend.repairs.curve import (
    Curve,
    ascending,
    checked_layer,
    checked_order,
    curve,
    filter_norms,
    first_drop,
    mean_activations,
    number,
    points,
)
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.rates import Rate, wilson
from jaxdefend.results.text import table, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Order = Literal["activation", "descending", "random", "l1"]
ORDERS: tuple[Order, ...] = get_args(Order)


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

    @property
    def measured_on(self) -> str:
        """ "test", or "valid" where there are no other clean images than those that decide."""
        return "valid" if self.test is self.valid else "test"

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
            "measured_on": self.measured_on,
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

        tested = {} if self.measured_on == "valid" else {"test": self.test.n}
        sets = {"validation": self.valid.n} | tested | {name: of.n for name, of in self.poisoned.items()}
        return curve_figure(title or titled(self.net.name, sets), self.record())

    def __repr__(self) -> str:
        return self.table()

    def table(self) -> str:
        """For people: the BadNet and the repaired nets, with their rates."""
        attacks = [f"ASR {name}" for name in self.poisoned]
        clean = {"valid": self.valid, self.measured_on: self.test}
        goodnet = [f"GoodNet {name}" for name in (self.measured_on, *attacks)]

        def row(title: str, k: int) -> list[str]:
            curves = list(self.poisoned.values())
            counts = [(curve.correct, curve.n) for curve in (*clean.values(), *curves)]
            counts += [(curve.agreed_correct, curve.n) for curve in (self.test, *curves)]
            return [title, str(k), *(f"{100 * Rate(int(count[k]), n).share:.2f} %" for count, n in counts)]

        rows = [row("BadNet", 0), *(row(f"drop {drop.points}", drop.pruned) for drop in self.repaired)]
        return table(["", "pruned", *clean, *attacks, *goodnet], rows)


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
        return labelled(as_images(of, net.image_shape), what, net.classes)

    valid_images = images(clean, "clean images")
    test_images = None if test is None else images(test, "test images")
    poisoned_images = poisoned_sets(poisoned, net.image_shape, net.classes)

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
