"""Batches of one size, so that one compiled shape serves every data set."""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int32, Num

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.devices import batch_size, own_rows
from jaxdefend.results.progress import Report, silent, tracked

# Enough to keep two cores busy: 256 images of DeepID are 2 MB as uint8, and 47 MB behind conv_1.
BATCH = 256
PADDING = -1

# Pixels 0–255 and labels, each batch of the same size; labels below 0 are padding.
Batch = tuple[Num[np.ndarray, "b h w c"], Int32[np.ndarray, " b"]]
Batches = Iterable[Batch]


def batches(images: ImageSet, title: str = "images", report: Report = silent, smallest: int = BATCH) -> Iterator[Batch]:
    """This process's part of the images, in batches that suit its devices; few images make one of `smallest`."""
    rows = own_rows(len(images))
    n = rows.stop - rows.start
    # A few compiled sizes, powers of two, serve any number of images.
    size = min(batch_size(), max(smallest, 1 << (n - 1).bit_length()))
    return tracked(padded(images, size, rows), title, n, report)


def padded(images: ImageSet, size: int = BATCH, rows: slice = slice(None)) -> Iterator[Batch]:
    """The images, or the consecutive `rows` of them, in batches of `size`.

    The last one is filled up with black images of label `PADDING`. Images without labels get label 0.
    """
    for pixels, labels in images.chunks(size, rows):
        yield _padded(pixels, labels, size)


def sampled(images: ImageSet, limit: int, size: int = BATCH, rows: slice = slice(None)) -> Iterator[Batch]:
    """At most `limit` images, evenly spread over the `rows`, in batches like those of `padded`."""
    first, last, _ = rows.indices(len(images))
    step = -(-(last - first) // limit)
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
