"""Parsers and option groups of the commands, and the types of their values."""

import argparse
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from jaxdefend import InputError, TrainingDiverged, __version__
from jaxdefend.cli import terminal
from jaxdefend.results.text import printable

# Begins the message of a type that refuses a value.
_VALUE = "\0"

SHIPPED = "bd_net (default), sunglasses_bd_net, multi_trigger_multi_target_bd_net, clean_net"


# Of the options, and of the words that are left over.
Hint = Callable[[argparse.Namespace, Sequence[str]], str | None]


class Parser(argparse.ArgumentParser):
    """Errors are InputErrors that begin with the option; the manual is printed in letters that the terminal has."""

    def error(self, message: str) -> NoReturn:
        # "argument -n/--number: …"; what a type of ours refuses begins with its value.
        message = re.sub(rf"^argument (?:\S+/)?(\S+): {_VALUE}", r"\1 ", message)
        message = re.sub(r"^argument (?:\S+/)?(\S+): ", r"\1: ", message)
        raise InputError(f"{message}; see {self.prog} --help")

    def _print_message(self, message: str, file: Any = None) -> None:
        terminal.show(message.rstrip("\n"))

    def parsed(self, arguments: Sequence[str], hint: Hint = lambda options, left: None) -> argparse.Namespace:
        """The options. Raises: InputError for what cannot be understood, or if the current folder has gone.

        Args:
            hint: says what to type instead where words are left over, or None.
        """
        if any("\0" in word for word in arguments):
            raise InputError("an argument holds a NUL character")
        options, left = self.parse_known_args(arguments)
        if left:
            words = " ".join(map(printable, left))
            if told := hint(options, left):
                raise InputError(told)
            self.error(f"unrecognized arguments: {words}")
        try:
            os.getcwd()
        except OSError as error:
            raise InputError("the current folder does not exist any more; change to another one") from error
        return options


def parser(command: str, description: str | None, examples: str) -> Parser:
    """The parser of `python -m jaxdefend.COMMAND`; `examples` stand at the end of its help."""
    made = Parser(
        prog=f"python -m jaxdefend.{command}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--version", action="version", version=f"jaxdefend {__version__}")
    return made


# Names


def option(name: str) -> str:
    """How a setting is called on the command line."""
    return f"--{name.replace('_', '-')}"


@contextmanager
def options_named(names: Iterable[str], others: Mapping[str, str] | None = None) -> Iterator[None]:
    """Errors of the library that begin with a setting's name in words begin with its option: "learning rate 0: …".

    Args:
        others: options by what else the library calls them.
    """
    try:
        yield
    except (InputError, TrainingDiverged) as error:
        message = as_options(str(error), names, others)
        if message == str(error):
            raise
        raise type(error)(message) from error


def as_options(message: str, names: Iterable[str], others: Mapping[str, str] | None = None) -> str:
    """`message` with the settings' names at its beginning as options."""
    words = {name.replace("_", " "): option(name) for name in names} | dict(others or {})
    either = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    found = re.match(rf"({either})(( and |, )({either}))*(?=[ :])", message) if words else None
    if found is None or ":" not in message:
        return message
    return re.sub(either, lambda word: words[word[0]], found[0]) + message[found.end() :]


# Values


def _refused(text: str, expected: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{_VALUE}{printable(text, 40)}: expected {expected}")


def points(text: str) -> Fraction:
    """Percentage points, exactly."""
    expected = "percentage points, such as 2 or 2.5"
    # A Fraction of 1e999999999 would fill the memory.
    if len(text) > 30 or re.search(r"e[+-]?\d{3}", text, re.IGNORECASE):
        raise _refused(text, expected)
    try:
        found = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise _refused(text, expected) from None
    if not 0 < found <= 100:
        raise _refused(text, "percentage points above 0, at most 100")
    return found


def number(points: Fraction) -> int | float:
    """For people and JSON: 4, not 4.0."""
    return int(points) if points.denominator == 1 else float(points)


def note_small_drops(drops: Sequence[Fraction]) -> None:
    """Shares of 1 given where percentage points are meant."""
    if drops and all(drop < 1 for drop in drops):
        given = " ".join(f"{float(drop):g}" for drop in drops)
        meant = " ".join(f"{float(100 * drop):g}" for drop in drops)
        terminal.note(f"--drop {given}: these are percentage points, all below one; for {meant} points give {meant}")


def whole(least: int, limit: int | None = None) -> Callable[[str], int]:
    """Whole numbers from `least` on, up to `limit`."""
    expected = f"a whole number, {least} or more" if limit is None else f"a whole number, {least}…{limit}"

    def parsed(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise _refused(text, expected)
        found = int(text)
        if found < least or (limit is not None and found > limit):
            raise _refused(text, expected)
        return found

    return parsed


seed = whole(0, 2**32 - 1)


def integer(text: str) -> int:
    """A whole number that others check further."""
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise _refused(text, "a whole number")
    return int(text)


def real(text: str) -> float:
    """A number that others check further."""
    try:
        return float(text)
    except ValueError:
        raise _refused(text, "a number") from None


def share(text: str) -> float:
    """A number above 0 and below 1."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1:
        raise _refused(text, "a share above 0 and below 1, such as 0.01")
    return found


# Options


def add_model(parser: argparse.ArgumentParser, required: bool = False) -> None:
    parser.add_argument(
        "model",
        nargs=None if required else "?",
        default=None if required else "bd_net",
        metavar="MODEL",
        help=f"Keras file of the BadNet (.h5, .weights.h5, .keras), or a shipped net: {SHIPPED}",
    )
    add_architecture(parser)


def add_architecture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--architecture",
        metavar="FILE",
        help="for a file of weights alone, other than DeepID's: the JSON of Keras's model.to_json(), or a whole model "
        "file with the same layers",
    )


def add_input_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-scale",
        default="auto",
        metavar="auto|raw|unit|symmetric|MEAN/STD",
        help="pixels that the net was trained on: raw 0–255, unit 0–1, symmetric −1…1, or minus MEAN, divided by STD "
        "(one number, or one per channel with commas between); auto takes what the model file says, else the scale on "
        "which the net recognises most clean images (default: auto)",
    )


def add_clean(parser: argparse.ArgumentParser, name: str, described: str) -> None:
    parser.add_argument(name, nargs="+", metavar="DATA", help=described)


def add_poisoned(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--poisoned",
        nargs="+",
        action="append",
        default=[],
        metavar="[NAME=]DATA",
        help="images with a trigger, labelled with the attacker's target. Each file or folder is a set of its own, "
        "called after it; NAME= calls it NAME and joins the files that follow it. An inverted trigger, as audit writes "
        "it (.h5 or .png), stands for the clean images with it on",
    )
    parser.add_argument(
        "--target",
        nargs="+",
        action="extend",
        default=[],
        metavar="[NAME=]N",
        help="the attacker's target in all poisoned sets, or in the set NAME, whatever their labels say",
    )
    add_labels(parser)


def add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        default="auto",
        metavar="auto|csv|folders|names|names:K",
        help="where the labels of image folders come from: labels.csv, class subfolders, or the first (K-th) number in "
        "the file names; auto takes the first of these that is there (default: auto)",
    )


def add_repaired(parser: argparse.ArgumentParser, described: str) -> None:
    parser.add_argument("--repaired", nargs="+", default=[], metavar="MODEL", help=described)
    parser.add_argument(
        "--rule",
        choices=("goodnet", "anti"),
        help="goodnet answers N, backdoored, where net and repaired net differ; anti where they agree, for a net made "
        "by repair --method anti (default: what the repaired net's file says, else goodnet)",
    )


def add_seed(parser: argparse.ArgumentParser, of_what: str) -> None:
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help=f"{of_what} (default: 0)")


def add_limit(parser: argparse.ArgumentParser, who: str) -> None:
    parser.add_argument(
        "--limit",
        type=whole(1),
        metavar="N",
        help=f"images of each set that {who}, evenly spread (default: all; of the synthetic faces 1000)",
    )


def add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the results (default: a new one under runs/)"
    )


def add_processes(parser: argparse.ArgumentParser, shared: str = "the images") -> None:
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT|auto",
        help=f"for a run over several processes, which share {shared}: where process 0 is reached, the same for all of "
        "them; auto: as the cluster's environment says (Slurm, Open MPI, Kubernetes, TPU pods)",
    )
    parser.add_argument("--processes", type=integer, metavar="N", help="how many processes the run has")
    parser.add_argument("--process", type=integer, metavar="I", help="which one this is, 0…N − 1; 0 writes and prints")
