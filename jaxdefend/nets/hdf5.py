"""HDF5 files of strangers: hard links, sound names and plain arrays alone, and no more memory than was asked for."""

import math
import zlib
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from jaxdefend import InputError
from jaxdefend.nets.keras_layers import shown

# VGG16, at 138 million numbers in all and 103 million in its largest array, is among the largest nets for pictures.
ARRAY_LIMIT = 512 * 2**20
NAMES_LIMIT = 10_000
_CHUNKS_LIMIT = 100_000

_DEFLATE, _SHUFFLE, _CHECKSUM = 1, 2, 3
_FILTERS = {4: "szip", 5: "nbit", 6: "scale-offset", 32000: "lzf", 32001: "blosc", 32008: "bitshuffle", 32015: "zstd"}


def child(group: Any, path: str) -> Any:
    """What lies at `path`, by hard links alone. Raises: InputError if nothing does, or a link."""
    for name in path.split("/"):
        link = _link(group, name)
        if link is None:
            raise InputError(f"{shown(path)} is named but not there")
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{shown(path)} is a link, which is not followed; save the model anew")
        group = group[name]
    return group


def _link(group: Any, name: str) -> Any:
    # Asking for all names would be slow where there are many.
    if not name or name == "." or not isinstance(group, h5py.Group):
        return None
    try:
        return group.get(name, getlink=True)
    except (KeyError, ValueError, RuntimeError):
        return None


def has(group: h5py.Group, name: str) -> bool:
    """Whether something, or a link, is called so."""
    return _link(group, name) is not None


def group_at(group: Any, path: str) -> h5py.Group:
    """The group at `path`. Raises: InputError if it is something else."""
    found = child(group, path)
    if not isinstance(found, h5py.Group):
        raise InputError(f"{shown(path)} is a {type(found).__name__.lower()}, expected a group of arrays")
    return found


def dataset_at(group: Any, path: str, layer: str) -> h5py.Dataset:
    """The array at `path`, not read yet. Raises: InputError unless it is one of floats that lie in this very file."""
    dataset, where = child(group, path), f"layer {shown(layer)}: {shown(path)}"
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{where} is a {type(dataset).__name__.lower()}, expected an array")
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{where} keeps its values in another file, which is not followed; save the model anew")
    return dataset


def names(group: h5py.Group) -> list[str]:
    """What lies in the group. Raises: InputError if that is more than any net has."""
    if len(group) > NAMES_LIMIT:
        raise InputError(f"{shown(group.name)} holds {len(group):,} groups, expected at most {NAMES_LIMIT:,}")
    return list(group)


def strings(group: h5py.Group, attribute: str) -> list[str]:
    """The names in an attribute, which Keras cuts into several where they are many.

    Raises: InputError if it is not there, or holds something else, or more than any net has.
    """
    if attribute in group.attrs:
        found = _strings(group, attribute)
    elif f"{attribute}0" in group.attrs:
        found = []
        while f"{attribute}{len(found)}" in group.attrs and len(found) < 1_000:
            found.append(_strings(group, f"{attribute}{len(found)}"))
        found = [name for part in found for name in part]
    else:
        raise InputError(f"{shown(group.name)} has no attribute {attribute}; is the file complete?")
    if len(found) > NAMES_LIMIT:
        raise InputError(f"attribute {attribute} holds {len(found):,} names, expected at most {NAMES_LIMIT:,}")
    return found


def _strings(group: h5py.Group, attribute: str) -> list[str]:
    told = group.attrs.get_id(attribute)
    if told.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        return []
    n = math.prod(told.shape)
    is_text = told.dtype.kind == "S" or h5py.check_string_dtype(told.dtype) is not None
    if n > 10 * NAMES_LIMIT:
        raise InputError(f"attribute {attribute} holds {n:,} names, expected at most {NAMES_LIMIT:,}")
    # One text as long as the file may be named again and again. Keras writes text of one length.
    size = told.dtype.itemsize if told.dtype.kind == "S" else group.file.id.get_filesize()
    if n > 16 and n * size > 2**29:
        raise InputError(f"attribute {attribute} may take {n * size:,} bytes, expected names as Keras writes them")
    values = np.ravel(np.asarray(group.attrs[attribute])) if n and is_text else np.zeros(n)
    found = [value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value for value in values]
    names = [name for name in found if isinstance(name, str)]
    if len(names) < len(found):
        raise InputError(f"attribute {attribute} holds {shown(found[:3])}, expected names")
    return names


def text(group: h5py.Group, attribute: str, limit: int) -> str | bytes | None:
    """The text in an attribute, None if it is not there. Raises: InputError if it is something else, or too long."""
    if attribute not in group.attrs:
        return None
    told = group.attrs.get_id(attribute)
    is_text = told.dtype.kind == "S" or h5py.check_string_dtype(told.dtype) is not None
    if not is_text or told.shape not in ((), (1,)):
        raise InputError(f"attribute {attribute} is {told.dtype} of shape {told.shape}, expected text")
    if told.dtype.itemsize > limit:
        raise InputError(f"attribute {attribute} has {told.dtype.itemsize:,} bytes, expected at most {limit:,}")
    value = group.attrs[attribute]
    value = value if isinstance(value, str | bytes) else np.asarray(value).ravel()[0]
    value = bytes(value) if isinstance(value, bytes) else str(value)
    if len(value) > limit:
        raise InputError(f"attribute {attribute} has {len(value):,} bytes, expected at most {limit:,}")
    return value


def decoded(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def array(dataset: h5py.Dataset, where: str) -> np.ndarray:
    """The dataset as float32. Raises: InputError for values that are no floats, not finite, or not stored at all."""
    if dataset.dtype.kind != "f" or dataset.dtype.itemsize > 8:
        raise InputError(f"{where} has type {dataset.dtype}, expected float16, float32 or float64")
    if max(math.prod(dataset.shape), math.prod(dataset.chunks or ())) * dataset.dtype.itemsize > ARRAY_LIMIT:
        size = max(math.prod(dataset.shape), math.prod(dataset.chunks or ())) * dataset.dtype.itemsize
        raise InputError(f"{where} claims {size:,} bytes, expected at most {ARRAY_LIMIT:,}")
    with np.errstate(over="ignore", invalid="ignore"):
        values = _values(dataset, where).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{where} holds {np.count_nonzero(~np.isfinite(values))} values that are not finite numbers")
    return values


def _values(dataset: h5py.Dataset, where: str) -> np.ndarray:
    never = f"the values of {where} were never stored; is the file complete?"
    if dataset.chunks is None:
        if dataset.size and dataset.id.get_storage_size() < dataset.size * dataset.dtype.itemsize:
            raise InputError(never)
        return np.asarray(dataset[()])
    # By hand: HDF5 would unpack whatever a chunk holds, however much that is.
    expected = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    stored = dataset.id.get_num_chunks()
    if stored > _CHUNKS_LIMIT or expected > _CHUNKS_LIMIT:
        raise InputError(f"{where} lies in {max(stored, expected):,} pieces, expected at most {_CHUNKS_LIMIT:,}")
    if stored != expected:
        raise InputError(never)
    filters = _filters(dataset, where)
    values = np.zeros(dataset.shape, dataset.dtype)
    places: list[Any] = []
    dataset.id.chunk_iter(places.append)
    for place in places:
        offset = place.chunk_offset
        piece = _chunk(dataset, place, filters, where)
        there = tuple(slice(start, start + chunk) for start, chunk in zip(offset, dataset.chunks, strict=True))
        target = values[there]
        target[...] = piece[tuple(slice(0, length) for length in target.shape)]
    return values


def _filters(dataset: h5py.Dataset, where: str) -> list[int]:
    made = dataset.id.get_create_plist()
    found = [made.get_filter(number)[0] for number in range(made.get_nfilters())]
    for code in found:
        if code not in (_DEFLATE, _SHUFFLE, _CHECKSUM):
            name = _FILTERS.get(code, f"number {code}")
            raise InputError(f"{where} is packed by the HDF5 filter {name}, expected gzip or none; save it anew")
    if len(set(found)) < len(found):
        raise InputError(f"{where} is packed several times, expected once; save it anew")
    return found


def _chunk(dataset: h5py.Dataset, place: Any, filters: Sequence[int], where: str) -> np.ndarray:
    size = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if place.size > size + size // 100 + 1024:
        raise InputError(f"a piece of {where} has {place.size:,} bytes, expected at most {size:,}")
    mask, packed = dataset.id.read_direct_chunk(place.chunk_offset)
    for number, code in reversed(list(enumerate(filters))):
        if mask >> number & 1:
            continue
        if code == _DEFLATE:
            # One byte more than there should be, to notice that there is more.
            packed = zlib.decompressobj().decompress(packed, size + 5)
        elif code == _CHECKSUM:
            packed = packed[:-4]
        else:
            width = dataset.dtype.itemsize
            packed = np.frombuffer(packed, np.uint8).reshape(width, -1).T.tobytes() if len(packed) == size else packed
    if len(packed) != size:
        raise InputError(f"a piece of {where} unpacks to other than {size:,} bytes; is the file damaged?")
    return np.frombuffer(packed, dataset.dtype).reshape(dataset.chunks or ())
