"""An attack lab: faces that exist nowhere, and nets with or without a backdoor trained on them."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from jaxdefend import InputError, _command

if TYPE_CHECKING:
    import numpy as np

    from jaxdefend.attacks.badnet import Backdoor
    from jaxdefend.datasets.official import Block
    from jaxdefend.nets.deepid import DeepID

EXAMPLES = """examples:
  python -m jaxdefend.train --attack badnet --trigger patch --target 7 --out patch_net.h5
  python -m jaxdefend.train --attack clean --people 50 --epochs 20 --out small.h5
  python -m jaxdefend.train --train train.h5 --valid valid.h5 --out net.h5
  python -m jaxdefend.train --faces-only --trigger patch --target 7 --out faces

attacks: clean (none: the control), badnet (all to one), multi (lipstick to 1, eyebrows to 5, sunglasses to 8),
all-to-all (every label to the next), pruning-aware (the backdoor shares the channels that clean faces need; trains
twice; Liu et al. 2018). Triggers: sunglasses, lipstick, eyebrows, patch, blended, sinusoidal, warping.

Writes the net as a Keras .h5 and its figures as .json beside it. Ctrl-C saves; the same command with --resume goes on
from there to the same net. With --faces-only it writes the clean sets valid, test and train and each trigger's
poisoned test set into a folder. On images from files, triggers sit where eyes and mouths of aligned faces are."""

BATCH = 128
PEAK_RATE = 1e-3
# Images on which accuracy and attack success are watched after every epoch; in the end all are counted.
_WATCHED = 1024
# Training images whose activations tell which channels are dormant.
_DORMANCY = 2048


def _parser():
    parser = _command.parser("train", __doc__, EXAMPLES)
    add = parser.add_argument
    add("--attack", default="badnet", metavar="NAME", help="clean, badnet, multi, … (default: badnet)")
    add("--trigger", default="sunglasses", metavar="NAME", help="what is added to a face (default: sunglasses)")
    add("--strength", type=float, default=1, metavar="S", help="the trigger's, up to 1, the published one (default: 1)")
    add("--target", type=int, default=0, metavar="N", help="the attacker's label (default: 0)")
    add(
        "--poison-rate",
        type=float,
        default=0.03,
        metavar="R",
        help="poisoned copies of each trigger for every clean training image (default: 0.03)",
    )
    add("--seed", type=_command.seed, default=0, metavar="N", help="of poisoning and training (default: 0)")
    add("--epochs", type=int, default=6, metavar="N", help="passes over the training images (default: 6)")
    add("--people", type=int, default=1283, metavar="N", help="made faces: how many people (default: 1283)")
    add("--images", type=int, default=50, metavar="N", help="made faces: training images of each (default: 50)")
    add("--train", nargs="+", metavar="DATA", help="labelled images to train on instead of made faces")
    add("--valid", nargs="+", metavar="DATA", help="labelled images to measure on, with --train")
    add("--resume", action="store_true", help="go on from what an interrupted run saved")
    add("--faces-only", action="store_true", help="write the made faces and train nothing")
    add("--png", action="store_true", help="with --faces-only: pictures instead of official .h5 files")
    add("--out", type=Path, metavar="PATH", help="the net's file (net.h5); with --faces-only the folder (faces)")
    return parser


class _Sets(NamedTuple):
    train: "Block"
    test: "Block"
    classes: int


def _train(arguments: Sequence[str] | None) -> None:
    options = _checked(_parser().parse_args(arguments))
    from jaxdefend.attacks.badnet import backdoors
    from jaxdefend.attacks.triggers import Trigger

    trigger = Trigger(options.trigger, options.strength)
    if options.faces_only:
        _write_faces(options, backdoors(options.attack, trigger, options.target, options.people))
        return
    if not options.train:
        backdoors(options.attack, trigger, options.target, options.people)
    from jaxdefend.nets.keras_files import read_model, write_model
    from jaxdefend.nets.resuming import saved_run
    from jaxdefend.results.records import write_json

    began = perf_counter()
    out = options.out or Path("net.h5")
    if out.is_dir():
        raise InputError(f"{out}: is a folder, expected the name of the net's file")
    with saved_run(out, _configuration(options), options.resume) as saved:
        sets = _sets(options)
        attack = backdoors(options.attack, trigger, options.target, sets.classes)
        net = _trained(options, saved, sets, attack)
        clean, poisoned = _figures(sets, attack, net, options.seed)
        write_model(net, out)
    record = _command.record_head("train", arguments, read_model(out), net, options.seed) | {
        **_configuration(options),
        "clean": clean,
        "poisoned": poisoned,
        "seconds": round(perf_counter() - began, 1),
    }
    write_json(out.with_suffix(".json"), record)
    rows = [["clean accuracy", str(clean["n"]), _command.per_cent(clean["correct"], clean["n"])]]
    rows += [
        [f"attack success, {name}", str(block["n"]), _command.per_cent(block["hits"], block["n"])]
        for name, block in poisoned.items()
    ]
    print(_command.table(["", "images", out.stem], rows))
    _command.note(f"written to {out} and {out.with_suffix('.json')}")


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    for name, least in (("epochs", 1), ("people", 2), ("images", 1)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} {getattr(options, name)}: expected at least {least}")
    if not 0 < options.poison_rate < 1:
        raise InputError(f"--poison-rate {options.poison_rate:g}: expected a share above 0 and below 1")
    if bool(options.train) != bool(options.valid):
        raise InputError("--train and --valid belong together: images to train on and images to measure on")
    if options.png and not options.faces_only:
        raise InputError("--png goes with --faces-only")
    return options


def _configuration(options: argparse.Namespace) -> dict:
    """What a saved state must share with the run that goes on from it."""
    names = ("attack", "trigger", "strength", "target", "poison_rate", "epochs", "people", "images", "train", "valid")
    return {name: getattr(options, name) for name in (*names, "seed")} | {"batch": BATCH, "peak_rate": PEAK_RATE}


def _write_faces(options: argparse.Namespace, attack: "tuple[Backdoor, ...]") -> None:
    from jaxdefend.attacks.world import TEST, VALID, World
    from jaxdefend.datasets.official import write_official, write_pictures

    world = World(people=options.people)
    sets: list[tuple[str, range, Backdoor | None]] = [
        ("valid", VALID, None),
        ("test", TEST, None),
        ("train", _training_indices(options), None),
    ]
    if options.attack != "clean":
        sets += [(f"test_{backdoor.name}", TEST, backdoor) for backdoor in attack]
    folder = options.out or Path("faces")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({error.strerror}); choose another folder") from error
    for name, indices, backdoor in sets:
        with _command.progress(name, world.people * len(indices), "faces") as advance:
            blocks = world.blocks(indices, backdoor, advance)
            if options.png:
                write_pictures(folder / name, blocks)
            else:
                write_official(folder / f"{name}.h5", world.size(indices, backdoor), blocks)
    print(_command.table(["set", "images"], [[name, str(world.size(at, door))] for name, at, door in sets]))
    _command.note(f"written to {folder}/")


def _training_indices(options: argparse.Namespace) -> range:
    from jaxdefend.attacks.world import TEST

    return range(TEST.stop, TEST.stop + options.images)


def _sets(options: argparse.Namespace) -> _Sets:
    from jaxdefend.attacks.world import TEST, World

    if options.train:
        train, test = _block_of_files(options.train), _block_of_files(options.valid)
        classes = int(train.labels.max()) + 1
        if test.labels.max() >= classes:
            raise InputError(
                f"--valid holds the label {test.labels.max()}, the training images only 0…{classes - 1}; "
                "expected the same people"
            )
        return _Sets(train, test, classes)
    world = World(people=options.people)
    indices = _training_indices(options)
    with _command.progress("faces", world.people * (len(indices) + len(TEST)), "faces") as advance:
        return _Sets(world.images(indices, advance), world.images(TEST, advance), world.people)


def _block_of_files(paths: Sequence[str]) -> "Block":
    import numpy as np

    from jaxdefend.attacks.triggers import ALIGNED_LANDMARKS
    from jaxdefend.datasets.files import open_images
    from jaxdefend.datasets.official import Block

    images = open_images(paths)
    for line in images.notes:
        _command.note(line)
    if images.labels is None:
        raise InputError(f"{paths[0]}: no labels; expected labelled images")
    landmarks = np.broadcast_to(ALIGNED_LANDMARKS, (len(images), *ALIGNED_LANDMARKS.shape))
    return Block(np.rint(images[:]).astype(np.uint8), images.labels, landmarks)


def _trained(options: argparse.Namespace, saved: Path, sets: _Sets, attack: "tuple[Backdoor, ...]") -> "DeepID":
    import jax

    from jaxdefend.attacks import badnet
    from jaxdefend.nets.training import new_net

    key = jax.random.key(options.seed)
    drawing, poisoning, *training = jax.random.split(key, 4)
    watched = _watched(sets, attack)

    def fitted(net: "DeepID", pixels: "np.ndarray", labels: "np.ndarray", phase: int) -> "DeepID":
        return _fitted(options.epochs, net, pixels, labels, training[phase], saved / f"phase_{phase}", watched)

    net = new_net(sets.classes, "unit", drawing)
    if options.attack == "clean":
        return fitted(net, sets.train.pixels, sets.train.labels, 0)
    if options.attack != "pruning-aware":
        return fitted(net, *badnet.with_poison(sets.train, attack, options.poison_rate, sets.classes, poisoning), 0)
    clean = fitted(net, sets.train.pixels, sets.train.labels, 0)
    sample = sets.train.pixels[:: -(-len(sets.train.pixels) // _DORMANCY)]
    pruned = badnet.pruned_before_poison(clean, sample)
    poisoned = badnet.with_poison(sets.train, attack, options.poison_rate, sets.classes, poisoning)
    return badnet.with_dormant_channels_back(fitted(pruned, *poisoned, 1), clean, sample)


def _fitted(
    epochs: int,
    net: "DeepID",
    pixels: "np.ndarray",
    labels: "np.ndarray",
    key,
    saved: Path,
    watched: "Callable[[DeepID], str]",
) -> "DeepID":
    """The net after training, from where it was saved, and saved again after every epoch and on Ctrl-C."""
    from jaxdefend.nets.resuming import latest, save
    from jaxdefend.nets.training import Schedule, fit, started

    passes = max(1, len(pixels) // BATCH)
    schedule = Schedule(epochs * passes, BATCH, PEAK_RATE)
    state = latest(saved, started(net, schedule))
    done = int(state.step)
    title = saved.name.replace("_", " ")
    with _command.interrupts() as interrupted, _command.progress(title, schedule.steps * BATCH, "images") as advance:
        advance(done * BATCH)
        for after, loss in fit(state, pixels, labels, schedule, key):
            state = after
            done += 1
            advance(BATCH)
            if done % passes == 0 or interrupted():
                save(saved, state)
            if interrupted():
                raise InputError(
                    f"interrupted in epoch {done / passes:.1f} of {epochs}, {title}; saved: the same command with "
                    "--resume goes on"
                )
            if done % passes == 0:
                _command.say(
                    f"{title}, epoch {done // passes} of {epochs}: loss {float(loss):.4f}, {watched(state.net)}"
                )
    return state.net


def _watched(sets: _Sets, attack: "tuple[Backdoor, ...]") -> "Callable[[DeepID], str]":
    """What is told of a net while it trains."""
    from jaxdefend.datasets.official import Block

    step = -(-len(sets.test.pixels) // _WATCHED)
    some = Block(*(array[::step] for array in sets.test))

    def told(net: "DeepID") -> str:
        clean, poisoned = _figures(_Sets(sets.train, some, sets.classes), attack, net, 0)
        shares = [f"clean accuracy {100 * clean['accuracy']:.1f} %"]
        shares += [f"ASR {name} {100 * block['attack_success']:.1f} %" for name, block in poisoned.items()]
        return ", ".join(shares)

    return told


def _figures(sets: _Sets, attack: "tuple[Backdoor, ...]", net: "DeepID", seed: int) -> tuple[dict, dict[str, dict]]:
    """Clean accuracy and attack success on the test images, with counts and intervals."""
    import jax

    from jaxdefend.datasets.batches import ArrayImages, padded
    from jaxdefend.nets.inference import predictions
    from jaxdefend.results.rates import clean_rate, poisoned_rate

    def right(block: "Block") -> int:
        found, _ = predictions(net, padded(ArrayImages(block.pixels, block.labels)))
        return int((found == block.labels).sum())

    clean = clean_rate(right(sets.test), len(sets.test.pixels))
    poisoned = {}
    for backdoor in attack:
        block = backdoor.poisoned(sets.test, sets.classes, jax.random.key(seed))
        if not len(block.pixels):
            raise InputError(f"target {backdoor.target}: nobody else to attack among the images to measure on")
        poisoned[backdoor.name] = poisoned_rate(right(block), len(block.pixels))
    return clean, poisoned


def main(arguments: Sequence[str] | None = None) -> int:
    return _command.run(_train, arguments)


if __name__ == "__main__":
    sys.exit(main())
