"""HDF5 files: arrays of numbers that lie in this very file. Links, which lead wherever they like, are refused."""

import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import h5py
import h5py.h5l
import numpy as np

from jaxdefend import InputError
from jaxdefend.datasets import chunks
from jaxdefend.datasets.images import Numbered
from jaxdefend.datasets.parts import Part, chosen, of_array, with_labels
from jaxdefend.datasets.pixels import MAX_IMAGE_BYTES, Layout, Pixels, Shape, checked, fitted, layout, numbers
from jaxdefend.datasets.sources import reason, shown
from jaxdefend.results.text import printable

# gzip compresses no better than 1,032 to 1; a file that claims more is unfinished, or means to fill the memory.
_MAX_PACKING = 1100
# An array that is read at once: labels, or 10,000,000 × 25 of them one-hot.
_MAX_ARRAY_BYTES = 2**28

_OF_A_NET = {"model_weights", "top_level_model_weights", "_layer_checkpoint_dependencies"}
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError, MemoryError, zlib.error)


def part(path: Path, labelled: bool, classes: int | None) -> Part:
    """The images of an HDF5 file, `data` and `label` or another pair of names.

    Raises: InputError if they are not there, not images, compressed in a way that cannot be read, or never filled in.
    """
    with opened(path) as file:
        keys = set(_keys(file))
        if keys & _OF_A_NET or "layer_names" in file.attrs:
            raise InputError(f"{shown(path)}: a net (Keras weights), expected images")
        images, labels = chosen(keys, shown(path), labelled)
        name = f"{shown(path)}: `{images}`"
        data = dataset(file, images, path)
        found = layout(data.shape, name)
        row_bytes = math.prod(data.shape[1:]) * data.dtype.itemsize
        if row_bytes > MAX_IMAGE_BYTES:
            raise InputError(f"{name}: an image takes {row_bytes:,} bytes, expected at most {MAX_IMAGE_BYTES:,}")
        chunks.check(data, name)
        names = Numbered(f"{printable(path)}[", found.n, "]")
        read = partial(_read, path, images, data.shape, found, chunks.cache_bytes(data))
        made = of_array(shown(path), found, names, row_bytes, read)
        if labels is None:
            return made
        return with_labels(
            made,
            array(file, labels, path),
            f"{shown(path)}: `{labels}`",
            classes,
            f"images of `{images}` {numbers(data.shape)}",
        )


def _read(
    path: Path,
    key: str,
    shape: tuple[int, ...],
    found: Layout,
    cache_bytes: int,
    slices: Iterable[range],
    wanted: Shape,
) -> Iterator[Pixels]:
    name = shown(path)
    with opened(path, cache_bytes) as file:
        data = dataset(file, key, path)
        if data.shape != shape:
            raise InputError(f"{name}: changed while it was in use: {numbers(data.shape)}, {numbers(shape)} before")
        for rows, values in chunks.rows_of(data, slices):
            yield fitted(found.images(checked(values, rows, name)), wanted)


@contextmanager
def opened(path: Path, cache_bytes: int = 0) -> Iterator[h5py.File]:
    """An HDF5 file to read, neither locked nor held. Raises: InputError for whatever goes wrong with it."""
    try:
        # A slot for every chunk in the cache, and many more: two chunks in one slot push each other out.
        with h5py.File(path, "r", locking=False, rdcc_nbytes=cache_bytes, rdcc_nslots=100_003) as file:
            yield file
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{shown(path)}: cannot be read as HDF5 ({reason(error)}); is it complete?") from error


def dataset(file: h5py.Group, key: str, path: Path) -> h5py.Dataset:
    """The numbers called `key`. Raises: InputError if they are not there, or not in this very file."""
    name = f"{shown(path)}: `{printable(key, 80)}`"
    links = file.id.links  # unlike the mapping, it follows no link
    if not links.exists(key.encode()):
        raise InputError(f"{name} is not there")
    found = file[key] if links.get_info(key.encode()).type == h5py.h5l.TYPE_HARD else None
    if found is None or (isinstance(found, h5py.Dataset) and (found.is_virtual or found.external)):
        raise InputError(f"{name} leads to another place or file, expected the numbers themselves")
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "biuf" or found.shape is None:
        what = f"of type {printable(found.dtype, 80)}" if isinstance(found, h5py.Dataset) else "not an array"
        raise InputError(f"{name} is {what}, expected an array of numbers")
    if found.nbytes > _MAX_PACKING * found.id.get_storage_size():
        raise InputError(f"{name} {numbers(found.shape)} was never filled in; is the file complete?")
    return found


def array(file: h5py.Group, key: str, path: Path) -> np.ndarray:
    """All the numbers called `key`. Raises: InputError as `dataset` and `chunks.check` do, or if they are too many."""
    name = f"{shown(path)}: `{printable(key, 80)}`"
    data = dataset(file, key, path)
    if data.nbytes > _MAX_ARRAY_BYTES:
        raise InputError(
            f"{name} is {numbers(data.shape)}, {data.nbytes:,} bytes; expected at most {_MAX_ARRAY_BYTES:,}"
        )
    chunks.check(data, name)
    if not data.shape or not data.size:
        return data[()]
    rows = range(data.shape[0])
    return next(chunks.rows_of(data, [rows]))[1]


def _keys(file: h5py.File) -> Iterator[str]:
    """The names at the root. Raises: InputError if there are very many."""
    for number, key in enumerate(file):
        if number > 1000:
            return
        yield key
