"""Repairs by training: what each begins with, the best epoch, and runs that go on where they were stopped."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Int32, Num, PRNGKeyArray

from jaxdefend import TrainingDiverged
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets import kinds
from jaxdefend.nets.devices import place
from jaxdefend.nets.net import Net
from jaxdefend.nets.normalizing import with_statistics_of
from jaxdefend.nets.parallel import shared_step
from jaxdefend.nets.resuming import latest, save
from jaxdefend.nets.training import PLAIN, Mean, Schedule, State, fit, mean_and_gradient, started
from jaxdefend.repairs.base import Epoch, Repair, Run, Split, doubts_about_repair, method_name, recognised
from jaxdefend.results.progress import Progress, Report
from jaxdefend.results.rates import Rate


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
        is_shared: whether the processes of a run share each step's images, of a gradient that takes a `mean`; else
            each of them trains on all.
    """

    start: Net
    gradient: Partial = PLAIN
    repaired: Callable[[Net, int], Net] = _as_it_is
    complete: float = 0.5
    is_shared: bool = False


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
    mean: Mean = mean_and_gradient,
) -> tuple[Float[Array, ""], Any]:
    loss, slope = gradient(net, pixels, labels, key, step, mean=mean)
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
    measures = getattr(settings, "statistics", "kept") == "measured"
    schedule = Schedule(epochs * parts.passes, parts.batch, settings.learning_rate, settings.optimizer)
    begun = started(tuning.start, schedule)
    start = jax.device_get(tuning.start)
    nothing_known = np.full(epochs, np.nan, np.float32), np.full(epochs, -1, np.int32)
    kept = latest(run.saved, Kept(begun, start, np.int32(0), np.int32(-1), start, *nothing_known))
    step = shared_step if tuning.is_shared and place()[1] > 1 else None
    states = fit(kept.training, parts.pixels, parts.labels, schedule, parts.key, tuning.gradient, step)
    n = len(parts.held_out)
    for training, epoch, loss in epochs_of(settings, states, int(kept.step), parts.passes, run.report):
        found = jax.device_get(tuning.repaired(training.net, int(training.step)))
        if measures:
            found = with_statistics_of(found, ArrayImages(parts.pixels))
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
    before, after = Rate(recognised(net, parts.held_out), n), Rate(int(kept.correct), n)
    notes = doubts_about_repair(settings, net, len(parts.pixels) + n, before, after, "held-out images")
    chosen = training_settings(settings) | {
        "optimizer": settings.optimizer,
        **({"statistics": settings.statistics} if hasattr(settings, "statistics") else {}),
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
