"""Settings dataclasses as options."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import pytest

from jaxdefend import InputError, TrainingDiverged
from jaxdefend.cli import arguments, methods
from jaxdefend.repairs import METHODS, Grid
from jaxdefend.results.settings import Settings, setting, share, whole


@dataclass(frozen=True)
class Slow(Settings):
    """Trains long, up to `epochs` passes over 100 % of the images.

    Source: nobody.
    """

    epochs: int = setting(25, "passes", **whole(1))
    learning_rate: float = setting(0.005, "the highest", metavar="R", **share())
    way: Literal["up", "down"] = setting("up", "where to")


@dataclass(frozen=True)
class Fast(Settings):
    """Like `slow`, and short."""

    epochs: int = setting(5, "passes", **whole(1))
    drop: Fraction | float | None = setting(None, "points", metavar="X", shown="4")  # noqa: RUF009
    sizes: tuple[float, ...] = setting((0.5, 1.0), "sizes, at most 50 %", metavar="S")


@dataclass(frozen=True)
class Idle(Settings):
    """Nothing."""


TABLE = {"slow": Slow, "fast": Fast, "idle": Idle}


@pytest.fixture
def chosen():
    parser = arguments.parser("toy", "", methods.manual(TABLE))
    methods.add_options(parser, TABLE)
    return lambda *words, methods_=("slow",): methods.chosen(parser.parsed(words), TABLE, *methods_)


def test_what_is_given_is_set_and_what_is_not_is_the_default(chosen):
    assert chosen() == {"slow": Slow()}
    assert chosen("--epochs", "3", "--way", "down") == {"slow": Slow(3, way="down")}
    found = chosen("--epochs", "3", "--drop", "2.5", "--sizes", "0.1", "0.2", methods_=("slow", "fast"))
    assert found == {"slow": Slow(3), "fast": Fast(3, Fraction(5, 2), (0.1, 0.2))}


@pytest.mark.parametrize(
    ("words", "who", "said"),
    [
        (("--epochs", "3"), ("idle",), "--epochs: idle does not read it; leave it out (slow, fast do)"),
        (("--drop", "3"), ("slow",), "--drop: slow does not read it; leave it out (fast does)"),
        (("--drop", "3"), ("slow", "idle"), "--drop: slow and idle do not read it; leave it out (fast does)"),
        (("--epochs", "0"), ("slow",), "--epochs 0: expected at least 1"),
        (("--learning-rate", "2"), ("slow",), "--learning-rate 2: expected a number between 0 and 1"),
        (("--learning-rate", "x"), ("slow",), "--learning-rate x: expected a number"),
        (("--way", "left"), ("slow",), "--way: invalid choice: 'left'"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_option(chosen, words, who, said):
    with pytest.raises(InputError) as refused:
        chosen(*words, methods_=who)
    assert str(refused.value).startswith(said)


def test_the_manual_comes_from_the_docstrings(capsys):
    text = methods.manual(TABLE)
    assert text.splitlines()[0] == "  slow  Trains long, up to --epochs passes over 100 % of the images."
    assert "Source" not in text and "Like slow, and short." in text
    parser = arguments.parser("toy", "", text)
    methods.add_options(parser, TABLE)
    parser.print_help()
    shown = " ".join(capsys.readouterr().out.split())
    assert "passes; not for idle (default: 25; fast 5)" in shown
    assert "sizes, at most 50 %; for fast (default: 0.5 1)" in shown
    assert "points; for fast (default: 4)" in shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("learning rate 0.9: training diverged", "--learning-rate 0.9: training diverged"),
        ("epochs and drop: expected one", "--epochs and --drop: expected one"),
        ("drop", "drop"),
        ("epochsnet.h5: no such file", "epochsnet.h5: no such file"),
        ("net.h5: epochs", "net.h5: epochs"),
    ],
)
def test_library_errors_get_the_option(said, shown):
    for kind in (InputError, TrainingDiverged):
        with pytest.raises(kind) as raised, methods.named_as_options(TABLE):
            raise kind(said)
        assert str(raised.value) == shown


@pytest.mark.parametrize("name", [*METHODS, "grid"])
def test_every_repair_has_its_options(name):
    table = METHODS | {"grid": Grid}
    parser = arguments.parser("repair", "", methods.manual(table))
    methods.add_options(parser, table)
    assert methods.chosen(parser.parsed([]), table, name) == {name: table[name]()}
