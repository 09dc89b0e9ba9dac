"""Nets with or without a backdoor, trained on the synthetic faces or on images of one's own.

trained = LabSettings(attack="badnet", trigger="patch", target=7, people=50)(seed=0)
trained.net, trained.clean, trained.poisoned
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int32, PRNGKeyArray, UInt8

from jaxdefend import InputError, Interrupted, TrainingDiverged
from jaxdefend.attacks import badnet
from jaxdefend.attacks.badnet import Backdoor, backdoors
from jaxdefend.attacks.settings import LabSettings
from jaxdefend.attacks.synthetic import TEST, VALID, SyntheticFaces
from jaxdefend.attacks.triggers import Trigger, aligned_landmarks
from jaxdefend.datasets.images import ArrayImages, ImageSet, as_images, labelled
from jaxdefend.datasets.official import Block
from jaxdefend.nets.batches import padded
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import Graph
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.net import Net
from jaxdefend.nets.resuming import latest, same_run, save
from jaxdefend.nets.training import Schedule, fit, new_net, started
from jaxdefend.results.progress import Progress, Report, silent
from jaxdefend.results.rates import Rate, clean_rate, poisoned_rate
from jaxdefend.results.text import table

BATCH = 128
PEAK_RATE = 1e-3
# Images on which accuracy and attack success are watched after every epoch; in the end all are counted.
_WATCHED = 1024
# Training images whose activations show which channels are dormant.
_DORMANCY = 2048


class Sets(NamedTuple):
    """Images to train on and to measure on, and how many classes they have."""

    train: Block
    test: Block
    classes: int


class FaceSet(NamedTuple):
    """A set of the synthetic faces, drawn as it is read."""

    name: str
    size: int
    blocks: Callable[[Report], Iterator[Block]]


@dataclass(frozen=True, repr=False)
class Trained:
    """A net from the lab, and what it does on the images to measure on.

    Attributes:
        clean: clean accuracy.
        poisoned: attack success by trigger; for a clean net, of what it must not have learnt.
    """

    settings: LabSettings
    net: Net
    clean: Rate
    poisoned: Mapping[str, Rate]

    def record(self) -> dict[str, Any]:
        """What the JSON beside the net holds of it."""
        return {
            **self.settings.record(),
            "batch": BATCH,
            "peak_rate": PEAK_RATE,
            "clean": clean_rate(self.clean),
            "poisoned": {name: poisoned_rate(rate) for name, rate in self.poisoned.items()},
        }

    def table(self, title: str = "net") -> str:
        """For people: clean accuracy and attack success."""
        rows = [["clean accuracy", str(self.clean.n), str(self.clean)]]
        rows += [[f"attack success, {name}", str(rate.n), str(rate)] for name, rate in self.poisoned.items()]
        return table(["", "images", title], rows)

    def __repr__(self) -> str:
        return self.table()


def attack_of(settings: LabSettings, classes: int | None = None) -> tuple[Backdoor, ...]:
    """The backdoors that the settings ask for.

    Raises: InputError if there is no such attack or trigger, or a target is not a class.
    """
    trigger = Trigger(settings.trigger, settings.strength)
    return backdoors(settings.attack, trigger, settings.target, settings.people if classes is None else classes)


def trained(
    settings: LabSettings,
    train: Any = None,
    valid: Any = None,
    *,
    graph: Graph | None = None,
    seed: int = 0,
    progress: Report = silent,
    saved: Path | None = None,
) -> Trained:
    """A net under the attack that the settings describe.

    Args:
        train, valid: labelled images to train on and to measure on; by default the synthetic faces.
        graph: the net's layers; by default DeepID's.
        seed: of poisoning and training.
        progress: called as the work goes on; where it raises `Interrupted`, what is done is saved first.
        saved: a folder in which training is saved after every epoch; a run that finds one of its own there goes on
            from it, to the same net.
    Raises: InputError if the images or the settings cannot be used, or the folder holds another run; TrainingDiverged.
    """
    if (train is None) != (valid is None):
        raise InputError("train and valid: expected both, images to train on and images to measure on")
    if train is None:
        attack_of(settings)
    images = None if train is None else [labelled(as_images(each), "training images") for each in (train, valid)]
    digests = {} if images is None else dict(zip(("train", "valid"), map(_digest, images), strict=True))
    same_run(saved, settings.record() | digests | {"seed": seed, "batch": BATCH, "peak_rate": PEAK_RATE})
    sets = _synthetic(settings, progress) if images is None else _of_images(*images)
    if graph is not None:
        if sets.classes > graph.classes or sets.train.pixels.shape[1:] != graph.image_shape:
            raise InputError(
                f"the net has {graph.classes} classes and takes images {graph.image_shape}, the training images have "
                f"{sets.classes} and are {sets.train.pixels.shape[1:]}"
            )
        sets = sets._replace(classes=graph.classes)
    attack = attack_of(settings, sets.classes)
    net = _net(settings, sets, attack, graph or deepid(sets.classes), seed, progress, saved)
    return Trained(settings, net, *_figures(sets, attack, net, seed))


def face_sets(settings: LabSettings) -> list[FaceSet]:
    """The sets that a net of these settings is trained and measured on, and one to repair it with."""
    drawn, attack = SyntheticFaces(people=settings.people), attack_of(settings)
    sets: list[tuple[str, range, Backdoor | None]] = [("valid", VALID, None), ("test", TEST, None)]
    sets.append(("train", _training_indices(settings), None))
    if settings.attack != "clean":
        sets += [(f"test_{backdoor.name}", TEST, backdoor) for backdoor in attack]

    def of(name: str, indices: range, backdoor: Backdoor | None) -> FaceSet:
        blocks = lambda report: drawn.blocks(indices, backdoor, report, name)  # noqa: E731
        return FaceSet(name, drawn.size(indices, backdoor), blocks)

    return [of(*each) for each in sets]


def _training_indices(settings: LabSettings) -> range:
    return range(TEST.stop, TEST.stop + settings.images)


def _synthetic(settings: LabSettings, report: Report) -> Sets:
    drawn = SyntheticFaces(people=settings.people)
    train = drawn.images(_training_indices(settings), progress=report, title="faces to train on")
    return Sets(train, drawn.images(TEST, progress=report, title="faces to measure on"), drawn.people)


def _of_images(train_images: ImageSet, test_images: ImageSet) -> Sets:
    train, test = _block(train_images), _block(test_images)
    classes = int(train.labels.max()) + 1
    if test.labels.max() >= classes:
        raise InputError(
            f"the images to measure on hold the label {test.labels.max()}, the training images only 0…{classes - 1}; "
            "expected the same classes"
        )
    return Sets(train, test, classes)


def _block(images: ImageSet) -> Block:
    landmarks = aligned_landmarks(len(images), *images.shape[:2])
    return Block(np.rint(images[:]).astype(np.uint8), np.asarray(images.labels, np.int32), landmarks)


def _digest(images: ImageSet) -> str:
    """Of all labels, and of some of the images."""
    digest = sha256(np.asarray(images.labels).tobytes())
    digest.update(np.ascontiguousarray(images[:: max(1, len(images) // 16)]).tobytes())
    return digest.hexdigest()


def _net(
    settings: LabSettings,
    sets: Sets,
    attack: tuple[Backdoor, ...],
    graph: Graph,
    seed: int,
    report: Report,
    saved: Path | None,
) -> Net:
    key = jax.random.key(seed)
    drawing, poisoning, *training = jax.random.split(key, 4)
    watched = _watched(sets, attack)

    def fitted(net: Net, pixels: UInt8[np.ndarray, "n h w c"], labels: Int32[np.ndarray, " n"], phase: int) -> Net:
        folder = None if saved is None else saved / f"phase_{phase}"
        return _fitted(f"phase {phase}", settings.epochs, net, pixels, labels, training[phase], folder, watched, report)

    net = new_net(graph, "unit", drawing)
    if settings.attack == "clean":
        return fitted(net, sets.train.pixels, sets.train.labels, 0)
    if settings.attack != "pruning-aware":
        poisoned = badnet.with_poison(sets.train, attack, settings.poison_rate, sets.classes, poisoning)
        return fitted(net, *poisoned, 0)
    clean = fitted(net, sets.train.pixels, sets.train.labels, 0)
    sample = sets.train.pixels[:: -(-len(sets.train.pixels) // _DORMANCY)]
    pruned = badnet.pruned_before_poison(clean, sample)
    poisoned = badnet.with_poison(sets.train, attack, settings.poison_rate, sets.classes, poisoning)
    return badnet.with_dormant_channels_back(fitted(pruned, *poisoned, 1), clean, sample)


def _fitted(
    title: str,
    epochs: int,
    net: Net,
    pixels: UInt8[np.ndarray, "n h w c"],
    labels: Int32[np.ndarray, " n"],
    key: PRNGKeyArray,
    saved: Path | None,
    watched: Callable[[Net], str],
    report: Report,
) -> Net:
    """The net after training, from where it was saved; saved again after every epoch and when it is stopped."""
    passes = max(1, len(pixels) // BATCH)
    schedule = Schedule(epochs * passes, BATCH, PEAK_RATE)
    state = latest(saved, started(net, schedule))
    done = int(state.step)
    report(Progress(title, done * BATCH, schedule.steps * BATCH))
    for after, loss in fit(state, pixels, labels, schedule, key):
        state, message = after, ""
        done += 1
        if done % passes == 0:
            if not math.isfinite(loss):
                raise TrainingDiverged(
                    f"training diverged in epoch {done // passes} of {title}, the loss is not a number any more"
                )
            save(saved, state)
            share = watched(state.net)
            message = f"{title}, epoch {done // passes} of {epochs}: loss {float(loss):.4f}, {share}"
        try:
            report(Progress(title, done * BATCH, schedule.steps * BATCH, message=message))
        except (Interrupted, KeyboardInterrupt):
            save(saved, state)
            raise
    return state.net


def _watched(sets: Sets, attack: tuple[Backdoor, ...]) -> Callable[[Net], str]:
    """What is reported of a net while it trains."""
    step = -(-len(sets.test.pixels) // _WATCHED)
    some = Block(*(array[::step] for array in sets.test))

    def told(net: Net) -> str:
        clean, poisoned = _figures(Sets(sets.train, some, sets.classes), attack, net, 0)
        shares = [f"clean accuracy {100 * clean.share:.1f} %"]
        shares += [f"ASR {name} {100 * rate.share:.1f} %" for name, rate in poisoned.items()]
        return ", ".join(shares)

    return told


def _figures(sets: Sets, attack: tuple[Backdoor, ...], net: Net, seed: int) -> tuple[Rate, dict[str, Rate]]:
    """Clean accuracy and attack success on the images to measure on."""

    def correct(block: Block) -> Rate:
        found, _ = predictions(net, padded(ArrayImages(block.pixels, block.labels)))
        return Rate(int((found == block.labels).sum()), len(block.pixels))

    poisoned = {}
    for backdoor in attack:
        block = backdoor.poisoned(sets.test, sets.classes, jax.random.key(seed))
        if not len(block.pixels):
            raise InputError(f"target {backdoor.target}: nobody else to attack among the images to measure on")
        poisoned[backdoor.name] = correct(block)
    return correct(sets.test), poisoned
