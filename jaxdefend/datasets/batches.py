"""Batches of one size, so that one compiled shape serves every data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32, Num

# Enough to keep two cores busy: 256 images are 2 MB as uint8, and 47 MB behind conv_1.
BATCH = 256
PADDING = -1

Batch = tuple[Num[np.ndarray, "b 55 47 3"], Int32[np.ndarray, " b"]]


@runtime_checkable
class ImageSet(Protocol):
    """What can be read slice by slice: images of files and folders."""

    @property
    def labels(self) -> np.ndarray | None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...

    def chunks(self, size: int, rows: slice = slice(None)) -> Iterator[tuple[np.ndarray, np.ndarray | None]]: ...


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory, read like those of a file."""

    pixels: Num[np.ndarray, "n 55 47 3"]
    labels: Int[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.pixels[rows]

    def chunks(self, size: int, rows: slice = slice(None)) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for chunk in cut(len(self), size, rows):
            yield self.pixels[chunk], None if self.labels is None else self.labels[chunk]


def cut(n: int, size: int, rows: slice) -> list[slice]:
    """The consecutive `rows` of `n` in slices of `size`."""
    first, last, _ = rows.indices(n)
    return [slice(start, min(start + size, last)) for start in range(first, last, size)]


def padded(images: ImageSet, size: int = BATCH, rows: slice = slice(None)) -> Iterator[Batch]:
    """The images, or the consecutive `rows` of them, in batches of `size`.

    The last one is filled up with black images of label `PADDING`. Images without labels get label 0.
    """
    for pixels, labels in images.chunks(size, rows):
        yield _padded(pixels, labels, size)


def sampled(images: ImageSet, most: int, size: int = BATCH, rows: slice = slice(None)) -> Iterator[Batch]:
    """At most `most` images, evenly spread over the `rows`, in batches like those of `padded`."""
    first, last, _ = rows.indices(len(images))
    step = -(-(last - first) // most)
    for start in range(first, last, size * step):
        chosen = slice(start, min(start + size * step, last), step)
        yield _padded(images[chosen], None if images.labels is None else images.labels[chosen], size)


def _padded(pixels: np.ndarray, labels: np.ndarray | None, size: int) -> Batch:
    labels = np.zeros(len(pixels), np.int32) if labels is None else labels.astype(np.int32)
    missing = size - len(pixels)
    return (
        np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0))),
        np.pad(labels, (0, missing), constant_values=PADDING),
    )
