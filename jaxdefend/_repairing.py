"""What the methods of repair make of a net and clean images. No other images come here, so none can decide anything."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxdefend import InputError, _command, _measuring

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import PRNGKeyArray

    from jaxdefend.datasets.batches import ArrayImages, ImageSet
    from jaxdefend.defenses.finetuning import Tuning
    from jaxdefend.defenses.grid import Cell
    from jaxdefend.nets.deepid import DeepID
    from jaxdefend.nets.training import State

BATCH = 128
# Few images make few steps: small batches make more of them.
SMALL_BATCH = 32

# Epochs and highest learning rate, for Adam, of the methods that train, where none is asked for.
TRAINING = {
    "noise": (25, 5e-3),
    "distill": (80, 4e-3),
    "fine-prune": (25, 5e-3),
    "iterative": (25, 5e-3),
    "magnitude": (25, 5e-3),
    "ft-sam": (25, 5e-3),
    "ibau": (5, 1e-3),
    "anp": (5, 0.2),
    "grid": (5, 5e-3),
}
# The methods that prune the channels of one convolution, in the order of their activation.
PRUNING = ("prune", "noise", "fine-prune", "iterative")


class Split(NamedTuple):
    """Clean images to train on, and a tenth that is held back to choose by."""

    pixels: "np.ndarray"
    labels: "np.ndarray"
    held_back: "ArrayImages"
    key: "PRNGKeyArray"
    batch: int

    @property
    def passes(self) -> int:
        """Steps in an epoch."""
        return max(1, len(self.pixels) // self.batch)


class Kept(NamedTuple):
    """What an interrupted run leaves behind: the training, the best net so far, and B0 (or what came before it)."""

    training: "State"
    best: "DeepID"
    epoch: Any
    right: Any
    b0: "DeepID"

    @property
    def step(self) -> Any:
        return self.training.step


class Repair(NamedTuple):
    """The repaired net, the settings that made it, and B0 where one is asked for."""

    net: "DeepID"
    settings: dict
    b0: "DeepID | None" = None


def repaired(options: argparse.Namespace, net: "DeepID", valid: "ImageSet", saved: Path) -> Repair:
    """Of these images alone; in `saved` is what an interrupted run left behind.

    Raises: InputError if no repair can be made with these images and settings.
    """
    from jaxdefend.defenses.lipschitz import lipschitz_pruned
    from jaxdefend.nets.deepid import with_channels_zeroed

    match options.method:
        case "prune":
            channels = _channels(options, net, valid)
            return Repair(with_channels_zeroed(net, options.layer, channels), _amount(options) | {"channels": channels})
        case "clp":
            net, by_layer = lipschitz_pruned(net)
            return Repair(net, {"channels": by_layer})
        case "anti":
            return _anti_repaired(net, valid)
        case "anp":
            return _neurons_pruned(options, net, valid, saved)
        case _:
            return _tuned(options, net, valid, saved)


def _channels(options: argparse.Namespace, net: "DeepID", valid: "ImageSet") -> "np.ndarray":
    """The channels to prune, those that clean images activate least first."""
    from jaxdefend.defenses import pruning

    order = pruning.ascending(pruning.mean_activations(net, _measuring.batches(valid, "activations"), options.layer))
    if options.channels is not None:
        if not 0 <= options.channels <= len(order):
            raise InputError(f"--channels {options.channels}: {options.layer} has {len(order)}")
        return order[: options.channels]
    if options.fraction is not None:
        return order[: round(options.fraction * len(order))]
    pruned = pruning.first_drop(
        pruning.curve(net, _measuring.batches(valid, "curve"), order, options.layer), options.drop
    )
    if pruned is None:
        raise InputError(
            f"--drop {_command.number(options.drop)}: no point of the curve lies that far below the first; give up less"
        )
    return order[:pruned]


def _anti_repaired(net: "DeepID", valid: "ImageSet") -> Repair:
    import numpy as np

    from jaxdefend.datasets.batches import padded, sampled
    from jaxdefend.defenses import anti, pruning
    from jaxdefend.nets.deepid import with_channels_zeroed

    batches = _command.tracked(padded(valid), "activations", len(valid))
    order = anti.descending(pruning.mean_activations(net, batches, anti.LAYER))
    # A thousand images, evenly spread, tell where the faces are lost.
    chance = float(np.unique(np.asarray(valid.labels), return_counts=True)[1].max()) / len(valid)
    number = anti.channels_to_lose(pruning.curve(net, sampled(valid, 1024), order, anti.LAYER), chance)
    if number is None:
        raise InputError(
            f"without any channel of {anti.LAYER} the net still gives more than {100 * (anti.LEFT + chance):g} % of "
            "the clean images their label; expected as many images of each person"
        )
    channels = order[:number]
    return Repair(with_channels_zeroed(net, anti.LAYER, channels), {"layer": anti.LAYER, "channels": channels})


def _amount(options: argparse.Namespace) -> dict:
    """The settings that decide how much is pruned."""
    if options.channels is not None or options.fraction is not None:
        return {"layer": options.layer, "fraction": options.fraction}
    return {"layer": options.layer, "drop": _command.number(options.drop)}


def _split(options: argparse.Namespace, valid: "ImageSet") -> Split:
    import jax
    import numpy as np

    from jaxdefend.datasets.batches import ArrayImages

    if len(valid) < 10 or valid.labels is None:
        raise InputError(f"{len(valid)} clean images to train on; expected ten or more, labelled")
    if options.method != "distill" and len(np.unique(valid.labels)) == 1:
        raise InputError(
            f"all {len(valid)} clean images have the label {int(valid.labels[0])}: a net trained on them would say "
            "nothing else; expected several people"
        )
    splitting, training = jax.random.split(jax.random.key(options.seed))
    order = np.asarray(jax.random.permutation(splitting, len(valid)))
    pixels, labels = np.rint(valid[:]).astype(np.uint8), valid.labels.astype(np.int32)
    held, used = np.split(order, [len(valid) // 10])
    batch = options.batch or (SMALL_BATCH if options.method == "distill" else BATCH)
    return Split(pixels[used], labels[used], ArrayImages(pixels[held], labels[held]), training, batch)


def _recognised(net: "DeepID", images: "ArrayImages") -> int:
    from jaxdefend.datasets.batches import padded
    from jaxdefend.nets.inference import predictions

    return int((predictions(net, padded(images))[0] == images.labels).sum())


def _tuned(options: argparse.Namespace, net: "DeepID", valid: "ImageSet", saved: Path) -> Repair:
    import numpy as np

    from jaxdefend.defenses import distillation, finetuning, gradual, noise, sharpness, unlearning

    split = _split(options, valid)
    channels, settings = np.zeros(0, int), {}
    if options.method in PRUNING:
        channels = _channels(options, net, valid)
        if len(channels) == getattr(net, options.layer).out_features:
            raise InputError(f"all {len(channels)} channels of {options.layer} pruned: nothing is left to train")
        settings = _amount(options) | {"channels": channels}
    steps = options.epochs * split.passes
    tuning = {
        "distill": lambda: distillation.distilled(net),
        "noise": lambda: noise.noise_augmented(net, options.layer, channels),
        "fine-prune": lambda: finetuning.fine_pruning(net, options.layer, channels),
        "iterative": lambda: gradual.iterative(net, options.layer, channels, steps),
        "magnitude": lambda: gradual.by_magnitude(net, steps),
        "ft-sam": lambda: sharpness.sharpness_aware(net),
        "ibau": lambda: unlearning.adversarial_unlearning(net),
    }[options.method]()
    if options.b0 is not None and options.b0 >= len(channels):
        raise InputError(f"--b0 {options.b0}: expected fewer than the {len(channels)} channels that are pruned in all")
    epoch_of_b0 = _epoch_of_b0(options, channels, split)
    kept = _best_epoch(options, tuning, split, saved, epoch_of_b0)
    before = _recognised(net, split.held_back)
    if 2 * kept.right < before:
        _command.warn(
            f"--learning-rate {options.learning_rate:g}: the repaired net recognises {kept.right} of the "
            f"{len(split.held_back)} images held back, the net itself {before}; choose a lower rate or more epochs"
        )
    held_back = {"epoch": int(kept.epoch), "held_back_accuracy": int(kept.right) / len(split.held_back)}
    settings |= _training(options, split) | {"optimizer": options.optimizer} | held_back
    if options.b0 is None:
        return Repair(kept.best, settings)
    gone = gradual.turns(len(channels), steps) <= epoch_of_b0 * split.passes
    return Repair(kept.best, settings | {"b0": int(gone.sum())}, kept.b0)


def grid(
    options: argparse.Namespace, net: "DeepID", valid: "ImageSet", saved: Path
) -> "tuple[list[tuple[Cell, DeepID, int]], int]":
    """Fine-pruning and magnitude pruning at every fraction and learning rate, trained at once.

    Returns: each cell, its net, and how many of the images held back that recognises; which of them recognises most.
    """
    import numpy as np

    from jaxdefend.defenses import pruning
    from jaxdefend.defenses.grid import Cell, begun, nets, trained
    from jaxdefend.nets.resuming import latest, save
    from jaxdefend.nets.training import Schedule

    split = _split(options, valid)
    order = pruning.ascending(pruning.mean_activations(net, _measuring.batches(valid, "activations"), options.layer))
    cells = [
        Cell(method, fraction, rate)
        for method in ("fine-prune", "magnitude")
        for fraction in options.fractions
        for rate in options.learning_rates
    ]
    schedule = Schedule(options.epochs * split.passes, split.batch, 1.0)
    state = latest(saved, begun(net, cells, options.layer, order))
    states = trained(state, cells, split.pixels, split.labels, schedule, split.key)
    # A cell may diverge, as long as another does not.
    least = ((after, np.nanmin(np.append(loss, np.inf))) for after, loss in states)
    for after, epoch, loss, left in epochs(options, least, int(state.step), split.passes):
        state = after
        save(saved, state)
        _command.say(f"epoch {epoch} of {options.epochs}: least loss {loss:.4f}, {left}")
    found = nets(state, cells)
    right = [_recognised(each, split.held_back) for each in found]
    return list(zip(cells, found, right, strict=True)), int(np.argmax(right))


def _training(options: argparse.Namespace, split: Split) -> dict:
    return {"epochs": options.epochs, "learning_rate": options.learning_rate, "batch": split.batch}


def _epoch_of_b0(options: argparse.Namespace, channels: "np.ndarray", split: Split) -> int:
    """The epoch in which the last of B0's channels goes."""
    from jaxdefend.defenses.gradual import turns

    if options.b0 is None:
        return 0
    return int(turns(len(channels), options.epochs * split.passes)[options.b0 - 1] // split.passes) + 1


def _best_epoch(options: argparse.Namespace, tuning: "Tuning", split: Split, saved: Path, epoch_of_b0: int) -> Kept:
    """The epoch that recognises most of the images held back, the latest on a tie, of those in which it is complete."""
    import jax
    import numpy as np

    from jaxdefend.defenses.finetuning import tuned
    from jaxdefend.nets.resuming import latest, save
    from jaxdefend.nets.training import Schedule, started

    schedule = Schedule(options.epochs * split.passes, split.batch, options.learning_rate, options.optimizer)
    beginning = started(tuning.start, schedule)
    start = jax.device_get(tuning.start)
    kept = latest(saved, Kept(beginning, start, np.int32(0), np.int32(-1), start))
    states = tuned(tuning, kept.training, split.pixels, split.labels, schedule, split.key)
    for training, epoch, loss, left in epochs(options, states, int(kept.step), split.passes):
        net = jax.device_get(tuning.repaired(training.net, int(training.step)))
        right = _recognised(net, split.held_back)
        kept = kept._replace(training=training)
        if epoch >= tuning.complete * options.epochs and right >= kept.right:
            kept = kept._replace(best=net, epoch=np.int32(epoch), right=np.int32(right))
        if epoch == epoch_of_b0:
            kept = kept._replace(b0=net)
        save(saved, kept)
        _command.say(
            f"epoch {epoch} of {options.epochs}: loss {loss:.4f}, {100 * right / len(split.held_back):.1f} % of the "
            f"images held back, {left}"
        )
    return kept


def _neurons_pruned(options: argparse.Namespace, net: "DeepID", valid: "ImageSet", saved: Path) -> Repair:
    """Pruned at the highest threshold that gives up less than --drop points of the images held back."""
    from jaxdefend.defenses import neurons
    from jaxdefend.nets.resuming import latest, save

    split = _split(options, valid)
    masks = latest(saved, neurons.begun(net))
    steps, rate = options.epochs * split.passes, options.learning_rate
    states = neurons.search(masks, net, split.pixels, split.labels, steps, split.batch, rate, split.key)
    for found, epoch, loss, left in epochs(options, states, int(masks.step), split.passes):
        masks = found
        save(saved, masks)
        _command.say(f"epoch {epoch} of {options.epochs}: loss {loss:.4f}, {left}")
    n, before = len(split.held_back), _recognised(net, split.held_back)

    def cheap(threshold: float) -> bool:
        return 100 * (before - _recognised(neurons.pruned_below(net, masks.masks, threshold)[0], split.held_back)) < (
            options.drop * n
        )

    threshold = next(threshold for threshold in (*reversed(neurons.THRESHOLDS), -1.0) if cheap(threshold))
    pruned, by_layer = neurons.pruned_below(net, masks.masks, threshold)
    if not any(map(len, by_layer.values())):
        why = (
            f"every threshold gives up {_command.number(options.drop)} points of accuracy or more"
            if threshold < 0
            else f"no channel's mask fell to {threshold:g}; give it more epochs or a higher rate"
        )
        _command.warn(f"anp prunes nothing: {why}")
    settings = {"drop": _command.number(options.drop), "threshold": threshold, "channels": by_layer}
    held_back = {"held_back_accuracy": _recognised(pruned, split.held_back) / n}
    return Repair(pruned, settings | _training(options, split) | held_back)


def epochs(
    options: argparse.Namespace, steps: Iterator[tuple[Any, Any]], done: int, passes: int
) -> Iterator[tuple[Any, int, float, str]]:
    """Of the steps that are left, those that end an epoch: the state, the epoch, the loss, and how long it will take.

    Raises: InputError if the loss is no number any more, or on Ctrl-C.
    """
    import math

    began, all_steps = perf_counter(), options.epochs * passes
    with _command.interrupts() as interrupted, _command.progress(options.method, all_steps, "steps") as advance:
        advance(done)
        for step, (state, loss) in enumerate(steps, done + 1):
            advance(1)
            if interrupted():
                raise InputError(
                    f"interrupted in epoch {step / passes:.1f} of {options.epochs}; {_how_to_resume(options)}"
                )
            if step % passes:
                continue
            if not math.isfinite(loss):
                raise InputError(
                    f"--learning-rate {options.learning_rate:g}: training diverged in epoch {step // passes}, the loss "
                    "is no number any more; choose a lower one"
                )
            left = (perf_counter() - began) / (step - done) * (all_steps - step)
            yield state, step // passes, float(loss), f"{left / 60:.0f} min left" if left > 90 else f"{left:.0f} s left"


def _how_to_resume(options: argparse.Namespace) -> str:
    return f"the same command with --out {options.out} and --resume goes on after the last whole epoch"
