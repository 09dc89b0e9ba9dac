"""Which classes are mistaken for which, and what poisoned images are called."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from jaxdefend import InputError
from jaxdefend.reports.samples import counted
from jaxdefend.results.rates import Rate
from jaxdefend.results.text import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = "clean"


@dataclass(frozen=True)
class Mistaken:
    """A class of clean images that are often given another label; `answers` are those, the most frequent first."""

    label: int
    wrong: Rate
    answers: tuple[tuple[int, int], ...]


@dataclass(frozen=True, repr=False)
class Confusions:
    """Counts of labels and answers.

    Attributes:
        net: its name.
        n: images by set, "clean" first.
        mistaken: the classes of clean images, those with the most wrong answers first.
        wrong_answers: what clean images are wrongly called: (label, how often), the most frequent first.
        attacked: by poisoned set, what its images are called: (label, how often), the most frequent first.
        targets: by poisoned set, the labels that it asks for, where that is one.
    """

    net: str
    n: Mapping[str, int]
    mistaken: tuple[Mistaken, ...]
    wrong_answers: tuple[tuple[int, int], ...]
    attacked: Mapping[str, tuple[tuple[int, int], ...]]
    targets: Mapping[str, int | None]

    def record(self) -> dict[str, Any]:
        """What confusions.json holds."""
        return {
            "n": dict(self.n),
            "mistaken": [
                {"label": of.label, "n": of.wrong.n, "wrong": of.wrong.count, "answers": of.answers}
                for of in self.mistaken
            ],
            "wrong_answers": self.wrong_answers,
            "attacked": dict(self.attacked),
            "targets": dict(self.targets),
        }

    def columns(self) -> dict[str, Sequence]:
        """A row per set, label and answer that was found: of clean images the wrong ones, of poisoned ones all."""
        rows = [(CLEAN, of.label, answer, count) for of in self.mistaken for answer, count in of.answers]
        rows += [
            (name, self.targets[name], answer, count)
            for name, found in self.attacked.items()
            for answer, count in found
        ]
        columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
        return dict(zip(("set", "label", "answer", "count"), columns, strict=True))

    def table(self, limit: int = 10) -> str:
        """For people: the classes most often mistaken, then the answers that poisoned images get."""
        rows = [
            [str(of.label), f"{of.wrong.count} of {of.wrong.n}", _counted(of.answers[:3])]
            for of in self.mistaken[:limit]
        ]
        parts = [table(["class", "wrong", "called"], rows)]
        for name, found in self.attacked.items():
            shares = [[str(label), str(count), f"{100 * count / self.n[name]:.2f} %"] for label, count in found[:limit]]
            parts.append(table([f"{name}: called", "images", "share"], shares))
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        return self.table()

    def figure(self, title: str = "", limit: int = 10) -> "Figure":
        """Bars: classes most often misclassified, the most frequent wrong answers, and what poisoned images get."""
        from matplotlib.figure import Figure

        from jaxdefend.results.plots import ACCURACY, ATTACK, title_above

        panels: list[tuple[str, list[tuple[str, int]], str]] = [
            (
                "clean: classes most often misclassified",
                [(str(of.label), of.wrong.count) for of in self.mistaken[:limit]],
                ACCURACY[0],
            ),
            (
                "clean: most frequent wrong answers",
                [(str(label), count) for label, count in self.wrong_answers[:limit]],
                ACCURACY[1],
            ),
        ]
        for (name, found), colour in zip(self.attacked.items(), ATTACK * 9, strict=False):
            panels.append((f"poisoned {name}: answers", [(str(label), n) for label, n in found[:limit]], colour))
        columns = 2
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(8.4, 0.5 + 2.5 * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        for axes, (heading, bars, colour) in zip(places, panels, strict=False):
            axes.set_title(heading, loc="left", fontsize="small")
            if not bars:
                axes.set_axis_off()
                axes.annotate("none", (0.5, 0.5), xycoords="axes fraction", ha="center")
                continue
            axes.bar([label for label, _ in bars], [count for _, count in bars], color=colour)
            axes.set_xlim(-0.6, max(4, len(bars)) - 0.4)
            axes.set(ylabel="images", xlabel="class")
            axes.tick_params(labelsize="x-small")
            axes.spines[["top", "right"]].set_visible(False)
            axes.yaxis.get_major_locator().set_params(integer=True)
            for place, (_, count) in enumerate(bars):
                axes.annotate(f"{count:,}", (place, count), ha="center", va="bottom", fontsize="x-small")
            axes.margins(y=0.15)
        told = title or f"{self.net}: what is called what; images: {counted(self.n)}"
        title_above(figure, told)
        return figure


def _counted(answers: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{label} ({count})" if count > 1 else str(label) for label, count in answers)


def confuse(
    net: str,
    answers: Mapping[str, Int[np.ndarray, " n"]],
    labels: Mapping[str, Int[np.ndarray, " n"]],
) -> Confusions:
    """What is called what.

    Args:
        net: its name, for titles.
        answers: the net's labels of the images of each set, one of them "clean".
        labels: the true ones of the clean images; the attacker's target for the images of each poisoned set.
    Raises: InputError if there is no set "clean", or numbers do not fit.
    """
    if CLEAN not in answers or set(answers) != set(labels):
        raise InputError(
            f"answers for {sorted(answers)} and labels for {sorted(labels)}; expected 'clean' and the same"
        )
    for name, found in answers.items():
        if len(found) != len(labels[name]):
            raise InputError(f"{name}: {len(found)} answers and {len(labels[name])} labels")
    found, true = np.asarray(answers[CLEAN]), np.asarray(labels[CLEAN])
    wrong = found != true
    sizes = Counter(true.tolist())
    pairs: dict[int, Counter[int]] = {}
    for label, answer in zip(true[wrong].tolist(), found[wrong].tolist(), strict=True):
        pairs.setdefault(label, Counter())[answer] += 1
    mistaken = sorted(
        (Mistaken(label, Rate(counts.total(), sizes[label]), _ranked(counts)) for label, counts in pairs.items()),
        key=lambda of: (-of.wrong.count, -of.wrong.share, of.label),
    )
    poisoned = [name for name in answers if name != CLEAN]
    return Confusions(
        net,
        {name: len(answers[name]) for name in (CLEAN, *poisoned)},
        tuple(mistaken),
        _ranked(Counter(found[wrong].tolist())),
        {name: _ranked(Counter(np.asarray(answers[name]).tolist())) for name in poisoned},
        {name: _only(labels[name]) for name in poisoned},
    )


def _ranked(counts: Counter[int]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _only(labels: Int[np.ndarray, " n"]) -> int | None:
    found = np.unique(labels)
    return int(found[0]) if len(found) == 1 else None
