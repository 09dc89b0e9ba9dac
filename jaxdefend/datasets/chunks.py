"""Arrays in chunks of HDF5 files, decompressed no further than they claim.

HDF5 itself trusts a file: a compressed chunk may become any size. Here the filters are a closed list, and gzip is
decompressed no further than the size of the chunk.
"""

import math
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import NamedTuple

import h5py
import numpy as np

from jaxdefend import InputError

# The chunks under one row of images; h5py's own choice for the official validation file, gzipped, takes 46 MB.
_MAX_CACHE_BYTES = 128 * 2**20
_MAX_CHUNK_BYTES = 2**28
# Only h5py decompresses LZF, up to 88 to 1 whatever the chunk claims.
_MAX_LZF_BYTES = 2**23

# zlib releases the GIL.
_THREADS = min(4, os.cpu_count() or 1)
_TOGETHER = 8

_GZIP, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000
_FILTERS = {
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    305: "LZO",
    307: "bzip2",
    32001: "blosc",
    32002: "MAFISC",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "SZ",
    32019: "JPEG",
    32026: "blosc2",
}
_DAMAGE = (OSError, RuntimeError, ValueError, MemoryError)

_Bytes = bytes | np.ndarray


class _Filter(NamedTuple):
    code: int
    # Of a shuffle, the bytes of one number.
    size: int


def _filters(data: h5py.Dataset) -> list[_Filter]:
    properties = data.id.get_create_plist()
    found = (properties.get_filter(index) for index in range(properties.get_nfilters()))
    return [_Filter(code, values[0] if values else 1) for code, _, values, _ in found]


def check(data: h5py.Dataset, name: str) -> None:
    """Raises: InputError if chunks are compressed in a way that cannot be read, or cannot be what they claim."""
    filters = _filters(data)
    if not filters or data.chunks is None:
        return
    codes = [one.code for one in filters]
    for code in codes:
        if code not in (_GZIP, _SHUFFLE, _FLETCHER32, _LZF):
            filter_name = _FILTERS.get(code, f"number {code}")
            raise InputError(
                f"{name} is compressed with the HDF5 filter {filter_name}, which cannot be read here; where it is "
                "installed (in Python: import hdf5plugin), save the array again with compression='gzip'"
            )
    if len(set(codes)) < len(codes) or {_GZIP, _LZF} <= set(codes):
        raise InputError(f"{name} is compressed more than once, expected gzip or lzf; save it again")
    most = _MAX_LZF_BYTES if _LZF in codes else _MAX_CHUNK_BYTES
    claimed = _chunk_bytes(data)
    if claimed > most:
        raise InputError(
            f"{name} has chunks of {claimed:,} bytes, expected at most {most:,}; save it with smaller ones"
        )
    stored = 0

    def look(chunk: h5py.h5d.StoreInfo) -> None:
        nonlocal stored
        stored = max(stored, chunk.size)

    data.id.chunk_iter(look)
    # gzip makes noise a little larger, by less than one in a thousand.
    if stored > 1.01 * claimed + 64:
        raise InputError(f"{name}: a chunk of {claimed:,} bytes takes {stored:,} in the file; is it damaged?")
    if not data.id.get_type().equal(h5py.h5t.py_create(data.dtype)):
        raise InputError(f"{name} stores its numbers in an unusual form; save it again as {data.dtype}")


def _chunk(data: h5py.Dataset) -> tuple[int, ...]:
    """The shape of a chunk of chunked data."""
    assert data.chunks is not None
    return data.chunks


def _chunk_bytes(data: h5py.Dataset) -> int:
    return math.prod(_chunk(data)) * data.dtype.itemsize


def _under_a_row(data: h5py.Dataset) -> int:
    """Bytes of the chunks under one row of the array."""
    across = (-(-axis // chunk) for axis, chunk in zip(data.shape[1:], _chunk(data)[1:], strict=True))
    return math.prod(across) * _chunk_bytes(data)


def cache_bytes(data: h5py.Dataset) -> int:
    """With the chunks under one row in HDF5's cache, a pass in order reads every chunk once."""
    return 0 if data.chunks is None or _filters(data) else min(_under_a_row(data), _MAX_CACHE_BYTES)


def rows_of(data: h5py.Dataset, slices: Iterable[range]) -> Iterator[tuple[range, np.ndarray]]:
    """Each range with its rows, in ascending order."""
    filters = _filters(data)
    if not filters or data.chunks is None:
        for rows in slices:
            yield rows, data[rows.start : rows.stop : rows.step]
        return
    with ThreadPoolExecutor(_THREADS) as executor:
        bands = _Bands(data, filters, executor)
        for rows in slices:
            values = np.empty((len(rows), *data.shape[1:]), data.dtype)
            for first in range(rows.start // bands.step * bands.step, rows.stop, bands.step):
                begin, end = (-(-(row - rows.start) // rows.step) for row in (first, first + bands.step))
                own = slice(max(0, begin), min(end, len(rows)))
                if own.start < own.stop:
                    taken = slice(rows[own.start] - first, rows[own.stop - 1] - first + 1, rows.step)
                    bands.copy(first, taken, values[own])
            yield rows, values


class _Place(NamedTuple):
    """Where a chunk begins in the axes behind the first, where it lies in the array, and how much of it does."""

    corner: tuple[int, ...]
    array: tuple[slice, ...]
    chunk: tuple[slice, ...]


class _Bands:
    """An array in compressed chunks; a band is what one row of chunks holds, `step` rows."""

    def __init__(self, data: h5py.Dataset, filters: Sequence[_Filter], executor: Executor):
        self.step, *sizes = _chunk(data)
        self._data = data
        self._by_h5py = _LZF in [one.code for one in filters]
        if self._by_h5py:
            self._unpack = partial(_unpacked_by_h5py, data)
        else:
            self._unpack = partial(_unpacked, data, filters)
        along = [
            [(start, min(start + size, axis)) for start in range(0, axis, size)]
            for axis, size in zip(data.shape[1:], sizes, strict=True)
        ]
        self._places = [
            _Place(
                tuple(start for start, _ in spans),
                tuple(slice(start, stop) for start, stop in spans),
                tuple(slice(stop - start) for start, stop in spans),
            )
            for spans in product(*along)
        ]
        self._map = executor.map if len(self._places) > _TOGETHER else map
        self._keeps = _under_a_row(data) <= _MAX_CACHE_BYTES
        self._first, self._band = -1, np.empty(0)

    def copy(self, first: int, rows: slice, out: np.ndarray) -> None:
        """Some rows of the band that begins at row `first`; a band is kept: a pass in order decompresses it once."""
        if not self._keeps:
            for place in self._places:
                out[(slice(None), *place.array)] = self._unpack((first, *place.corner))[(rows, *place.chunk)]
            return
        if first != self._first:
            self._band = self._unpacked(first)
            self._first = first
        out[:] = self._band[rows]

    def _unpacked(self, first: int) -> np.ndarray:
        n = min(self.step, self._data.shape[0] - first)
        if self._by_h5py:
            return self._data[first : first + n]
        band = np.empty((n, *self._data.shape[1:]), self._data.dtype)

        def unpack(place: _Place) -> None:
            band[(slice(None), *place.array)] = self._unpack((first, *place.corner))[(slice(n), *place.chunk)]

        list(self._map(unpack, self._places))
        return band


def _unpacked_by_h5py(data: h5py.Dataset, corner: Sequence[int]) -> np.ndarray:
    return data[tuple(slice(start, start + size) for start, size in zip(corner, _chunk(data), strict=True))]


def _unpacked(data: h5py.Dataset, filters: Sequence[_Filter], corner: tuple[int, ...]) -> np.ndarray:
    """One chunk, its filters undone from the last to the first."""
    claimed = _chunk_bytes(data)
    try:
        mask, packed = data.id.read_direct_chunk(corner)
    except _DAMAGE:
        # Never written, and full of the fill value; or damaged, and HDF5 refuses it too.
        return _unpacked_by_h5py(data, corner)
    for index in reversed(range(len(filters))):
        if mask >> index & 1:
            continue
        code, size = filters[index]
        if code == _FLETCHER32:
            packed = _without_checksum(packed)
        elif code == _GZIP:
            packed = _unzipped(packed, claimed + 4)
        else:
            packed = _unshuffled(packed, size)
    if len(packed) != claimed:
        raise ValueError(f"a chunk decompresses to {len(packed):,} bytes, expected {claimed:,}")
    return np.frombuffer(packed, data.dtype).reshape(_chunk(data))


def _unzipped(packed: _Bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    values = stream.decompress(bytes(packed), most + 1)
    if len(values) > most:
        raise ValueError(f"a chunk decompresses to more than the {most:,} bytes that it claims")
    if not stream.eof:
        raise ValueError("a chunk ends too early")
    return values


def _unshuffled(values: _Bytes, size: int) -> _Bytes:
    n = len(values) // size if size > 1 else 0
    if n < 2:
        return values
    planes = np.frombuffer(values, np.uint8, n * size).reshape(size, n)
    unshuffled = np.empty(len(values), np.uint8)
    unshuffled[: n * size].reshape(n, size)[:] = planes.T
    unshuffled[n * size :] = np.frombuffer(values, np.uint8)[n * size :]
    return unshuffled


def _without_checksum(values: _Bytes) -> bytes:
    """Raises: ValueError if the Fletcher-32 checksum behind the values is not theirs."""
    values = bytes(values)
    values, checksum = values[:-4], int.from_bytes(values[-4:], "little")
    words = np.frombuffer(values + b"\0" * (len(values) % 2), ">u2")
    first = second = 0
    for start in range(0, len(words), 2**20):
        block = words[start : start + 2**20].astype(np.uint64)
        weights = np.arange(len(block), 0, -1, dtype=np.uint64)
        second = (second + len(block) * first + int(np.dot(block, weights))) % 65535
        first = (first + int(block.sum())) % 65535
    if first != (checksum & 65535) % 65535 or second != (checksum >> 16) % 65535:
        raise ValueError("a chunk is not what its checksum says")
    return values
