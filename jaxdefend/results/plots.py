"""Every figure. matplotlib through `Figure`: no display, no global state."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxdefend.results.records import replacing

# Okabe & Ito's colours, told apart by colour-blind readers too; the first two are the accuracies'.
_ACCURACY = ("#0072B2", "#56B4E9")
_ATTACK = ("#D55E00", "#CC79A7", "#E69F00", "#009E73", "#F0E442")


def write_curve(path: Path, model: str, sweep: Mapping) -> None:
    """Accuracy and attack success against the fraction of channels pruned, with the drops marked.

    Args:
        model: the net's name, for the title.
        sweep: the record of `sweep.json`, with arrays or lists.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    channels = len(sweep["order"])
    fraction = np.arange(channels + 1) / channels
    intervals = sweep["intervals"]

    same = np.array_equal(sweep["valid_accuracy"], sweep["test_accuracy"])
    _line(
        axes, fraction, sweep["valid_accuracy"], intervals["valid_accuracy"], _ACCURACY[0], "clean accuracy, validation"
    )
    if not same:
        _line(axes, fraction, sweep["test_accuracy"], intervals["test_accuracy"], _ACCURACY[1], "clean accuracy, test")
    for index, (name, values) in enumerate(sweep["attack_success"].items()):
        colour = _ATTACK[index % len(_ATTACK)]
        limits = intervals["attack_success"][name]
        _line(axes, fraction, values, limits, colour, f"attack success, {name}", dashes=True)
    _mark_drops(axes, sweep["repairs"], channels)

    axes.set(
        xlim=(0, 1), ylim=(-2, 102), ylabel="images, %", xlabel=f"fraction of the channels of {sweep['layer']} pruned"
    )
    axes.set_title(model, loc="left", fontsize="medium")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", fontsize="small", framealpha=0.9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=200, format="png")


def _line(
    axes: Axes,
    fraction: np.ndarray,
    values: np.ndarray,
    limits: np.ndarray,
    colour: str,
    label: str,
    dashes: bool = False,
) -> None:
    low, high = 100 * np.asarray(limits).T
    axes.fill_between(fraction, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(fraction, 100 * np.asarray(values), color=colour, label=label, linestyle="--" if dashes else "-")


def _mark_drops(axes: Axes, repairs: list[Mapping], channels: int) -> None:
    """A vertical line at each repaired net; drops that share a point share the line and its label."""
    drops: dict[int, list[str]] = {}
    for repair in repairs:
        drops.setdefault(repair["pruned"], []).append(str(repair["drop"]))
    for number, (pruned, names) in enumerate(drops.items()):
        axes.axvline(pruned / channels, color="0.45", linewidth=0.8, linestyle=":")
        axes.annotate(
            f"drop {', '.join(names)}",
            (pruned / channels, 0.45 - 0.12 * (number % 2)),
            xycoords=("data", "axes fraction"),
            xytext=(-2, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="center",
            fontsize="x-small",
            color="0.3",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
