"""The figures of a comparison: bars of nets and repairs, scores and errors of detectors, all nets on one page."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jaxdefend import InputError
from jaxdefend.reports.comparison import CLEAN, NONE, Comparison, NetScores
from jaxdefend.reports.samples import wrapped
from jaxdefend.results.plots import ACCURACY, ATTACK, colours_of, draw_errors, draw_histogram, legend_below, title_above
from jaxdefend.results.text import printable

# Panels side by side.
_ACROSS = 4


def bars_figure(comparison: Comparison, title: str = "") -> Figure:
    """See `Comparison.figure`."""
    rows = [row for row in comparison.rows if row.detector == NONE and (row.repair == NONE or row.form == "goodnet")]
    if not rows:
        raise InputError("no nets or repairs to draw")
    figure = Figure(figsize=(7.6, 1.2 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    worst = [max(row.poisoned.values(), key=lambda rate: rate.share, default=None) for row in rows]
    for offset, colour, label, rates in (
        (-0.2, ACCURACY[0], "clean accuracy", [row.clean for row in rows]),
        (0.2, ATTACK[0], "highest ASR of all poisoned sets", worst),
    ):
        found = [(place + offset, rate) for place, rate in enumerate(rates) if rate is not None]
        shares = np.array([100 * rate.share for _, rate in found])
        limits = np.array([rate.interval for _, rate in found]).reshape(-1, 2)
        errors = np.abs(100 * limits.T - shares)
        places = [place for place, _ in found]
        axes.barh(places, shares, 0.38, xerr=errors, color=colour, label=label, error_kw={"linewidth": 0.8})
    several = len({row.net for row in rows}) > 1
    names = [
        f"{printable(row.net, 24)}: " * several
        + ("BadNet" if row.repair == NONE else f"GoodNet of {printable(row.repair, 30)}")
        for row in rows
    ]
    axes.set_yticks(range(len(rows)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlim=(0, 102), xlabel="images, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(fontsize="small", loc="outside lower center", ncols=2, frameon=False)
    nets = printable(", ".join(dict.fromkeys(row.net for row in comparison.rows)), 80)
    told = title or f"{nets}: {rows[0].clean.n:,} clean images, 95 % intervals"
    title_above(figure, told)
    return figure


def histograms_figure(nets: Mapping[str, NetScores], title: str = "") -> Figure:
    """Histograms of every detector's scores: a row per net, a column per detector."""
    across = max(len(of.thresholds) for of in nets.values())
    width = max(3.4 * across, 5.0)
    figure = Figure(figsize=(width, 0.4 + 3.2 * len(nets)), layout="constrained")
    for part, (name, of) in zip(figure.subfigures(len(nets), 1, squeeze=False)[:, 0], nets.items(), strict=True):
        head = wrapped(f"{printable(name, 60)}: {_sizes(of)}", int(14 * width))
        part.suptitle(head, x=0.01, ha="left", fontsize="small", fontweight="bold")
        panels = part.subplots(1, across, squeeze=False)[0]
        for axes in panels[len(of.thresholds) :]:
            axes.set_axis_off()
        for axes, (detector, threshold) in zip(panels, of.thresholds.items(), strict=False):
            scores = {name: by_detector[detector] for name, by_detector in of.scores.items()}
            draw_histogram(axes, scores, threshold, *of.drawn[detector])
            axes.set_title(printable(detector, 40), loc="left", fontsize="small")
        legend_below(part, part.axes[0], width)
    figure.suptitle(title or "scores of clean and poisoned images", x=0.01, ha="left", fontsize="medium")
    return figure


def errors_figure(nets: Mapping[str, NetScores], title: str = "") -> Figure:
    """FRR against FAR of every detector at every threshold: a panel per net and poisoned set."""
    detectors = list(dict.fromkeys(name for of in nets.values() for name in of.thresholds))
    looks = colours_of(detectors)
    drawn = [
        (net, set_name, of)
        for net, of in nets.items()
        for set_name, by_detector in of.scores.items()
        if set_name != CLEAN and any(map(len, by_detector.values()))
    ]
    across = max(1, min(_ACROSS, len(drawn)))
    down = max(1, -(-len(drawn) // across))
    width = max(3.4 * across, 6.6)
    figure = Figure(figsize=(width, 0.9 + 3.3 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels[len(drawn) :]:
        axes.set_axis_off()
    for axes, (net, set_name, of) in zip(panels, drawn, strict=False):
        clean, poisoned = of.scores[CLEAN], of.scores[set_name]
        draw_errors(axes, {name: (clean[name], poisoned[name]) for name in of.thresholds}, looks)
        n = f"{len(next(iter(clean.values()))):,} clean, {len(next(iter(poisoned.values()))):,} poisoned"
        head = wrapped(f"{printable(net, 40)}, {printable(set_name, 40)}", 44)
        axes.set_title(f"{head}\n{n}", loc="left", fontsize="x-small")
    if drawn:
        legend_below(figure, panels[0], 1.4 * width, looks)
    figure.suptitle(title or "errors of detectors at every threshold", x=0.01, ha="left", fontsize="medium")
    return figure


def _sizes(of: NetScores) -> str:
    return ", ".join(
        f"{len(next(iter(scores.values()))):,} {name if name == CLEAN else f'with {name}'}"
        for name, scores in of.scores.items()
    )
