"""Single images worth looking at: where the attack succeeded, where the net is wrong, what a defense gets wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxdefend import InputError
from jaxdefend.datasets.images import as_images, labelled, poisoned_sets
from jaxdefend.detectors.answering import Answers
from jaxdefend.detectors.evaluation import CLEAN, Evaluation
from jaxdefend.nets.net import Net
from jaxdefend.reports.samples import plain, show
from jaxdefend.results.records import replacing
from jaxdefend.results.text import printable, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """One image of a gallery.

    Attributes:
        set: the set that it comes from, `row` its place there and `name` what it is called.
        label: the true one of a clean image, the attacker's target of a poisoned one.
        answer: the BadNet's, with its softmax probability.
        goodnet: the GoodNet's answer, where there is one.
        score: the guard's, where it has seen the image.
    """

    pixels: UInt8[np.ndarray, "h w c"]
    set: str
    row: int
    name: str
    label: int
    answer: int
    confidence: float
    goodnet: int | None = None
    score: float | None = None

    def record(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "pixels"}

    def caption(self) -> str:
        goodnet = "" if self.goodnet is None else f", GoodNet {self.goodnet}"
        score = "" if self.score is None else f", score {self.score:.2f}"
        return f"{self.label} → {self.answer} ({100 * self.confidence:.0f} %){goodnet}{score}"


@dataclass(frozen=True)
class Group:
    """Images of one kind, the most confident answers first; `total` is how many there are of `n` images."""

    title: str
    total: int
    n: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, repr=False)
class Gallery:
    """Groups of images; `backdoored` is the answer N."""

    net: str
    backdoored: int
    groups: tuple[Group, ...]

    def record(self) -> dict[str, Any]:
        """What a report holds of it, without the pixels."""
        return {
            "backdoored": self.backdoored,
            "groups": [
                {
                    "title": group.title,
                    "total": group.total,
                    "n": group.n,
                    "images": [picture.record() for picture in group.pictures],
                }
                for group in self.groups
            ],
        }

    def table(self) -> str:
        rows = [[group.title, f"{group.total:,}", f"{group.n:,}"] for group in self.groups]
        return table(["images", "found", "of"], rows)

    def __repr__(self) -> str:
        return self.table()

    def figure(self, title: str = "") -> "Figure":
        """Every group in rows of eight: true label → answer, its confidence."""
        from matplotlib.figure import Figure

        shown = [group for group in self.groups if group.pictures]
        if not shown:
            raise InputError("no images of any kind were found: there is nothing to draw")
        lines = [
            (f"{group.title}: {group.total:,} of {group.n:,}" if start == 0 else "", group.pictures[start : start + 8])
            for group in shown
            for start in range(0, len(group.pictures), 8)
        ]
        figure = Figure(figsize=(9.6, 0.4 + 1.9 * len(lines)), layout="constrained")
        for rows, (heading, pictures) in zip(figure.subfigures(len(lines), 1, squeeze=False)[:, 0], lines, strict=True):
            if heading:
                rows.suptitle(heading, x=0.01, ha="left", fontsize="small", fontweight="bold")
            for number, axes in enumerate(rows.subplots(1, 8)):
                axes.set_axis_off()
                if number < len(pictures):
                    picture = pictures[number]
                    show(axes, picture.pixels)
                    guarded = "" if picture.goodnet is None else f"\nGoodNet {picture.goodnet}"
                    told = f"{picture.label} → {picture.answer}\n{100 * picture.confidence:.0f} %{guarded}"
                    axes.set_title(told, fontsize=6, pad=2)
        told = title or f"{self.net}: true label or target → answer, confidence; {self.backdoored} means backdoored"
        figure.suptitle(told, x=0.01, ha="left", fontsize="medium")
        return figure

    def write(self, folder: Path) -> list[Path]:
        """A PNG per image, named by group, label and answer. Raises: InputError if they cannot be written."""
        from PIL import Image

        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for number, group in enumerate(self.groups, 1):
            slug = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in group.title)[:60]
            for place, picture in enumerate(group.pictures, 1):
                file = folder / f"{number}_{slug}_{place:03}_{picture.label}_as_{picture.answer}.png"
                pixels = picture.pixels[..., 0] if picture.pixels.shape[-1] == 1 else picture.pixels
                with replacing(file) as temporary:
                    Image.fromarray(pixels).save(temporary, format="png")
                written.append(file)
        return written


def collect(
    net: Net,
    clean: Any,
    answers: Mapping[str, Answers],
    poisoned: Mapping[str, Any] | None = None,
    *,
    evaluation: Evaluation | None = None,
    n: int = 12,
) -> Gallery:
    """Images on which something went wrong, or went the attacker's way.

    Args:
        clean: labelled clean images; `poisoned` sets by name, labelled with the target.
        answers: by set, "clean" too: what `Guarded` says of the same images.
        evaluation: of a guard, on these images or some of them: what it rejects and what it lets pass.
        n: images of each group, the most confident answers first.
    """
    sets = {CLEAN: labelled(as_images(clean, net.image_shape), classes=net.classes)}
    sets |= poisoned_sets(poisoned, net.image_shape, net.classes)
    if set(answers) != set(sets):
        raise InputError(f"answers for the sets {sorted(answers)}, expected {sorted(sets)}")

    def group(title: str, name: str, where: Bool[np.ndarray, " n"], by: Float[np.ndarray, " n"] | None = None) -> Group:
        found, images = answers[name], sets[name]
        rows = np.flatnonzero(where)
        rows = rows[np.argsort(-(found.confidence if by is None else by)[rows], kind="stable")]
        labels = np.asarray(images.labels)
        pictures = tuple(
            Picture(
                plain(images[row : row + 1])[0],
                name,
                int(row),
                printable(images.names[row], 120),
                int(labels[row]),
                int(found.badnet[row]),
                float(found.confidence[row]),
                None if found.goodnet is None else int(found.goodnet[row]),
            )
            for row in rows[:n].tolist()
        )
        return Group(title, len(rows), len(images), pictures)

    groups = []
    for name in sets:
        if name != CLEAN:
            hit = answers[name].badnet == np.asarray(sets[name].labels)
            groups.append(group(f"the attack succeeded: {name}", name, hit))
    wrong = answers[CLEAN].badnet != np.asarray(sets[CLEAN].labels)
    groups.append(group("clean images misclassified", CLEAN, wrong))
    if answers[CLEAN].goodnet is not None:
        flagged = answers[CLEAN].goodnet == net.classes
        groups.append(group("clean images that the GoodNet calls backdoored", CLEAN, flagged))
        for name in sets:
            if name != CLEAN:
                passed = answers[name].goodnet == np.asarray(sets[name].labels)
                groups.append(group(f"poisoned images that pass the GoodNet: {name}", name, passed))
    if evaluation is not None:
        groups += _of_guard(evaluation, n)
    return Gallery(net.name, net.classes, tuple(groups))


def _of_guard(evaluation: Evaluation, n: int) -> list[Group]:
    """Clean images that the guard rejects, poisoned ones that it lets pass with the attacker's label."""
    guard = evaluation.guard
    groups = []
    for name, images in evaluation.sets.items():
        scores = evaluation.scores[name][guard.default]
        if name == CLEAN:
            where, title, order = scores > guard.threshold, "clean images that the guard rejects", -scores
        else:
            where = (scores <= guard.threshold) & evaluation.correct[name]
            title, order = f"poisoned images that pass the guard: {name}", scores
        rows = np.flatnonzero(where)
        rows = rows[np.argsort(order[rows], kind="stable")]
        groups.append(Group(title, len(rows), len(images), tuple(_guarded(evaluation, name, rows[:n]))))
    return groups


def _guarded(evaluation: Evaluation, name: str, rows: Int[np.ndarray, " k"]) -> Sequence[Picture]:
    from jaxdefend.nets.inference import labels_and_confidences

    if not len(rows):
        return []
    images, net = evaluation.sets[name], evaluation.guard.net
    pixels = np.concatenate([images[row : row + 1] for row in rows.tolist()])
    found, confidence = map(np.asarray, labels_and_confidences(net, pixels))
    labels, scores = np.asarray(images.labels), evaluation.scores[name][evaluation.guard.default]
    return [
        Picture(
            plain(pixel),
            name,
            row,
            printable(images.names[row], 120),
            int(labels[row]),
            int(answer),
            float(share),
            score=float(scores[row]),
        )
        for pixel, row, answer, share in zip(pixels, rows.tolist(), found, confidence, strict=True)
    ]
