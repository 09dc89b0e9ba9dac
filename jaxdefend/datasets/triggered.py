"""Clean images with an inverted trigger on, as a poisoned set: what they show is another class than the target."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from jaxtyping import Int32, UInt8

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet, as_images, cut, described
from jaxdefend.datasets.inverted import InvertedTrigger, checked_target
from jaxdefend.datasets.pixels import Shape


@dataclass(frozen=True, eq=False, repr=False)
class Triggered:
    """Images with a trigger on, read slice by slice from the clean ones below; all have the target as their label.

    Attributes:
        rows: of the clean images, those that do not show the target itself.
    """

    trigger: InvertedTrigger
    clean: ImageSet
    rows: np.ndarray
    target: int

    @property
    def labels(self) -> Int32[np.ndarray, " n"]:
        return np.full(len(self), self.target, np.int32)

    @property
    def true_labels(self) -> Int32[np.ndarray, " n"] | None:
        """What the images show, where the clean ones have labels."""
        labels = self.clean.labels
        return None if labels is None else np.asarray(labels)[self.rows].astype(np.int32)

    @property
    def names(self) -> Sequence[str]:
        return [f"{self.clean.names[row]} with the trigger" for row in self.rows]

    @property
    def shape(self) -> Shape:
        return self.clean.shape

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, rows: int) -> UInt8[np.ndarray, "h w c"]: ...
    @overload
    def __getitem__(self, rows: slice) -> UInt8[np.ndarray, "n h w c"]: ...
    def __getitem__(self, rows: slice | int) -> np.ndarray:
        if not isinstance(rows, slice):
            row = range(len(self))[rows]
            return self[row : row + 1][0]
        wanted = self.rows[rows]
        if not len(wanted):
            return np.empty((0, *self.shape), np.uint8)
        first = wanted.min()
        return self.trigger(self.clean[slice(first, wanted.max() + 1)][wanted - first])

    def __repr__(self) -> str:
        return described(self)

    def chunks(self, size: int, rows: slice = slice(None)) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pixels and labels of `size` of the consecutive `rows` at a time."""
        for chunk in cut(len(self), size, rows):
            yield self[chunk], self.labels[chunk]


def with_trigger(trigger: InvertedTrigger, images: Any, target: int | None = None) -> Triggered:
    """A poisoned set for `measure` and `sweep`: the images of other classes than the target, with the trigger on.

    Args:
        images: clean ones: what `open_images` gives, an array of pixels 0–255, a pair of pixels and labels, …; they are
            fitted to the trigger's size. Unlabelled ones are all taken.
        target: the class that the trigger is for, if the trigger does not say it or means another one.
    Raises: InputError if there is no such trigger, the target is not known or no class, or all images show it.
    """
    if not isinstance(trigger, InvertedTrigger):
        raise InputError(f"trigger: {type(trigger).__name__}, expected an InvertedTrigger; a file is one by .load")
    target = trigger.target if target is None else checked_target(target)
    if target is None:
        raise InputError("the trigger does not say for which class it is: give the target")
    clean = as_images(images, trigger.pattern.shape)
    rows = np.arange(len(clean)) if clean.labels is None else np.flatnonzero(np.asarray(clean.labels) != target)
    if not len(rows):
        raise InputError(f"all {len(clean)} images show the target {target}: expected images of other classes")
    return Triggered(trigger, clean, rows, target)
