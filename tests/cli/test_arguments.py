"""Parsers and the types of their values."""

from fractions import Fraction

import pytest

from jaxdefend import InputError, __version__
from jaxdefend.cli import arguments


@pytest.fixture
def parser():
    made = arguments.parser("evaluate", "What it does.", "examples:\n  55 % of all")
    arguments.add_model(made)
    arguments.add_poisoned(made)
    arguments.add_input_scale(made)
    arguments.add_repaired(made, "nets")
    arguments.add_processes(made)
    arguments.add_out(made)
    made.add_argument("--drop", type=arguments.points, nargs="+")
    made.add_argument("--seed", type=arguments.seed)
    made.add_argument("--frr", type=arguments.share)
    made.add_argument("--limit", type=arguments.whole(1))
    return made


def test_the_manual_and_the_version(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parsed(["--help"])
    assert "python -m jaxdefend.evaluate" in (text := capsys.readouterr().out) and "55 % of all" in text
    with pytest.raises(SystemExit):
        parser.parsed(["--version"])
    assert capsys.readouterr().out == f"jaxdefend {__version__}\n"


def test_values(parser):
    options = parser.parsed(["net.h5", "--drop", "2", "2.5", "1/3", "1e-2", "--seed", "4294967295", "--frr", ".01"])
    assert options.drop == [2, Fraction(5, 2), Fraction(1, 3), Fraction(1, 100)]
    assert (options.seed, options.frr, options.model) == (2**32 - 1, 0.01, "net.h5")
    assert [arguments.number(points) for points in options.drop[:2]] == [2, 2.5]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--drop", "x"], "--drop x: expected percentage points"),
        (["--drop", "0"], "--drop 0: expected percentage points above 0"),
        (["--drop", "101"], "--drop 101: expected"),
        (["--drop", "1/0"], "--drop 1/0: expected"),
        (["--drop", "nan"], "--drop nan: expected"),
        (["--drop", "1e999999999"], "--drop 1e999999999: expected"),
        (["--drop", "1e-999999999"], "--drop 1e-999999999: expected"),
        (["--seed", "-1"], "--seed -1: expected a whole number, 0…4294967295"),
        (["--seed", "1" * 5000], "--seed 1111"),
        (["--seed", "٣"], "--seed ٣: expected"),
        (["--frr", "1"], "--frr 1: expected a share"),
        (["--frr", "one"], "--frr one: expected a share"),
        (["--limit", "0"], "--limit 0: expected a whole number, 1 or more"),
        (["--process", "x"], "--process x: expected a whole number"),
        (["--rule", "none"], "--rule: invalid choice"),
        (["--fast"], "unrecognized arguments: --fast"),
        (["--see", "1"], "unrecognized arguments: --see"),
        (["--out"], "--out: expected one argument"),
        (["a.h5", "\x1b[31m"], "unrecognized arguments: \\x1b[31m"),
        (["a\0b"], "NUL"),
    ],
)
def test_what_cannot_be_used_is_named(parser, words, said):
    with pytest.raises(InputError) as refused:
        parser.parsed(words)
    assert str(refused.value).startswith(said) or said in str(refused.value)
    assert len(str(refused.value)) < 400


def test_a_hint_takes_the_place_of_unrecognized(parser):
    with pytest.raises(InputError, match=r"^b\.h5 too many$"):
        parser.parsed(["a.h5", "b.h5"], lambda options, left: f"{left[0]} too many")


def test_a_current_folder_that_was_deleted(parser, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match="current folder"):
        parser.parsed([])


@pytest.mark.parametrize(("drops", "said"), [(["0.02", "0.04"], "for 2 4 points"), (["0.5", "2"], ""), ([], "")])
def test_shares_of_one_in_place_of_points(drops, said, capsys):
    arguments.note_small_drops([Fraction(drop) for drop in drops])
    assert said in (told := capsys.readouterr().err) and bool(told) == bool(said)
