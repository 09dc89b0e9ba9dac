"""A small picture of the pruning curve, for a terminal."""

import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from jaxdefend.cli import terminal
from jaxdefend.results.text import printable

_ROWS = 11
_LEFT = 5
# Letters that every terminal has; colours are those of the figures, as near as a terminal comes.
_MARKS = (("o", "blue"), ("x", "dark_orange"), ("+", "magenta"), ("#", "yellow"), ("%", "green"))


def show_curve(sweep: Mapping[str, Any]) -> None:
    """Draw the curve on stdout if that is a terminal; nothing where it is piped or narrow.

    Args:
        sweep: the record of a sweep.
    """
    if not terminal.is_terminal(sys.stdout):
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    if console.width < 40:
        return
    series = {"clean accuracy": sweep["test_accuracy"], **sweep["attack_success"]}
    for line in drawn(list(series.values()), console.width - _LEFT - 2):
        text = Text()
        for letter, run in groupby(line):
            text.append("".join(run), dict(_MARKS).get(letter, ""))
        console.print(text, soft_wrap=True)
    legend = Text(" " * _LEFT)
    for number, name in enumerate(series):
        mark, colour = _MARKS[number % len(_MARKS)]
        told = name if number == 0 else f"attack success, {printable(name, 30)}"
        legend.append(f" {mark} {terminal.shown_on(sys.stdout, told)} ", colour)
    console.print(legend)


def drawn(series: Sequence[Sequence[float] | np.ndarray], width: int) -> list[str]:
    """The curves in letters: a column per number of pruned channels, or every n-th where there are more."""
    points = len(series[0])
    step = -(-points // max(10, min(width, 100)))
    columns = range(0, points, step)
    rows = [[" "] * len(columns) for _ in range(_ROWS)]
    # The first series is drawn last: what lies over it hides it least.
    for number, shares in reversed(list(enumerate(series))):
        for column, k in enumerate(columns):
            rows[round((1 - float(shares[k])) * (_ROWS - 1))][column] = _MARKS[number % len(_MARKS)][0]
    lines = []
    for number, row in enumerate(rows):
        label = f"{100 - 100 * number // (_ROWS - 1):3d} " if number % 5 == 0 else "    "
        lines.append(f"{label}|{''.join(row)}".rstrip())
    base = f"{' ' * (_LEFT - 1)}+{'-' * len(columns)}"
    ends = f"{' ' * _LEFT}0{'channels pruned'.center(len(columns) - 1 - len(str(points - 1)))}{points - 1}"
    return [*lines, base, ends]
