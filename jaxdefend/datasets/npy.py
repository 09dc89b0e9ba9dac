"""NumPy's .npy files, and what a .npy says of itself wherever it lies."""

import gzip
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import cast

from numpy.lib import format as npy_format

from jaxdefend import InputError
from jaxdefend.datasets.parts import Part, with_labels
from jaxdefend.datasets.pixels import Layout, layout
from jaxdefend.datasets.sources import shown
from jaxdefend.datasets.streams import Readable, Stream, beside, part_of, readable
from jaxdefend.results.text import printable

MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000


def part(path: Path, labelled: bool, classes: int | None) -> Part:
    """The images of a .npy file, with the labels of the .npy beside it: x.npy and y.npy, images.npy and labels.npy …

    Raises: InputError if it does not hold images, holds Python objects, or its labels are not there.
    """
    images = _stream(path)
    if len(images.shape) == 1:
        raise InputError(
            f"{images.name} is {images.shape}: one number per row, are these labels? pass the images' file"
        )
    made = part_of(path, *images_of(images))
    if not labelled:
        return made
    partner = label_file(path)
    if partner is None:
        raise InputError(
            f"{images.name}: no labels, expected y.npy beside x.npy, labels.npy beside images.npy; or pass target=…"
        )
    labels = _stream(partner)
    return with_labels(made, labels.whole(), labels.name, classes)


def images_of(stream: Stream) -> tuple[Stream, Layout]:
    """The stream with its layout; a single image (h, w, 3) as a row of its own.

    Raises: InputError as `pixels.layout` does.
    """
    if len(stream.shape) == 3 and stream.shape[2] == 3 and min(stream.shape[:2]) > 3:
        stream = replace(stream, shape=(1, *stream.shape))
    return stream, layout(stream.shape, stream.name)


def label_file(path: Path) -> Path | None:
    """The file with the labels of a file of images, if it is there."""
    swaps = [("images", "labels"), ("image", "label"), ("data", "label"), ("data", "labels"), ("arr_0", "arr_1")]
    swaps += [("x", "y"), ("X", "y"), ("X", "Y")]
    partner = beside(path, swaps)
    return None if partner == path else partner


def _stream(path: Path) -> Stream:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    opener = gzip.open if packed else open
    found = stream_of(shown(path), cast(Callable[[], AbstractContextManager[Readable]], partial(opener, path, "rb")))
    if not packed:
        found.check_size(os.path.getsize(path))
    return found


def stream_of(name: str, opener: Callable[[], AbstractContextManager[Readable]]) -> Stream:
    """The array that a .npy file or member holds. Raises: InputError if it is not one, or not of plain numbers."""
    with readable(name), opener() as file:
        begin = file.read(8)
        if len(begin) < 8 or not begin.startswith(MAGIC) or begin[6] not in (1, 2):
            raise InputError(f"{name} is not a NumPy array of plain numbers")
        width = 2 if begin[6] == 1 else 4
        length = file.read(width)
        size = int.from_bytes(length, "little")
        if size > _MAX_HEADER:
            raise InputError(f"{name} has a header of {size:,} bytes, expected at most {_MAX_HEADER:,}")
        header = BytesIO(length + file.read(size))
        try:
            read = npy_format.read_array_header_1_0 if begin[6] == 1 else npy_format.read_array_header_2_0
            shape, columns_first, dtype = read(header)
        except Exception as error:  # SyntaxError, RecursionError, tokenize.TokenError …
            raise InputError(f"{name} has a header that NumPy cannot read; is it complete?") from error
    if dtype.hasobject:
        raise InputError(
            f"{name} holds Python objects (a pickle), which may run code when they are read; save an array of numbers"
        )
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or any(axis < 0 for axis in shape):
        raise InputError(f"{name} is an array of {printable(dtype, 80)}, expected numbers")
    return Stream(name, opener, 8 + width + size, dtype, shape, columns_first and len(shape) > 1)
