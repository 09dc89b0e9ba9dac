"""IDX files, as MNIST comes in: images and labels in two files, often packed with gzip."""

import gzip
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from jaxdefend import InputError
from jaxdefend.datasets.parts import Part, with_labels
from jaxdefend.datasets.pixels import layout, numbers
from jaxdefend.datasets.sources import shown
from jaxdefend.datasets.streams import Readable, Stream, part_of, readable

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def begins(head: bytes) -> bool:
    """Whether a file that begins like this is IDX."""
    return len(head) >= 8 and head[:2] == b"\0\0" and head[2] in _TYPES and 1 <= head[3] <= 4


def part(path: Path, labelled: bool, classes: int | None) -> Part:
    """The images of an IDX file, `…-images-idx3-ubyte`, with the labels beside it, `…-labels-idx1-ubyte`.

    Raises: InputError if it does not hold images, ends too early, or its labels are not there.
    """
    images = _stream(path)
    if len(images.shape) == 1:
        raise InputError(f"{images.name} holds labels, {numbers(images.shape)}; pass the file of the images")
    made = part_of(path, images, layout(images.shape, images.name))
    if not labelled:
        return made
    partner = label_file(path)
    if partner is None:
        raise InputError(
            f"{images.name}: no labels, expected …-labels-idx1-ubyte beside …-images-idx3-ubyte; or pass target=…"
        )
    labels = _stream(partner)
    return with_labels(made, labels.whole(), labels.name, classes)


def label_file(path: Path) -> Path | None:
    """The file with the labels of a file of images, packed or not, if it is there."""
    before, found, after = path.name.partition("images")
    if not found:
        return None
    name = before + "labels" + after.replace("idx3", "idx1").replace("idx4", "idx1")
    plain = name.removesuffix(".gz")
    candidates = (path.with_name(one) for one in dict.fromkeys((name, plain, f"{plain}.gz")))
    return next((one for one in candidates if os.path.isfile(one)), None)


def _stream(path: Path) -> Stream:
    name = shown(path)
    with readable(name), open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    opener = cast(Callable[[], AbstractContextManager[Readable]], partial(gzip.open if packed else open, path, "rb"))
    with readable(name), opener() as file:
        head = file.read(4)
        if not begins(head + b"    "):
            raise InputError(f"{name} is not an IDX file")
        axes = file.read(4 * head[3])
        if len(axes) < 4 * head[3]:
            raise InputError(f"{name} ends in its header; is it complete?")
    shape = tuple(int.from_bytes(axes[i : i + 4], "big") for i in range(0, len(axes), 4))
    found = Stream(name, opener, 4 + len(axes), np.dtype(_TYPES[head[2]]), shape)
    if not packed:
        found.check_size(os.path.getsize(path))
    return found
