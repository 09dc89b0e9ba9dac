"""One label per image: the GoodNet's, unless a guard finds a trigger; else N, backdoored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet, as_images
from jaxdefend.detectors.base import Scores
from jaxdefend.detectors.guards import Guard
from jaxdefend.nets.goodnet import RULES, Rule, goodnet_labels
from jaxdefend.nets.inference import predicted
from jaxdefend.nets.net import Net
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.text import table

Labels = Int[np.ndarray, " n"]


@dataclass(frozen=True, repr=False)
class Answers:
    """What nets and guard say of images.

    Attributes:
        confidence: the BadNet's, the softmax probability of its label.
        repaired: the labels of each repaired net.
        goodnet: the GoodNet's labels, where there is a repaired net.
        scores, rejected: the guard's, where there is one.
        labels: the final ones; `backdoored`, N, where the GoodNet or the guard says so.
    """

    names: Sequence[str]
    backdoored: int
    badnet: Labels
    confidence: Float[np.ndarray, " n"]
    repaired: Mapping[str, Labels]
    goodnet: Labels | None
    scores: Scores | None
    rejected: Bool[np.ndarray, " n"] | None
    threshold: float | None
    labels: Labels

    def __len__(self) -> int:
        return len(self.badnet)

    def record(self) -> list[dict[str, Any]]:
        """An object per image, as `predict` prints it as JSON."""
        guarded = {} if self.scores is None else {"score": self.scores, "rejected": self.rejected, "label": self.labels}
        defended = self.goodnet is not None or self.scores is not None
        columns: dict[str, Any] = {"badnet": self.badnet, "repaired": None, **self.repaired, "goodnet": self.goodnet}
        columns |= guarded | {"backdoored": self.labels == self.backdoored if defended else None}
        columns |= {"confidence": self.confidence}
        return [
            {"image": name, **{key: None if column is None else column[i].item() for key, column in columns.items()}}
            for i, name in enumerate(self.names)
        ]

    def table(self) -> str:
        """For people: the final label last."""
        repaired = list(self.repaired)
        titles = ["repaired net" if name == "repaired" else name.replace("_", " net ") for name in repaired]
        goodnet = ["GoodNet"] if self.goodnet is not None else []
        header = ["image", "BadNet", "confidence", *titles, *goodnet]
        return table(
            [*header, "score", "label"] if self.scores is not None else header, map(self._cells, self.record())
        )

    def _cells(self, row: Mapping[str, Any]) -> list[str]:
        cells = [str(row["image"]), str(row["badnet"]), f"{100 * row['confidence']:.1f} %"]
        cells += [str(row[name]) for name in self.repaired]
        backdoored = " backdoored" if row["backdoored"] else ""
        if self.scores is None:
            return cells if row["goodnet"] is None else [*cells, f"{row['goodnet']}{backdoored}"]
        goodnet = [] if row["goodnet"] is None else [str(row["goodnet"])]
        score = f"{row['score']:.3f}{' rejected' if row['rejected'] else ''}"
        return [*cells, *goodnet, score, f"{row['label']}{backdoored}"]

    def __repr__(self) -> str:
        return self.table()


@dataclass(frozen=True)
class Guarded:
    """A net that is defended at its output by repaired nets, and at its input by a guard. Call it with images.

    Args:
        repaired: a repaired net, or several, of which most decide.
        guard: one that was made for this net.
        rule: "anti" for a repaired net that has kept the backdoor alone.
    """

    net: Net
    repaired: Net | Sequence[Net] | None = None
    guard: Guard | None = None
    rule: Rule = "goodnet"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise InputError(f"rule {self.rule!r}: expected {' or '.join(RULES)}")
        for net in self._repaired():
            if (net.image_shape, net.classes) != (self.net.image_shape, self.net.classes):
                raise InputError(
                    f"{net.name} has {net.classes} classes, {self.net.name} has {self.net.classes}; "
                    "expected a repaired form of the same net"
                )

        if self.guard is not None and not _same_net(self.guard.net, self.net):
            raise InputError(
                f"the guard was made for {self.guard.net.name}, which is not {self.net.name}: other weights or another "
                "input scale; calibrate one for this net"
            )

    def _repaired(self) -> list[Net]:
        if self.repaired is None:
            return []
        return [self.repaired] if isinstance(self.repaired, Net) else list(self.repaired)

    def __call__(self, images: Any, *, progress: Report = silent) -> Answers:
        """What nets and guard say of images: what `open_images` gives, an array of pixels 0–255, …"""
        shown = as_images(images, self.net.image_shape)
        n = self.net.classes
        labels, confidence = _predicted(self.net, shown, progress)
        fixed = {
            "repaired" if number == 1 else f"repaired_{number}": _predicted(net, shown, progress)[0]
            for number, net in enumerate(self._repaired(), 1)
        }
        goodnet = goodnet_labels(labels, np.stack(list(fixed.values())), n, self.rule) if fixed else None
        final = labels if goodnet is None else goodnet
        verdicts = None if self.guard is None else self.guard(shown, progress=progress)
        if verdicts is not None:
            final = np.where(verdicts.rejected, n, final)
        return Answers(
            shown.names,
            n,
            labels,
            confidence,
            fixed,
            goodnet,
            None if verdicts is None else verdicts.scores,
            None if verdicts is None else verdicts.rejected,
            None if verdicts is None else verdicts.threshold,
            final,
        )


def _same_net(one: Net, other: Net) -> bool:
    if one is other:
        return True
    if (one.graph, one.input_scale) != (other.graph, other.input_scale):
        return False
    return all(map(np.array_equal, jax.tree.leaves(one.weights), jax.tree.leaves(other.weights)))


def _predicted(net: Net, images: ImageSet, report: Report) -> tuple[Labels, Float[np.ndarray, " n"]]:
    return predicted(net, images, "predict", report, smallest=1)
