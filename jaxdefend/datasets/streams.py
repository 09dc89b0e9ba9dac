"""Numbers that follow a header: in a file, in a compressed file, in a member of an archive."""

import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from jaxdefend import InputError
from jaxdefend.datasets.images import Numbered
from jaxdefend.datasets.parts import Part, of_array
from jaxdefend.datasets.pixels import MAX_IMAGE_BYTES, Layout, Pixels, Shape, checked, fitted, numbers
from jaxdefend.datasets.sources import reason, shown
from jaxdefend.results.text import printable

# An array that is read at once: labels, or columns first.
MAX_ARRAY_BYTES = 2**28
_DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, ValueError, MemoryError, OverflowError)


@runtime_checkable
class Readable(Protocol):
    """A file, plain or compressed, or a member of an archive."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, /) -> int: ...


@dataclass(frozen=True)
class Stream:
    """An array in a file.

    Attributes:
        name: for errors.
        open: gives the file or member from its beginning.
        offset: where the numbers begin.
        columns_first: they lie as Fortran writes them, the first axis first.
    """

    name: str
    open: Callable[[], AbstractContextManager[Readable]]
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    columns_first: bool = False

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def check_size(self, size: int) -> None:
        """Raises: InputError if a file of `size` bytes cannot hold it."""
        if size < self.offset + self.nbytes:
            raise InputError(
                f"{self.name} says it is {numbers(self.shape)}, {self.nbytes:,} bytes, but the file ends after "
                f"{max(0, size - self.offset):,}; is it complete?"
            )

    def whole(self) -> np.ndarray:
        """All numbers. Raises: InputError if they are not there, or too many to be read at once."""
        if self.nbytes > MAX_ARRAY_BYTES:
            raise InputError(
                f"{self.name} is {numbers(self.shape)}, {self.nbytes:,} bytes to be read at once, expected at most "
                f"{MAX_ARRAY_BYTES:,}"
            )
        with self.opened() as file:
            file.seek(self.offset)
            values = np.frombuffer(self._taken(file, self.nbytes), self.dtype)
        return values.reshape(self.shape, order="F" if self.columns_first else "C")

    def rows(self, slices: Iterable[range]) -> Iterator[tuple[range, np.ndarray]]:
        """Each range with its rows, in ascending order."""
        if self.columns_first:
            values = self.whole()
            for rows in slices:
                yield rows, values[rows.start : rows.stop : rows.step]
            return
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        with self.opened() as file:
            for rows in slices:
                runs = [rows] if rows.step == 1 else [range(row, row + 1) for row in rows]
                taken = []
                for run in runs:
                    file.seek(self.offset + run.start * size)
                    taken.append(self._taken(file, len(run) * size))
                yield rows, np.frombuffer(b"".join(taken), self.dtype).reshape(len(rows), *self.shape[1:])

    @contextmanager
    def opened(self) -> Iterator[Readable]:
        with readable(self.name), self.open() as file:
            yield file

    def _taken(self, file: Readable, size: int) -> bytes:
        taken = file.read(size)
        if len(taken) < size:
            raise InputError(f"{self.name} is {numbers(self.shape)} but ends too early; is the file complete?")
        return taken


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Raises: InputError for whatever goes wrong with a file or archive."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{name} cannot be read ({reason(error)}); is the file complete?") from error


def part_of(path: Path, stream: Stream, found: Layout) -> Part:
    """The images that a stream holds, still without labels. Raises: InputError if an image is too large."""
    row_bytes = math.prod(stream.shape[1:]) * stream.dtype.itemsize
    if row_bytes > MAX_IMAGE_BYTES:
        raise InputError(f"{stream.name}: an image takes {row_bytes:,} bytes, expected at most {MAX_IMAGE_BYTES:,}")
    names = Numbered(f"{printable(path)}[", found.n, "]")
    return of_array(shown(path), found, names, row_bytes, partial(_read, shown(path), stream, found))


def _read(name: str, stream: Stream, found: Layout, slices: Iterable[range], shape: Shape) -> Iterator[Pixels]:
    for rows, values in stream.rows(slices):
        yield fitted(found.images(checked(values, rows, name)), shape)


def beside(path: Path, swaps: Iterable[tuple[str, str]]) -> Path | None:
    """The file in the same folder that is called as this one with a word swapped for another."""
    for word, other in swaps:
        before, found, after = path.name.rpartition(word)
        partner = path.with_name(before + other + after)
        if found and os.path.isfile(partner):
            return partner
    return None
