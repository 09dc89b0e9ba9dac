"""One file, or the pictures of one folder: what every format gives to `open_images`."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int32

from jaxdefend import InputError
from jaxdefend.datasets.labels import whole_labels
from jaxdefend.datasets.pixels import Layout, Pixels, Shape, check_enlargement, dimensions
from jaxdefend.results.text import printable

# 67 images of float64: larger pieces are no faster, and the sweep's memory is for the net.
PIECE_BYTES = 4 * 2**20

# What people call arrays of images and of labels; the first pair that is there; small and capital letters alike.
PAIRS = (
    ("data", "label"),
    ("data", "labels"),
    ("x", "y"),
    ("images", "labels"),
    ("images", "label"),
    ("image", "label"),
    ("x_test", "y_test"),
    ("test_images", "test_labels"),
    ("arr_0", "arr_1"),
    ("x_train", "y_train"),
    ("train_images", "train_labels"),
)


@dataclass(frozen=True, eq=False)
class Part:
    """Images that are read in one way.

    Attributes:
        title: what the user calls them.
        shape: of the first image.
        notes: what the user should be lines, whatever shape is asked for.
        rows_at_once: how many rows `read` should be asked for at once.
        read: gives one array for each range of rows, in ascending order, at the shape asked for.
        note_of: what the user should be lines if they are read at this shape.
    """

    title: str
    names: Sequence[str]
    labels: Int32[np.ndarray, " n"] | None
    shape: Shape
    notes: tuple[str, ...]
    rows_at_once: int
    read: Callable[[Iterable[range], Shape], Iterator[Pixels]]
    note_of: Callable[[Shape], tuple[str, ...]]


def of_array(
    title: str,
    found: Layout,
    names: Sequence[str],
    row_bytes: int,
    read: Callable[[Iterable[range], Shape], Iterator[Pixels]],
    notes: tuple[str, ...] = (),
) -> Part:
    """The part that an array in a file makes, still without labels."""

    def note_of(shape: Shape) -> tuple[str, ...]:
        check_enlargement(found.shape[:2], shape, title)
        lines = []
        if found.shape[:2] != shape[:2]:
            turned = "; are rows and columns exchanged?" if found.shape[1::-1] == shape[:2] else ""
            native, wanted = dimensions(found.shape[:2]), dimensions(shape[:2])
            lines.append(f"{title}: images are {native} and will be resized to {wanted}{turned}")
        if found.shape[2] != shape[2]:
            kinds = ("in colour", "grey") if shape[2] == 1 else ("grey", "RGB")
            lines.append(f"{title}: images are {kinds[0]} and will be converted to {kinds[1]}")
        return tuple(lines)

    return Part(title, names, None, found.shape, notes, max(1, PIECE_BYTES // row_bytes), read, note_of)


def with_labels(part: Part, values: np.ndarray, name: str, classes: int | None, of: str = "images") -> Part:
    """The part with the labels of an array that was beside its images."""
    labels, note = whole_labels(values, len(part.names), name, part.names, classes, of)
    return replace(part, labels=labels, notes=part.notes + ((note,) if note else ()))


def chosen(keys: Set[str], name: str, labelled: bool) -> tuple[str, str | None]:
    """The names of the images and, if they are wanted, of their labels.

    Args:
        keys: the names in the file.
        name: the file, for the error.
    Raises: InputError if one of the two is not there.
    """
    known = {key.lower(): key for key in sorted(keys, reverse=True)}
    there = printable(", ".join(sorted(keys)[:10]), 150) or "nothing"
    for images, labels in PAIRS:
        if images in known and (labels in known or not labelled):
            return known[images], known[labels] if labelled else None
    for images, labels in PAIRS:
        if images in known:
            raise InputError(
                f"{name}: no `{labels}` for the images in `{known[images]}`; the file holds {there}; "
                "pass target=… if all have one label"
            )
    raise InputError(f"{name}: no `data`, expected `data` and `label`, or `x` and `y`; the file holds {there}")
