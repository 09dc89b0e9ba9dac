"""What repairs share: held-out images, channels to prune, the best epoch, runs that go on where they were stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Int32, PRNGKeyArray, UInt8

from jaxdefend import InputError
from jaxdefend.datasets.images import ArrayImages, ImageSet, as_images, digest, labelled
from jaxdefend.nets.batches import batches, padded
from jaxdefend.nets.devices import place, tree_of_first
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.net import Net
from jaxdefend.nets.normalizing import normalizations
from jaxdefend.nets.resuming import same_run
from jaxdefend.repairs import METHODS, Grid, Method
from jaxdefend.repairs.curve import ascending, checked_layer, curve, first_drop, mean_activations, number, points
from jaxdefend.results.progress import Report
from jaxdefend.results.rates import Rate
from jaxdefend.results.records import plain
from jaxdefend.results.settings import checked_seed
from jaxdefend.results.text import counted, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Percentage points of validation accuracy that pruning gives up where nothing else is asked for.
DROP = 4

# Percentage points of accuracy whose loss is worth a word.
_LARGE_LOSS = 10


class Run(NamedTuple):
    """What a repair has beside its settings, the net and the clean images."""

    seed: int
    report: Report
    saved: Path | None = None


class Epoch(NamedTuple):
    """What is known after an epoch of training.

    Attributes:
        loss: of the last step's images.
        held_out: how many of the held-out images the repaired net recognises; None if it was not asked.
    """

    number: int
    loss: float
    held_out: int | None = None


@dataclass(frozen=True, repr=False)
class Repair:
    """A repaired net, and how it came about.

    Attributes:
        method: the name of the method; its `settings` are those asked for.
        chosen: what the clean images decided, and the settings that mattered.
        b0: the net that stands for the BadNet in the GoodNet, where the method makes one.
        history: of the epochs of training, those of this run and of those that it went on from.
        cells: of a grid, every cell with its net, the chosen one among them.
        notes: what the reader should know.
    """

    method: str
    settings: Method
    net: Net
    chosen: Mapping[str, Any]
    b0: Net | None = None
    history: tuple[Epoch, ...] = ()
    cells: tuple["GridCell", ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rule(self) -> str:
        """How the GoodNet of net and repaired net answers: `nets.goodnet.Rule`."""
        return "anti" if self.method == "anti" else "goodnet"

    def record(self) -> dict[str, Any]:
        """What repair.json holds of it."""
        return plain({"method": self.method, "settings": dict(self.chosen), "rule": self.rule})

    def figure(self, title: str = "") -> "Figure":
        """Loss and held-out images by epoch. Raises: InputError for a method that does not train."""
        from jaxdefend.results.plots import history_figure

        if not self.history:
            raise InputError(f"{self.method} does not train: there is no history to draw")
        return history_figure(title or self.method, self.history)

    def __repr__(self) -> str:
        """The method, what was decided, and the notes."""

        def shown(value: Any) -> str:
            if isinstance(value, Mapping):
                return ", ".join(f"{key}: {shown(inner)}" for key, inner in value.items())
            if isinstance(value, np.ndarray):
                return f"{len(value)} of them" if len(value) > 8 else str(value.tolist())
            return f"{value:.4g}" if isinstance(value, float) else str(value)

        told = {key: value for key, value in self.chosen.items() if key != "held_back_accuracy"}
        rows = [[key.replace("_", " "), shown(value)] for key, value in told.items()]
        return "\n".join([table(["repair", self.method], rows), *self.notes])


class GridCell(NamedTuple):
    """One net of a grid: its settings, and how many of the held-out images it recognises."""

    method: str
    fraction: float
    learning_rate: float
    net: Net
    held_out: int


def repaired(settings: Method, net: Net, clean: Any, seed: int, report: Report, saved: Path | None) -> Repair:
    """The repair by the module that is called like the settings' method."""
    images = labelled(as_images(clean, net.image_shape), "clean images", net.classes)
    name, seed = method_name(settings), checked_seed(seed)
    if getattr(settings, "statistics", "kept") == "measured" and not normalizations(net):
        raise InputError("statistics measured: this net has no batch normalization; leave statistics out")
    if saved is not None:
        asked = {field.name: _said(getattr(settings, field.name)) for field in fields(settings)}
        digests = {"net": _net_digest(net), "images": digest(images)}
        same_run(saved, {"method": name, **asked, "seed": seed, **digests})
    module = import_module(f"{__package__}.{name.replace('-', '_')}")
    made = module.repair(settings, net, images, Run(seed, report, saved))
    # Machines differ in the last bits, and a choice may hang on one: what process 0 has made is what all go on with.
    first = tree_of_first((made.net, made.b0, made.cells))
    return made if place()[0] == 0 else replace(made, net=first[0], b0=first[1], cells=first[2])


def method_name(settings: Method) -> str:
    """What the method of these settings is called."""
    if isinstance(settings, Grid):
        return "grid"
    return next((name for name, kind in METHODS.items() if kind is type(settings)), type(settings).__name__.lower())


def _said(value: Any) -> str | None:
    """A setting, for comparison with that of a run that was saved; files by what is in them."""
    if isinstance(value, tuple):
        return " ".join(str(_said(Path(each) if isinstance(each, str) else each)) for each in value)
    if isinstance(value, Path) and value.is_file():
        return sha256(Path(value).read_bytes()).hexdigest()
    return None if value is None else str(value)


def _net_digest(net: Net) -> str:
    digest = sha256(str(net.input_scale).encode())
    for leaf in jax.tree.leaves(net.weights):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


class Split(NamedTuple):
    """Clean images to train on, and a tenth held out to choose by."""

    pixels: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    held_out: ArrayImages
    key: PRNGKeyArray
    batch: int

    @property
    def passes(self) -> int:
        """Steps in an epoch."""
        return max(1, len(self.pixels) // self.batch)


def split(settings: Any, clean: ImageSet, seed: int) -> Split:
    """Raises: InputError if there are too few images, or all have one label."""
    if len(clean) < 10:
        raise InputError(f"{counted(len(clean), 'clean image')} to train on; expected ten or more")
    labels = np.asarray(clean.labels)
    if method_name(settings) != "distill" and len(np.unique(labels)) == 1:
        raise InputError(
            f"all {len(clean)} clean images have the label {int(labels[0])}: a net trained on them would say "
            "nothing else; expected several classes"
        )
    splitting, training = jax.random.split(jax.random.key(seed))
    order = np.asarray(jax.random.permutation(splitting, len(clean)))
    pixels, labels = np.rint(clean[:]).astype(np.uint8), labels.astype(np.int32)
    held, used = np.split(order, [len(clean) // 10])
    return Split(pixels[used], labels[used], ArrayImages(pixels[held], labels[held]), training, settings.batch)


def by_content(clean: ImageSet) -> ArrayImages:
    """The images in an order that depends on what they show alone."""
    pixels, labels = np.rint(clean[:]).astype(np.uint8), np.asarray(clean.labels)
    order = sorted(range(len(pixels)), key=lambda row: (sha256(pixels[row].tobytes()).digest(), labels[row]))
    return ArrayImages(pixels[order], labels[order])


def doubts_about_repair(settings: Any, net: Net, images: int, before: Rate, after: Rate, what: str) -> tuple[str, ...]:
    """Where a repair gives up more of what the net recognised than was asked for: that it does, and the way out.

    Args:
        images: how many clean images it was made with.
        before, after: of `what`, how many the net and the repaired net recognise.
    """
    trains, name = hasattr(settings, "epochs"), method_name(settings)
    asked = 0 if trains or getattr(settings, "drop", None) is None else float(settings.drop)
    if 100 * (before.share - after.share) <= _LARGE_LOSS + asked:
        return ()
    if images < net.classes and name != "distill":
        advice = f"{images} images of {net.classes} classes are few: the method distill needs no image of each"
    elif trains:
        advice = "choose a lower learning rate or more epochs"
    else:
        advice = "prune less, or take a method that trains"
    told = f"the repaired net recognises {after.count} of the {after.n} {what}, the net itself {before.count}"
    return (f"{told}; {advice}",)


def recognised(net: Net, images: ArrayImages) -> int:
    """How many of the images are given their label."""
    return int((predictions(net, padded(images))[0] == images.labels).sum())


def channels_to_prune(
    settings: Any, net: Net, clean: ImageSet, report: Report
) -> tuple[Int[np.ndarray, " k"], dict[str, Any]]:
    """The channels to prune, those that clean images activate least first, and what decided how many.

    Raises: InputError if the net has no such layer or no such number of channels, or the curve does not fall so far.
    """
    layer = checked_layer(net, settings.layer)
    order = ascending(mean_activations(net, batches(clean, "activations", report), layer))
    if settings.channels is not None:
        if settings.channels > len(order):
            raise InputError(f"channels {settings.channels}: {layer} has {len(order)}")
        chosen = order[: settings.channels]
    elif settings.fraction is not None:
        chosen = order[: round(settings.fraction * len(order))]
    else:
        drop = points(DROP if settings.drop is None else settings.drop)
        pruned = first_drop(curve(net, batches(clean, "curve", report), order, layer), drop)
        if pruned is None:
            raise InputError(f"drop {number(drop)}: no point of the curve lies that far below the first; give up less")
        return order[:pruned], {"layer": layer, "drop": number(drop), "channels": order[:pruned]}
    return chosen, {"layer": layer, "fraction": settings.fraction, "channels": chosen}


def channels_to_train_without(
    settings: Any, net: Net, clean: ImageSet, report: Report
) -> tuple[Int[np.ndarray, " k"], dict[str, Any]]:
    """`channels_to_prune`. Raises: InputError too if they are all channels of the layer."""
    channels, amount = channels_to_prune(settings, net, clean, report)
    if len(channels) == net.graph.channels(amount["layer"]):
        raise InputError(f"all {len(channels)} channels of {amount['layer']} pruned: nothing is left to train")
    return channels, amount


def without_channels(net: Net, channels: Mapping[str, Sequence[int] | np.ndarray]) -> Net:
    """The net with these channels of each layer pruned."""
    for layer, found in channels.items():
        net = net.pruned(layer, found)
    return net
