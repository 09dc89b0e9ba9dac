"""Every figure. matplotlib through `Figure`: no display, no global state; colours mean the same everywhere."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from jaxdefend.results.detection import error_curve
from jaxdefend.results.rates import Rate
from jaxdefend.results.records import replacing
from jaxdefend.results.text import narrow

# Okabe & Ito's colours, told apart by colour-blind readers too; the first two are the accuracies'.
ACCURACY = ("#0072B2", "#56B4E9")
ATTACK = ("#D55E00", "#CC79A7", "#E69F00", "#009E73", "#F0E442")
# Detectors: dark enough for lines on white.
_DETECTORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def write_figure(path: Path, figure: Figure) -> None:
    """The figure as PNG. Raises: InputError if it cannot be written."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=200, format="png")


def curve_figure(title: str, sweep: Mapping) -> Figure:
    """Accuracy and attack success against the fraction of channels pruned, with the drops marked.

    Args:
        sweep: the record of `sweep.json`, with arrays or lists.
    """
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    channels = len(sweep["order"])
    fraction = np.arange(channels + 1) / channels
    intervals = sweep["intervals"]

    same = np.array_equal(sweep["valid_accuracy"], sweep["test_accuracy"])
    _line(
        axes, fraction, sweep["valid_accuracy"], intervals["valid_accuracy"], ACCURACY[0], "clean accuracy, validation"
    )
    if not same:
        _line(axes, fraction, sweep["test_accuracy"], intervals["test_accuracy"], ACCURACY[1], "clean accuracy, test")
    for index, (name, values) in enumerate(sweep["attack_success"].items()):
        colour = ATTACK[index % len(ATTACK)]
        limits = intervals["attack_success"][name]
        _line(axes, fraction, values, limits, colour, f"attack success, {name}", dashes=True)
    _mark_drops(axes, sweep["repairs"], channels)

    axes.set(
        xlim=(0, 1), ylim=(-2, 102), ylabel="images, %", xlabel=f"fraction of the channels of {sweep['layer']} pruned"
    )
    axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    legend_below(figure, axes, 5.4)
    return figure


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


def scores_figure(
    title: str,
    scores: Mapping[str, Mapping[str, np.ndarray]],
    thresholds: Mapping[str, float],
    drawn: Mapping[str, tuple[str, bool]],
) -> Figure:
    """Histograms of the scores of each detector, clean and poisoned; entropies as entropies, in bits.

    Args:
        scores: {set: {detector: scores}}, the set "clean" first; of the others the images on which the attack succeeds.
        thresholds: {detector: threshold}.
        drawn: {detector: (what the score is, whether it is an entropy's negative)}.
    """
    detectors = list(thresholds)
    width = 3.4 * len(detectors)
    figure = Figure(figsize=(width, 3.2), layout="constrained")
    for axes, detector in zip(figure.subplots(1, len(detectors), squeeze=False)[0], detectors, strict=True):
        values = {name: by_detector[detector] for name, by_detector in scores.items()}
        draw_histogram(axes, values, thresholds[detector], *drawn[detector])
        axes.set_title(detector, loc="left", fontsize="medium")
    legend_below(figure, figure.axes[0], width)
    title_above(figure, title)
    return figure


# Bits; smaller entropies are drawn here.
_SUREST = 1e-3


def draw_histogram(
    axes: Axes, scores: Mapping[str, np.ndarray], threshold: float, label: str, is_entropy: bool
) -> None:
    """Histograms of one detector's scores by set, "clean" first, with its threshold; entropies as entropies."""

    def shown(values: np.ndarray | float) -> np.ndarray:
        return np.asarray(np.maximum(-np.asarray(values), _SUREST) if is_entropy else values)

    values = {name: shown(of) for name, of in scores.items()}
    edges = np.concatenate([*values.values(), shown(threshold)[None]])
    found = np.histogram_bin_edges(np.log10(edges) if is_entropy else edges, 40)
    bins = (10**found if is_entropy else found).tolist()
    for name, colour in zip(values, (ACCURACY[0], *ATTACK * 9), strict=False):
        weights = np.full(len(values[name]), 100 / max(1, len(values[name])))
        axes.hist(values[name], bins, weights=weights, alpha=0.6, color=colour, label=name)
    axes.axvline(float(shown(threshold)), color="0.3", linewidth=0.9, linestyle=":", label="threshold")
    axes.set(xlabel=label, ylabel="images, %", xscale="log" if is_entropy else "linear")
    axes.spines[["top", "right"]].set_visible(False)


def title_above(figure: Figure, title: str) -> None:
    """A title at the left, in lines that fit the figure's width."""
    figure.suptitle(textwrap.fill(title, int(12 * figure.get_figwidth())), x=0.01, ha="left", fontsize="medium")


def legend_below(figure: Figure | SubFigure, axes: Axes, width: float, order: Iterable[str] | None = None) -> None:
    """The legend of `axes` below a figure that is so many inches wide; an entry takes two."""
    handles, names = axes.get_legend_handles_labels()
    if order is not None:
        by_name = dict(zip(names, handles, strict=True))
        names = [name for name in order if name in by_name]
        handles = [by_name[name] for name in names]
    ncols = max(1, min(len(names), int(width / 2)))
    figure.legend(handles, names, loc="outside lower center", ncols=ncols, fontsize="small", frameon=False)


def errors_figure(title: str, scores: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """FRR against FAR of each detector, a panel for each poisoned set; `scores` as in `scores_figure`."""
    clean = scores["clean"]
    poisoned = {name: of for name, of in scores.items() if name != "clean" and any(map(len, of.values()))}
    across = max(1, min(4, len(poisoned)))
    down = max(1, -(-len(poisoned) // across))
    width = max(3.4 * across, 6.6)
    figure = Figure(figsize=(width, 0.9 + 3.3 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels[len(poisoned) :]:
        axes.set_axis_off()
    for axes, (name, of) in zip(panels, poisoned.items(), strict=False):
        draw_errors(axes, {detector: (clean[detector], of[detector]) for detector in clean}, colours_of(clean))
        axes.set_title(name, loc="left", fontsize="small")
    if poisoned:
        legend_below(figure, panels[0], 1.4 * width)
    title_above(figure, title)
    return figure


def colours_of(detectors: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """Colour and dashes of each detector's curve: the same in all panels, and told apart where curves lie together."""
    return dict(zip(detectors, zip(_DETECTORS * 9, ("-", (0, (5, 2)), ":", "-.") * 99, strict=False), strict=False))


def draw_errors(
    axes: Axes,
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]],
    looks: Mapping[str, tuple[str, Any]],
) -> None:
    """FRR against FAR of each detector at every threshold, from its scores of clean and of poisoned images."""
    for detector, (clean, poisoned) in scores.items():
        if len(poisoned):
            frr, far = error_curve(clean, poisoned)
            colour, style = looks[detector]
            # A perfect curve runs along the axes: not cut off there.
            axes.step(
                100 * frr,
                100 * far,
                where="post",
                color=colour,
                linestyle=style,
                linewidth=1.8,
                label=detector,
                clip_on=False,
                zorder=3,
            )
    axes.plot([0, 100], [0, 100], color="0.8", linewidth=0.7, zorder=0)
    axes.set(xscale="symlog", yscale="symlog", xlim=(0, 100), ylim=(0, 100))
    axes.set(xlabel="FRR: clean images rejected, %", ylabel="FAR: poisoned images accepted, %")
    ticks = [0, 1, 2, 5, 10, 20, 50, 100]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.tick_params(labelsize="small")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def superimposed_figure(overlays: np.ndarray, rows: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """STRIP's perturbations: the overlays, and under them each image, with the labels that the net gives.

    Args:
        overlays: o images, 0–255.
        rows: {name: (1 + o images, the first one as it is; 1 + o labels)}.
    """
    shape = (len(rows) + 1, len(overlays) + 1)
    figure = Figure(figsize=(1.05 * shape[1], 1.35 * shape[0]), layout="constrained")
    grid = figure.subplots(*shape)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, overlay in zip(grid[0, 1:], overlays, strict=True):
        axes.imshow(overlay)
        axes.set_title("overlay", fontsize="x-small")
    for line, (name, (images, labels)) in zip(grid[1:], rows.items(), strict=True):
        for number, (axes, image, label) in enumerate(zip(line, images, labels, strict=True)):
            axes.imshow(np.clip(image if number == 0 else image / 2, 0, 255).astype(np.uint8))
            axes.set_title(f"{narrow(name)}:\n{label}" if number == 0 else str(label), fontsize="x-small")
    return figure


def grid_figure(title: str, cells: Sequence[Mapping], chosen: int) -> Figure:
    """Heat maps of clean accuracy and of the highest attack success, a pair for each method; the chosen cell framed.

    Args:
        cells: of repair.json: {method, fraction, learning_rate, clean, poisoned}.
    """
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    fractions = sorted({cell["fraction"] for cell in cells})
    rates = sorted({cell["learning_rate"] for cell in cells})

    def attack(cell: Mapping) -> float:
        return max((block["attack_success"] for block in cell["poisoned"].values()), default=np.nan)

    panels = (("clean accuracy, %", "Blues", lambda cell: cell["clean"]["accuracy"]), ("ASR, %", "Oranges", attack))
    size = (2 * (1.2 + 0.7 * len(rates)) + 1, len(methods) * (1.1 + 0.45 * len(fractions)) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    for line, method in zip(figure.subplots(len(methods), 2, squeeze=False), methods, strict=True):
        for axes, (what, colours, value) in zip(line, panels, strict=True):
            shares = np.full((len(fractions), len(rates)), np.nan)
            for number, cell in enumerate(cells):
                if cell["method"] != method:
                    continue
                row, column = fractions.index(cell["fraction"]), rates.index(cell["learning_rate"])
                shares[row, column] = 100 * value(cell)
                dark = {"color": "white" if shares[row, column] > 60 else "black"}
                axes.text(column, row, f"{shares[row, column]:.1f}", ha="center", va="center", fontsize="small", **dark)
                if number == chosen:
                    axes.add_patch(
                        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=2)
                    )
            axes.imshow(shares, cmap=colours, vmin=0, vmax=100, aspect="auto")
            axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
            axes.set_yticks(range(len(fractions)), [f"{fraction:g}" for fraction in fractions])
            axes.set(xlabel="learning rate", ylabel="fraction pruned")
            axes.set_title(f"{method}: {what}", loc="left", fontsize="medium")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return figure


def rates_figure(title: str, rates: Mapping[str, Mapping[str, Rate]]) -> Figure:
    """Clean accuracy and attack success of several nets, side by side, with 95 % intervals.

    Args:
        rates: {net: {"clean accuracy" or "ASR, SET": rate}}, the same for every net.
    """
    names = list(next(iter(rates.values())))
    figure = Figure(figsize=(1.6 + 0.55 * len(rates) * len(names), 3.4), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(names)
    for number, (name, colour) in enumerate(zip(names, (ACCURACY[0], *ATTACK * 9), strict=False)):
        places = np.arange(len(rates)) + (number - (len(names) - 1) / 2) * width
        shares = np.array([by_name[name].share for by_name in rates.values()])
        limits = np.array([by_name[name].interval for by_name in rates.values()])
        errors = 100 * np.abs(limits.T - shares)
        axes.bar(places, 100 * shares, width, yerr=errors, color=colour, label=name, error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(rates)), list(rates))
    axes.set(ylim=(0, 102), ylabel="images, %")
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    legend_below(figure, axes, figure.get_figwidth())
    return figure


def history_figure(title: str, history: Sequence[tuple[int, float, int | None]]) -> Figure:
    """Loss, and where it is known the number of held-out images that the net recognises, by epoch."""
    epochs = [epoch for epoch, _, _ in history]
    figure = Figure(figsize=(6.0, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(epochs, [loss for _, loss, _ in history], color="0.3", label="loss")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.set_title(title, loc="left", fontsize="medium")
    if any(count is not None for _, _, count in history):
        other = axes.twinx()
        counts = [np.nan if count is None else count for _, _, count in history]
        other.plot(epochs, counts, color=ACCURACY[0], label="held-out images recognised")
        other.set(ylabel="held-out images recognised", ylim=(0, None))
    figure.legend(fontsize="small", loc="outside lower center", ncols=2, frameon=False)
    return figure


def audit_figure(
    title: str,
    stickers: np.ndarray,
    scores: Mapping[int, float],
    threshold: float,
    images: np.ndarray,
    pictures: Mapping[int, np.ndarray],
) -> Figure:
    """How far every class stands out, and the inverted triggers of the suspects on three images.

    Args:
        stickers: of every class, how far its votes under random stickers stand out.
        scores: of the classes that were looked at closely.
        threshold: the score from which on a class is a suspect.
        images: the three without a trigger.
        pictures: by suspect, the same three with its trigger.
    """
    shown = dict(list(pictures.items())[:6])
    rows = 1 + len(shown) if shown else 0
    figure = Figure(figsize=(9.6, max(4.2, 1.1 * rows)), layout="constrained")
    parts: Sequence = figure.subfigures(1, 2, width_ratios=(2, 1)) if shown else (figure, None)  # pyright: ignore
    left, right = parts
    above, below = left.subplots(2, 1)
    above.plot(np.arange(len(stickers)), stickers, ".", color="#999999", markersize=3)
    for label in shown:
        above.plot(label, stickers[label], "o", color=ATTACK[0])
        above.annotate(str(label), (label, stickers[label]), (5, -3), textcoords="offset points", fontsize="small")
    above.set(xlabel="class", ylabel="votes, ln excess")
    above.set_ylim(bottom=max(float(stickers.min()), -4) - 0.2)
    above.set_title(title, loc="left", fontsize="medium")
    labels = [str(label) for label in scores]
    colours = [ATTACK[0] if score >= threshold else ACCURACY[1] for score in scores.values()]
    below.bar(labels, list(scores.values()), color=colours)
    below.axhline(threshold, color="black", linewidth=0.8, linestyle="--")
    below.annotate("suspicious above", (0.99, threshold), (0, 3), xycoords=("axes fraction", "data"),
                   textcoords="offset points", ha="right", fontsize="small")  # fmt: skip
    below.set(xlabel="classes looked at closely", ylabel="score")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    if right is not None:
        grid = right.subplots(rows, len(images), squeeze=False)
        for row, (name, pixels) in zip(grid, {"without": images, **shown}.items(), strict=True):
            for axes, picture in zip(row, pixels, strict=True):
                axes.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255)
                axes.set(xticks=[], yticks=[])
            row[0].set_ylabel(name if isinstance(name, str) else f"class {name}", fontsize="small")
    return figure
