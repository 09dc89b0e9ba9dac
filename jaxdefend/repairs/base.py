"""What repairs share: held-out images, channels to prune, the best epoch, runs that go on where they were stopped."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Int32, Num, PRNGKeyArray, UInt8

from jaxdefend import InputError, TrainingDiverged
from jaxdefend.datasets.images import ArrayImages, ImageSet, as_images, labelled
from jaxdefend.nets import kinds
from jaxdefend.nets.batches import batches, padded
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.net import Net
from jaxdefend.nets.resuming import latest, same_run, save
from jaxdefend.nets.training import PLAIN, Schedule, State, fit, started
from jaxdefend.repairs import METHODS, Grid, Method
from jaxdefend.repairs.curve import ascending, checked_layer, curve, first_drop, mean_activations, number, points
from jaxdefend.results.progress import Progress, Report
from jaxdefend.results.text import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Percentage points of validation accuracy that pruning gives up where nothing else is asked for.
DROP = 4


# Below this share of what the net itself recognises, something is said of a repair.
_WORTH_A_WORD = 0.9


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
        return {"method": self.method, "settings": dict(self.chosen), "rule": self.rule}

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
    images = labelled(as_images(clean, net.image_shape), "clean images")
    name = method_name(settings)
    asked = {"method": name, **{key: None if value is None else str(value) for key, value in asdict(settings).items()}}
    same_run(saved, asked | {"seed": seed, "net": _net_digest(net), "images": _images_digest(images)})
    module = import_module(f"{__package__}.{name.replace('-', '_')}")
    return module.repair(settings, net, images, Run(seed, report, saved))


def method_name(settings: Method) -> str:
    """What the method of these settings is called."""
    if isinstance(settings, Grid):
        return "grid"
    return next((name for name, kind in METHODS.items() if kind is type(settings)), type(settings).__name__.lower())


def _net_digest(net: Net) -> str:
    digest = sha256(str(net.input_scale).encode())
    for leaf in jax.tree.leaves(net.weights):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _images_digest(images: ImageSet) -> str:
    """Of all labels, and of some of the images."""
    digest = sha256(np.asarray(images.labels).tobytes())
    digest.update(np.ascontiguousarray(images[:: max(1, len(images) // 16)]).tobytes())
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
        raise InputError(f"{len(clean)} clean images to train on; expected ten or more")
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


def _as_it_is(net: Net, step: int) -> Net:
    return net


class Tuning(NamedTuple):
    """A repair by training.

    Attributes:
        start: the net to begin with.
        gradient: what each step follows, a `nets.training.Gradient`.
        repaired: the repaired net, of the trained one and the number of steps.
        complete: the share of the steps after which `repaired` is a repair; before, the backdoor may be there still,
            and no clean image tells.
    """

    start: Net
    gradient: Partial = PLAIN
    repaired: Callable[[Net, int], Net] = _as_it_is
    complete: float = 0.5


def held_at_zero(net: Net, layer: str, channels: Int[np.ndarray, " k"], gradient: Partial = PLAIN) -> Partial:
    """The gradient, where pruned channels of `layer` would not stay zero by themselves, without them.

    Behind a ReLU no gradient comes to them; behind other activation functions one would.
    """
    for name in net.graph.behind(layer):
        settings = net.graph[name].settings
        if getattr(settings, "activation", "") == "relu" or settings == kinds.ReLU():
            return gradient
    ones = {name: {kind: np.ones_like(array) for kind, array in of.items()} for name, of in net.weights.items()}
    return Partial(_of_the_rest, gradient, net.with_weights(ones).pruned(layer, channels))


def _of_the_rest(
    gradient: Partial,
    rest: Net,
    net: Net,
    pixels: Num[Array, "n h w c"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    step: Int32[Array, ""],
) -> tuple[Float[Array, ""], Any]:
    loss, slope = gradient(net, pixels, labels, key, step)
    return loss, jax.tree.map(jnp.multiply, slope, rest)


class Kept(NamedTuple):
    """What an interrupted run leaves behind: the training, the best net so far, B0 (or what came before it), and what
    is known of each epoch."""

    training: State
    best: Net
    epoch: Any
    correct: Any
    b0: Net
    losses: Any
    held_out: Any

    @property
    def step(self) -> Any:
        return self.training.step


class Tuned(NamedTuple):
    """The net of the best epoch, what decided it, and B0."""

    net: Net
    chosen: dict[str, Any]
    b0: Net
    history: tuple[Epoch, ...]
    notes: tuple[str, ...]


def tuned(settings: Any, tuning: Tuning, net: Net, parts: Split, run: Run, epoch_of_b0: int = 0) -> Tuned:
    """The epoch that recognises most of the held-out images, the latest on a tie, of those in which it is complete."""
    epochs = settings.epochs
    schedule = Schedule(epochs * parts.passes, parts.batch, settings.learning_rate, settings.optimizer)
    begun = started(tuning.start, schedule)
    start = jax.device_get(tuning.start)
    nothing_known = np.full(epochs, np.nan, np.float32), np.full(epochs, -1, np.int32)
    kept = latest(run.saved, Kept(begun, start, np.int32(0), np.int32(-1), start, *nothing_known))
    states = fit(kept.training, parts.pixels, parts.labels, schedule, parts.key, tuning.gradient)
    n = len(parts.held_out)
    for training, epoch, loss in epochs_of(settings, states, int(kept.step), parts.passes, run.report):
        found = jax.device_get(tuning.repaired(training.net, int(training.step)))
        correct = recognised(found, parts.held_out)
        losses, held_out = np.array(kept.losses), np.array(kept.held_out)
        losses[epoch - 1], held_out[epoch - 1] = loss, correct
        kept = kept._replace(training=training, losses=losses, held_out=held_out)
        if epoch >= tuning.complete * epochs and correct >= kept.correct:
            kept = kept._replace(best=found, epoch=np.int32(epoch), correct=np.int32(correct))
        if epoch == epoch_of_b0:
            kept = kept._replace(b0=found)
        save(run.saved, kept)
        share = f"{100 * correct / n:.1f} % of the held-out images"
        say(run.report, settings, epoch, parts.passes, f"loss {loss:.4f}, {share}")
    before = recognised(net, parts.held_out)
    notes = ()
    if kept.correct < _WORTH_A_WORD * before:
        images = len(parts.pixels) + n
        advice = (
            f"{images} images of {net.classes} classes are few: the method distill needs no image of each"
            if images < net.classes and method_name(settings) != "distill"
            else "choose a lower learning rate or more epochs"
        )
        notes = (
            f"the repaired net recognises {kept.correct} of the {n} held-out images, the net itself {before}; {advice}",
        )
    chosen = training_settings(settings) | {
        "optimizer": settings.optimizer,
        "epoch": int(kept.epoch),
        **held_out_accuracy(int(kept.correct), n),
    }
    history = tuple(
        Epoch(number, float(loss), int(correct))
        for number, (loss, correct) in enumerate(zip(kept.losses, kept.held_out, strict=True), 1)
    )
    return Tuned(kept.best, chosen, kept.b0, history, notes)


class Logged(NamedTuple):
    """A state of a training in which no epoch is better than the last, and the loss of each epoch so far."""

    state: Any
    losses: Any

    @property
    def step(self) -> Any:
        return self.state.step

    def after(self, epoch: int, state: Any, loss: float) -> "Logged":
        losses = np.array(self.losses)
        losses[epoch - 1] = loss
        return Logged(state, losses)

    @property
    def history(self) -> tuple[Epoch, ...]:
        return tuple(Epoch(number, float(loss)) for number, loss in enumerate(self.losses, 1))


def logged(settings: Any, state: Any) -> Logged:
    """Before the first epoch."""
    return Logged(state, np.full(settings.epochs, np.nan, np.float32))


def tuned_repair(
    settings: Any, tuning: Tuning, net: Net, parts: Split, run: Run, amount: Mapping[str, Any] | None = None
) -> Repair:
    """`tuned` as a result; `amount` is what was decided before."""
    found = tuned(settings, tuning, net, parts, run)
    chosen = {**(amount or {}), **found.chosen}
    return Repair(method_name(settings), settings, found.net, chosen, history=found.history, notes=found.notes)


def training_settings(settings: Any) -> dict[str, Any]:
    return {"epochs": settings.epochs, "learning_rate": settings.learning_rate, "batch": settings.batch}


def held_out_accuracy(correct: int, n: int) -> dict[str, float]:
    # The first name is that of earlier versions.
    return {"held_back_accuracy": correct / n, "held_out_accuracy": correct / n}


def epochs_of(
    settings: Any, steps: Iterator[tuple[Any, Any]], done: int, passes: int, report: Report
) -> Iterator[tuple[Any, int, float]]:
    """Of the steps that are left, those that end an epoch: the state, the epoch and the loss.

    Raises: TrainingDiverged if the loss is not a number any more; what `report` raises, to stop.
    """
    total = settings.epochs * passes
    title = method_name(settings)
    report(Progress(title, done, total, "steps"))
    for step, (state, loss) in enumerate(steps, done + 1):
        report(Progress(title, step, total, "steps"))
        if step % passes:
            continue
        if not math.isfinite(loss):
            rate = getattr(settings, "learning_rate", None)
            told = "" if rate is None else f"learning rate {rate:g}: "
            raise TrainingDiverged(
                f"{told}training diverged in epoch {step // passes}, the loss is not a number any more; choose a lower "
                "rate"
            )
        yield state, step // passes, float(loss)


def say(report: Report, settings: Any, epoch: int, passes: int, message: str) -> None:
    """A line for people at the end of an epoch."""
    line = f"epoch {epoch} of {settings.epochs}: {message}"
    report(Progress(method_name(settings), epoch * passes, settings.epochs * passes, "steps", line))


def without_channels(net: Net, channels: Mapping[str, Sequence[int] | np.ndarray]) -> Net:
    """The net with these channels of each layer pruned."""
    for layer, found in channels.items():
        net = net.pruned(layer, found)
    return net
