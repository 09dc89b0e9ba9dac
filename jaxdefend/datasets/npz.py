"""NumPy's .npz files: arrays in a zip archive, read as they are asked for."""

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import FileIO
from pathlib import Path

from jaxdefend import InputError
from jaxdefend.datasets.npy import images_of, stream_of
from jaxdefend.datasets.parts import Part, chosen, with_labels
from jaxdefend.datasets.sources import shown
from jaxdefend.datasets.streams import Readable, Stream, part_of, readable
from jaxdefend.results.text import printable

# The list of members of an archive; np.savez writes 60 bytes or so for each.
_MAX_DIRECTORY = 2**20


class _Careful(FileIO):
    """A file of which no archive's list of members is read that would fill the memory."""

    is_opening = True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if self.is_opening and size > _MAX_DIRECTORY:
            raise ValueError("too many members")
        return super().read(max(0, size)) or b""


def members(path: Path) -> list[str]:
    """What a zip archive holds. Raises: InputError if it cannot be read."""
    with readable(shown(path)), _archive(path) as archive:
        return archive.namelist()


def part(path: Path, labelled: bool, classes: int | None) -> Part:
    """The images of a .npz file and their labels: `x` and `y`, `images` and `labels`, `arr_0` and `arr_1` …

    Raises: InputError if they are not there, not images, or Python objects.
    """
    arrays = {name.removesuffix(".npy") for name in members(path) if name.endswith(".npy")}
    images, labels = chosen(arrays, shown(path), labelled)
    made = part_of(path, *images_of(_stream(path, images)))
    if labels is None:
        return made
    told = _stream(path, labels)
    return with_labels(made, told.whole(), told.name, classes)


def _stream(path: Path, key: str) -> Stream:
    name, member = f"{shown(path)}: `{printable(key, 80)}`", f"{key}.npy"
    with readable(name), _archive(path) as archive:
        info = archive.getinfo(member)
    # bz2 and LZMA members are decompressed whole, whatever they become.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise InputError(f"{name} is compressed in a way that NumPy does not write; save it with np.savez_compressed")
    found = stream_of(name, partial(_member, path, member))
    found.check_size(info.file_size)
    return found


@contextmanager
def _member(path: Path, member: str) -> Iterator[Readable]:
    with _archive(path) as archive, archive.open(member) as file:
        yield file


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with _Careful(path) as file, zipfile.ZipFile(file) as archive:
        file.is_opening = False
        yield archive
