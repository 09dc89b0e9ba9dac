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

    def chunks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]: ...


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory, read like those of a file."""

    pixels: Num[np.ndarray, "n 55 47 3"]
    labels: Int[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.pixels[rows]

    def chunks(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield self.pixels[rows], None if self.labels is None else self.labels[rows]


def padded(images: ImageSet, size: int = BATCH) -> Iterator[Batch]:
    """All images in batches of `size`, the last one filled up with black images of label `PADDING`.

    Images without labels get label 0.
    """
    for pixels, labels in images.chunks(size):
        yield _padded(pixels, labels, size)


def sampled(images: ImageSet, most: int, size: int = BATCH) -> Iterator[Batch]:
    """At most `most` images, evenly spread, in batches like those of `padded`."""
    step = -(-len(images) // most)
    for start in range(0, len(images), size * step):
        rows = slice(start, min(start + size * step, len(images)), step)
        yield _padded(images[rows], None if images.labels is None else images.labels[rows], size)


def _padded(pixels: np.ndarray, labels: np.ndarray | None, size: int) -> Batch:
    labels = np.zeros(len(pixels), np.int32) if labels is None else labels.astype(np.int32)
    missing = size - len(pixels)
    return (
        np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0))),
        np.pad(labels, (0, missing), constant_values=PADDING),
    )
