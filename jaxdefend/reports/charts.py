"""Charts as SVG: they follow the page's light and dark, and every value can be read with mouse, keyboard or without."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

from jaxdefend.results.rates import Rate

# The size of the drawing; the page scales it.
_W, _H = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 42


@dataclass(frozen=True)
class Series:
    """What a chart shows of one thing.

    Attributes:
        name: for the legend.
        colour: the name of a colour of the page: "valid", "test" (accuracies), "attack0" … (attacks).
        dashed: how the line is drawn.
    """

    name: str
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing, and what stands beside it."""

    svg: Markup
    caption: str
    legend: tuple[Series, ...] = ()


def attack(number: int) -> str:
    """The colour of the n-th poisoned set, as in every figure."""
    return f"attack{number % 5}"


@dataclass(frozen=True)
class Line:
    """A line over 0, 1, … m − 1: shares with their intervals."""

    series: Series
    shares: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def curve_chart(lines: Sequence[Line], marks: Mapping[str, int], xlabel: str, caption: str, id: str = "") -> Chart:
    """Shares in per cent over a count; vertical lines at the marks, and a pointer that a script may move."""
    points = len(lines[0].shares)
    last = max(1, points - 1)

    def x(value: float) -> float:
        return _LEFT + value / last * (_W - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _TOP + (1 - share) * (_H - _TOP - _BOTTOM)

    parts = [_frame(xlabel, "images, %", [(str(v), x(v)) for v in _ticks(last)], _percent_ticks(y))]
    for at, names in _by_place(marks).items():
        parts.append(
            Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(x(at), _TOP, y(0))
        )
        parts.append(
            Markup('<text class="small" transform="translate({:.1f} {}) rotate(-90)">drop {}</text>').format(
                x(at) - 3, y(0.04), ", ".join(names)
            )
        )
    for line in lines:
        upper = " ".join(f"{x(k):.1f},{y(share):.1f}" for k, share in enumerate(line.high))
        lower = " ".join(f"{x(k):.1f},{y(share):.1f}" for k, share in reversed(list(enumerate(line.low))))
        parts.append(Markup('<polygon class="band {}" points="{} {}"/>').format(line.series.colour, upper, lower))
    for line in lines:
        way = " ".join(f"{x(k):.1f},{y(share):.1f}" for k, share in enumerate(line.shares))
        dashed = " dashed" if line.series.dashed else ""
        parts.append(Markup('<polyline class="line {}{}" points="{}"/>').format(line.series.colour, dashed, way))
    parts.append(
        Markup(
            '<line class="pointer" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}" data-x0="{3:.2f}" data-dx="{4:.4f}"/>'
        ).format(x(0), _TOP, y(0), x(0), x(1) - x(0))
    )
    half = (x(1) - x(0)) / 2
    for k in range(points):
        told = [f"{k} pruned"] + [
            f"{line.series.name}: {_share(line.shares[k], line.low[k], line.high[k])}" for line in lines
        ]
        parts.append(_hit(x(k) - half, _TOP, 2 * half, y(0) - _TOP, told))
    return Chart(_svg(parts, caption, id), caption, tuple(line.series for line in lines))


def bar_chart(groups: Mapping[str, Mapping[str, Rate]], colours: Mapping[str, str], caption: str) -> Chart:
    """Rates side by side, with their 95 % intervals.

    Args:
        groups: {what stands below the bars: {series: rate}}.
        colours: {series: colour}.
    """

    def y(share: float) -> float:
        return _TOP + (1 - share) * (_H - _TOP - _BOTTOM)

    width = (_W - _LEFT - _RIGHT) / max(1, len(groups))
    parts = [_frame("", "images, %", [], _percent_ticks(y))]
    for place, (group, rates) in enumerate(groups.items()):
        bar = 0.8 * width / max(1, len(rates))
        start = _LEFT + place * width + 0.1 * width
        for number, (name, rate) in enumerate(rates.items()):
            left, (low, high) = start + number * bar, rate.interval
            parts.append(
                Markup('<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                    colours[name], left, y(rate.share), max(1, bar - 1), y(0) - y(rate.share)
                )
            )
            parts.append(
                Markup('<line class="whisker" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>').format(
                    left + bar / 2, y(low), y(high)
                )
            )
            told = [group.replace("\n", ", "), f"{name}: {rate.count:,} of {rate.n:,}", str(rate)]
            parts.append(_hit(left, _TOP, bar, y(0) - _TOP, told))
        middle = _LEFT + (place + 0.5) * width
        letters = max(4, int(width / 5.6))
        for line, text in enumerate(group.split("\n")):
            shown = text if len(text) <= letters else text[: letters - 1] + "…"
            parts.append(
                Markup('<text class="small" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
                    middle, y(0) + 14 + 13 * line, shown
                )
            )
    names = dict.fromkeys(name for rates in groups.values() for name in rates)
    return Chart(_svg(parts, caption), caption, tuple(Series(name, colours[name]) for name in names))


def count_chart(bars: Sequence[tuple[str, int]], colour: str, xlabel: str, caption: str) -> Chart:
    """Counts of a few classes as bars."""
    highest = max((count for _, count in bars), default=1) or 1

    def y(count: float) -> float:
        return _TOP + (1 - count / (1.12 * highest)) * (_H - _TOP - _BOTTOM)

    width = (_W - _LEFT - _RIGHT) / max(4, len(bars))
    ticks = [v for v in _ticks(highest) if v == int(v)]
    parts = [_frame(xlabel, "images", [], [(f"{v / 1000:g}k" if v >= 1000 else f"{v:g}", y(v)) for v in ticks])]
    for place, (name, count) in enumerate(bars):
        left = _LEFT + (place + 0.12) * width
        parts.append(
            Markup('<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                colour, left, y(count), 0.76 * width, y(0) - y(count)
            )
        )
        middle = left + 0.38 * width
        parts.append(_text(middle, y(count) - 4, f"{count:,}"))
        parts.append(_text(middle, y(0) + 14, name))
        parts.append(_hit(left, _TOP, 0.76 * width, y(0) - _TOP, [f"{name}: {count:,}"]))
    return Chart(_svg(parts, caption), caption)


def channel_chart(
    clean: Sequence[float], poisoned: Sequence[float] | None, channels: Sequence[int], colour: str, caption: str
) -> Chart:
    """A bar per channel, in the order given; over the bars of a poisoned set a line for the clean ones."""
    shown = list(clean if poisoned is None else poisoned)
    highest = max([*shown, *clean, 1e-9])

    def y(value: float) -> float:
        return _TOP + (1 - value / (1.05 * highest)) * (_H - _TOP - _BOTTOM)

    width = (_W - _LEFT - _RIGHT) / max(1, len(shown))
    ticks = [(f"{v:g}", y(v)) for v in _ticks(highest)]
    parts = [_frame("channels, the most active on clean images first", "mean activation", [], ticks)]
    for place, value in enumerate(shown):
        left = _LEFT + place * width
        parts.append(
            Markup('<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                colour, left, y(max(0, value)), max(0.5, 0.85 * width), y(0) - y(max(0, value))
            )
        )
    if poisoned is not None:
        steps = " ".join(
            f"{_LEFT + (k + end) * width:.1f},{y(max(0, value)):.1f}" for k, value in enumerate(clean) for end in (0, 1)
        )
        parts.append(Markup('<polyline class="line ink" points="{}"/>').format(steps))
    for place, channel in enumerate(channels):
        told = [f"channel {channel}", f"clean: {clean[place]:.4g}"]
        told += [] if poisoned is None else [f"poisoned: {poisoned[place]:.4g}"]
        parts.append(_hit(_LEFT + place * width, _TOP, width, y(0) - _TOP, told))
    return Chart(_svg(parts, caption), caption)


def score_chart(
    scores: Mapping[str, np.ndarray],
    colours: Mapping[str, str],
    threshold: float,
    xlabel: str,
    entropy: bool,
    caption: str,
) -> Chart:
    """Histograms of scores, of entropies in bits on a logarithmic scale, with the threshold."""

    def shown(values: np.ndarray | float) -> np.ndarray:
        return np.asarray(np.log10(np.maximum(-np.asarray(values), 1e-3)) if entropy else values)

    values = {name: shown(of) for name, of in scores.items()}
    everything = np.concatenate([*(of.ravel() for of in values.values()), np.ravel(shown(threshold))])
    edges = np.histogram_bin_edges(everything, 36)
    shares = {name: np.histogram(of, edges)[0] / max(1, len(of)) for name, of in values.items()}
    highest = max(float(of.max()) for of in shares.values()) or 1.0

    def x(value: float) -> float:
        return _LEFT + (value - edges[0]) / (edges[-1] - edges[0]) * (_W - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _TOP + (1 - share / (1.05 * highest)) * (_H - _TOP - _BOTTOM)

    if entropy:
        powers = [v for v in (-3, -2, -1, 0, 1) if edges[0] <= v <= edges[-1]]
        xticks = [(f"{10.0**v:g}", x(v)) for v in powers]
    else:
        xticks = [(f"{v:g}", x(v)) for v in _ticks(float(edges[-1]), float(edges[0]))]
    yticks = [(f"{100 * v:g}", y(v)) for v in _ticks(highest)]
    parts = [_frame(xlabel, "images, %", xticks, yticks)]
    for name, of in shares.items():
        way = f"M{x(edges[0]):.1f} {y(0):.1f}"
        for left, right, share in zip(edges, edges[1:], of, strict=False):
            way += f"L{x(left):.1f} {y(share):.1f}L{x(right):.1f} {y(share):.1f}"
        way += f"L{x(edges[-1]):.1f} {y(0):.1f}Z"
        parts.append(Markup('<path class="area {}" d="{}"/>').format(colours[name], way))
    at = x(float(shown(threshold)))
    parts.append(
        Markup('<line class="mark strong" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2:.1f}"/>').format(at, _TOP, y(0))
    )
    side = "end" if at > _W / 2 else "start"
    offset = -4 if side == "end" else 4
    parts.append(_text(at + offset, _TOP + 10, "threshold", side))
    for place, (left, right) in enumerate(pairwise(edges)):
        low, high = (f"{10.0**v:.3g}" if entropy else f"{v:.3g}" for v in (left, right))
        told = [f"{low} … {high}"] + [f"{name}: {100 * of[place]:.1f} %" for name, of in shares.items()]
        parts.append(_hit(x(left), _TOP, x(right) - x(left), y(0) - _TOP, told))
    return Chart(_svg(parts, caption), caption, tuple(Series(name, colours[name]) for name in scores))


def error_chart(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], caption: str) -> Chart:
    """FRR against FAR, both in per cent on a scale that shows small ones.

    Args:
        curves: {name: (FRR, FAR)} at every threshold.
    """
    ticks = (0, 1, 2, 5, 10, 20, 50, 100)

    def scaled(value: float) -> float:
        return np.log1p(value) / np.log1p(100)

    def x(value: float) -> float:
        return _LEFT + scaled(value) * (_W - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (1 - scaled(value)) * (_H - _TOP - _BOTTOM)

    parts = [
        _frame(
            "FRR: clean images rejected, %",
            "FAR: poisoned accepted, %",
            [(str(v), x(v)) for v in ticks],
            [(str(v), y(v)) for v in ticks],
        )
    ]
    legend = []
    for number, (name, (frr, far)) in enumerate(curves.items()):
        series = Series(name, ("valid", "attack0", "attack1", "attack2", "attack3")[number % 5], number >= 5)
        legend.append(series)
        places = np.unique(np.concatenate([np.linspace(0, len(frr) - 1, 200).astype(int)]))
        steps, before = [], None
        for place in places.tolist():
            at = (100 * float(frr[place]), 100 * float(far[place]))
            if before is not None:
                steps.append(f"{x(at[0]):.1f},{y(before):.1f}")
            steps.append(f"{x(at[0]):.1f},{y(at[1]):.1f}")
            before = at[1]
        dashed = " dashed" if series.dashed else ""
        told = _told([name])
        parts.append(
            Markup('<polyline class="line {}{}" points="{}"><title>{}</title></polyline>').format(
                series.colour, dashed, " ".join(steps), told
            )
        )
    return Chart(_svg(parts, caption), caption, tuple(legend))


def history_chart(losses: Sequence[float], held_out: Sequence[float | None], caption: str) -> Chart:
    """Loss by epoch, and where it is known the held-out images recognised, each on its own scale."""
    n = len(losses)
    finite = [loss for loss in losses if np.isfinite(loss)] or [1.0]
    counts = [count for count in held_out if count is not None and count >= 0]
    highest, most = max(finite) or 1.0, max(counts, default=1) or 1

    def x(k: float) -> float:
        return _LEFT + k / max(1, n - 1) * (_W - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _TOP + (1 - share / 1.05) * (_H - _TOP - _BOTTOM)

    ticks = [(f"{v:g}", y(v / highest)) for v in _ticks(highest)]
    parts = [_frame("epoch", "loss", [(str(v + 1), x(v)) for v in _ticks(n - 1)], ticks)]
    way = " ".join(f"{x(k):.1f},{y(loss / highest):.1f}" for k, loss in enumerate(losses) if np.isfinite(loss))
    parts.append(Markup('<polyline class="line ink" points="{}"/>').format(way))
    legend = [Series("loss", "ink")]
    known = [(k, count) for k, count in enumerate(held_out) if count is not None and count >= 0]
    if known:
        way = " ".join(f"{x(k):.1f},{y(count / most):.1f}" for k, count in known)
        parts.append(Markup('<polyline class="line valid" points="{}"/>').format(way))
        legend.append(Series(f"held-out images recognised (top: {most:g})", "valid"))
    width = (_W - _LEFT - _RIGHT) / max(1, n - 1)
    for k, loss in enumerate(losses):
        count = held_out[k] if k < len(held_out) else None
        told = [f"epoch {k + 1}", f"loss {loss:.4g}"] + ([] if count is None or count < 0 else [f"held-out: {count:g}"])
        parts.append(_hit(x(k) - width / 2, _TOP, width, _H - _TOP - _BOTTOM, told))
    return Chart(_svg(parts, caption), caption, tuple(legend))


# --- Pieces ----------------------------------------------------------------------------------------------------------


def _svg(parts: Sequence[Markup], caption: str, id: str = "") -> Markup:
    named = Markup(' id="{}"').format(id) if id else Markup("")
    head = Markup('<svg class="chart"{} viewBox="0 0 {} {}" role="img" aria-label="{}">').format(named, _W, _H, caption)
    return head + Markup("").join(parts) + Markup("</svg>")


def _frame(
    xlabel: str, ylabel: str, xticks: Sequence[tuple[str, float]], yticks: Sequence[tuple[str, float]]
) -> Markup:
    parts = []
    for text, at in yticks:
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, _W - _RIGHT, at, at)
        )
        parts.append(_text(_LEFT - 5, at + 4, text, "end"))
    base = _H - _BOTTOM
    for text, at in xticks:
        parts.append(
            Markup('<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(at, base, base + 4)
        )
        parts.append(_text(at, base + 16, text))
    parts.append(Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(_LEFT, _W - _RIGHT, base, base))
    if xlabel:
        parts.append(_text((_LEFT + _W - _RIGHT) / 2, _H - 6, xlabel))
    parts.append(
        Markup(
            '<text class="small" transform="translate(11 {:.0f}) rotate(-90)" text-anchor="middle">{}</text>'
        ).format((_TOP + base) / 2, ylabel)
    )
    return Markup("").join(parts)


def _text(x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    return Markup('<text class="small" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _hit(x: float, y: float, width: float, height: float, told: Sequence[str]) -> Markup:
    """An invisible field that says exact values when it is pointed at."""
    return Markup(
        '<rect class="hit" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(x, y, max(0.5, width), height, _told(told))


def _told(lines: Sequence[str]) -> Markup:
    return escape("\n".join(lines))


def _percent_ticks(y: Callable[[float], float]) -> list[tuple[str, float]]:
    return [(str(v), y(v / 100)) for v in (0, 20, 40, 60, 80, 100)]


def _by_place(marks: Mapping[str, int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, at in marks.items():
        found.setdefault(at, []).append(name)
    return found


def _share(share: float, low: float, high: float) -> str:
    return f"{100 * share:.2f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _ticks(highest: float, lowest: float = 0) -> list[float]:
    """About five round numbers from the lowest to the highest."""
    span = highest - lowest
    if not span > 0:
        return [lowest]
    rough = span / 5
    unit = 10 ** np.floor(np.log10(rough))
    step = float(unit * min((1, 2, 5, 10), key=lambda m: abs(m * unit - rough)))
    first = np.ceil(lowest / step) * step
    found = [round(float(v), 10) for v in np.arange(first, highest + step * 1e-6, step)]
    return [int(v) if v == int(v) else v for v in found]
