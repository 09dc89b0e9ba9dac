"""What the commands share: arguments, one-line errors with exit status 2, notes and progress on stderr."""

import argparse
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from jaxdefend import InputError

if TYPE_CHECKING:
    from jaxdefend.datasets.batches import Batch
    from jaxdefend.datasets.files import Images
    from jaxdefend.nets.deepid import DeepID, InputScale
    from jaxdefend.nets.keras_files import ModelFile

SCHEMA = 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def parser(command: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """The parser of `python -m jaxdefend.COMMAND`; `examples` stand at the end of its help."""
    return _Parser(
        prog=f"python -m jaxdefend.{command}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        default="bd_net",
        metavar="MODEL",
        help="Keras file of the BadNet (.h5, .weights.h5, .keras), or a shipped net: bd_net (default), "
        "sunglasses_bd_net, multi_trigger_multi_target_bd_net, clean_net",
    )


def add_input_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-scale",
        choices=("auto", "raw", "unit"),
        default="auto",
        help="pixels that the net was trained on: raw 0–255, unit 0–1; auto takes what the model file says, "
        "else what recognises more clean images (default: auto)",
    )


def add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--poisoned",
        nargs="+",
        action="append",
        default=[],
        metavar="[NAME=]DATA",
        help="images with a trigger, labelled with the attacker's target; NAME= begins another set, and so does "
        "another --poisoned; sets without a name are called after their first file",
    )
    parser.add_argument(
        "--target",
        nargs="+",
        action="extend",
        default=[],
        metavar="[NAME=]N",
        help="the attacker's target in all poisoned sets, or in the set NAME, whatever their labels say",
    )
    parser.add_argument(
        "--labels",
        default="auto",
        metavar="auto|csv|folders|names|names:K",
        help="where the labels of image folders come from: labels.csv, class subfolders, or the first (K-th) number in "
        "the file names; auto takes the first of these that is there (default: auto)",
    )


def add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the results (default: a new one under runs/)"
    )


def run(command: Callable[[Sequence[str] | None], None], arguments: Sequence[str] | None = None) -> int:
    """Exit status of the command: 0, or 2 after one line on stderr that says what was wrong."""
    sys.unraisablehook = _interrupt_again
    try:
        command(arguments)
        sys.stdout.flush()
        return 0
    except InputError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("jaxdefend: interrupted; nothing was written", file=sys.stderr, flush=True)
        # XLA may still be computing in its own threads; taking the interpreter down under them crashes.
        os._exit(2)
    except BrokenPipeError:
        # Whoever read our output has read enough. Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    print(f"jaxdefend: {message}", file=sys.stderr)
    return 2


def _interrupt_again(swallowed: "sys.UnraisableHookArgs") -> None:
    """Python swallows a Ctrl-C that falls into a destructor or a callback of the garbage collector: it comes again."""
    if swallowed.exc_type is KeyboardInterrupt:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(swallowed)


def note(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)


def say(message: str) -> None:
    """How long work is going, one line at a time."""
    print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def out_folder(chosen: Path | None) -> Path:
    """The folder asked for, or one under runs/ named by the time."""
    if chosen is not None:
        return chosen
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folders = (Path("runs") / f"{name}{suffix}" for suffix in ("", *(f"-{count}" for count in range(2, 1000))))
    return next(folder for folder in folders if not folder.exists())


def load_model(path: str) -> "ModelFile":
    """The net in a Keras file, or the shipped one of this name; says what had to be guessed."""
    from jaxdefend.nets.keras_files import read_model

    model = read_model(_model_path(path))
    for line in model.notes:
        note(line)
    return model


def _model_path(model: str) -> Path:
    from jaxdefend.nets import shipped

    return shipped.path_of(model) if model in shipped.NAMES and not Path(model).exists() else Path(model)


class DefaultSets(NamedTuple):
    """Files of the default world's sets that belong to a shipped net."""

    valid: str
    test: str
    poisoned: list[list[str]]


def default_sets(model: str) -> DefaultSets | None:
    """The default world's sets for a shipped net, made if they are not in the cache; None for any other net."""
    from jaxdefend.nets.shipped import name_of

    name = name_of(_model_path(model))
    if name is None:
        return None
    from jaxdefend.attacks.world import default_set, shipped_backdoors

    poisoned = {backdoor.name: default_set("test", backdoor) for backdoor in shipped_backdoors(name)}
    valid, test = default_set("valid"), default_set("test")
    for needed in (valid, test, *poisoned.values()):
        if not needed.path.exists():
            note(f"making the default world's {needed.name} images, once: {needed.path}")
            with progress(needed.name, needed.size, "faces") as advance:
                needed.make(advance)
    named = [[f"{name}={kept.path}"] for name, kept in poisoned.items()]
    return DefaultSets(str(valid.path), str(test.path), named)


def load_images(paths: Sequence[str], net: "DeepID", labels: str = "auto", target: int | None = None) -> "Images":
    """A labelled set for this net; says what was resized or left out."""
    from jaxdefend.datasets.files import open_images

    images = open_images(paths, labels=labels, target=target, classes=net.classes)
    for line in images.notes:
        note(line)
    return images


def load_poisoned(options: argparse.Namespace, net: "DeepID") -> dict[str, "Images"]:
    """The poisoned sets by name."""
    sets = _named_sets(options.poisoned)
    targets = _targets(options.target, list(sets), net.classes)
    return {name: load_images(paths, net, options.labels, targets[name]) for name, paths in sets.items()}


def _named_sets(groups: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    sets: dict[str, list[str]] = {}
    for group in groups:
        name = ""
        for value in group:
            begins, equals, path = value.partition("=")
            named = bool(equals) and "/" not in begins and not Path(value).exists()
            if named and not (begins and path):
                raise InputError(f"--poisoned {value}: expected NAME=DATA")
            if named or not name:
                name = begins if named else Path(value).stem
                if name in sets:
                    raise InputError(f"--poisoned: two sets are called {name!r}; name them apart with NAME=DATA")
            sets.setdefault(name, []).append(path if named else value)
    return sets


def _targets(values: Sequence[str], names: Sequence[str], classes: int) -> Mapping[str, int | None]:
    targets: dict[str, int | None] = dict.fromkeys(names)
    for value in values:
        name, equals, number = value.rpartition("=")
        if equals and name not in targets:
            raise InputError(f"--target {value}: no poisoned set is called {name!r}; there are {', '.join(names)}")
        if not number.isascii() or not number.isdigit() or int(number) >= classes:
            raise InputError(f"--target {value}: expected a class of the net, 0…{classes - 1}")
        targets |= {name: int(number)} if equals else dict.fromkeys(names, int(number))
    return targets


def tracked(batches: "Iterable[Batch]", title: str, n: int) -> "Iterator[Batch]":
    """The batches of `n` images, with images per second and the time left on stderr if it is a terminal."""
    with progress(title, n, "images") as advance:
        for pixels, labels in batches:
            yield pixels, labels
            advance(len(pixels))


@contextmanager
def progress(title: str, n: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar on stderr if it is a terminal; call what it gives with how many more of the `n` are done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=n, rate="")

        def advance(done: int) -> None:
            bar.update(task, advance=done)
            if speed := bar.tasks[0].speed:
                bar.update(task, rate=f"{speed:,.0f} {unit}/s")

        yield advance


def scaled_by_measure(
    model: "ModelFile", asked: str, clean: "Images", fallback: "InputScale | None" = None
) -> "DeepID":
    """The net with its input scale: the one asked for, the file's, or the one that recognises more clean images.

    `fallback` decides where the measurement convinces nobody: a repaired net has the scale of its BadNet.
    """
    from jaxdefend.datasets.batches import sampled
    from jaxdefend.nets.inference import measured_input_scale

    known = _known_scale(model, asked)
    if known is not None:
        return known
    # A thousand images, evenly spread, tell the scales apart as well as all of them.
    measured = measured_input_scale(model.net, tracked(sampled(clean, 1024), "input scale", min(len(clean), 1024)))
    shares = {scale: f"{100 * count / measured.n:.1f} %" for scale, count in measured.correct.items()}
    found = (
        f"{model.name}: clean accuracy is {shares['raw']} on raw pixels (0–255), {shares['unit']} on unit ones (0–1)"
    )
    if measured.is_convincing:
        note(f"{found}, {measured.n} images; taking {measured.input_scale}")
        return _with_scale(model, measured.input_scale)
    scale = fallback or measured.input_scale
    why = "the BadNet's" if fallback else "the better"
    warn(f"{found}, {measured.n} images: neither is convincing; taking {scale}, {why}; --input-scale overrides it")
    return _with_scale(model, scale)


def scaled_by_assumption(
    model: "ModelFile", asked: str, images: "Images", fallback: "InputScale | None" = None
) -> "DeepID":
    """The net with its input scale where nothing is labelled: the one asked for, the file's, or a guess that is told.

    `fallback` is what the file of the other net of the pair says.
    """
    from jaxdefend.nets.inference import assumed_input_scale

    known = _known_scale(model, asked)
    if known is not None:
        return known
    told = f"{model.name}: the file does not say its input scale and no image is labelled; assuming"
    if fallback:
        note(f"{told} {fallback}, as the file of the other net says; --input-scale overrides it")
        return _with_scale(model, fallback)
    scale, spread = assumed_input_scale(model.net, images[:64])
    why = "far more than training on raw pixels leaves" if scale == "unit" else "as training on raw pixels leaves it"
    note(
        f"{told} {scale}, because on raw pixels its logits have a standard deviation of {spread:,.0f}, {why}; "
        "--input-scale overrides it"
    )
    return _with_scale(model, scale)


def _known_scale(model: "ModelFile", asked: str) -> "DeepID | None":
    written = model.net.input_scale
    if asked == "auto":
        return model.net if written else None
    if written and written != asked:
        warn(f"{model.name}: the file says that its input scale is {written}; using {asked} as asked")
    return _with_scale(model, "raw" if asked == "raw" else "unit")


def _with_scale(model: "ModelFile", scale: "InputScale") -> "DeepID":
    from jaxdefend.nets.deepid import with_input_scale

    return with_input_scale(model.net, scale)


def require_same_classes(badnet: "ModelFile", repaired: "ModelFile") -> None:
    if badnet.net.classes != repaired.net.classes:
        raise InputError(
            f"{repaired.name} has {repaired.net.classes} classes, {badnet.name} has {badnet.net.classes}; "
            "expected a repaired form of the same net"
        )


def record_head(
    command: str, arguments: Sequence[str] | None, model: "ModelFile", net: "DeepID", seed: int | None
) -> dict:
    """The keys with which every result file begins."""
    from importlib.metadata import version
    from platform import python_version

    import jax

    from jaxdefend import __version__

    device = jax.devices()[0]
    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy", "h5py")}
    return {
        "schema": SCHEMA,
        "command": f"python -m jaxdefend.{command} {shlex.join(sys.argv[1:] if arguments is None else arguments)}",
        "model": model_record(model),
        "input_scale": net.input_scale,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "versions": {"jaxdefend": __version__, "python": python_version(), **packages},
        "seed": seed,
    }


def model_record(model: "ModelFile") -> dict[str, str]:
    return {"name": model.name, "sha256": model.sha256}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under their headings, the first one flush left, the others flush right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()

    return "\n".join(map(line, lines))


def per_cent(count: int, n: int) -> str:
    """A share with its 95 % interval, for people."""
    from jaxdefend.results.rates import interval

    low, high = interval(count, n)
    return f"{100 * count / n:.2f} % [{100 * low:.1f}, {100 * high:.1f}]"
