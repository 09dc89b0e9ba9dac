"""What a path leads to, by its content before its name; what is not read is named, with the way out."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import h5py

from jaxdefend import InputError
from jaxdefend.datasets import hdf5, idx, npy, npz
from jaxdefend.datasets.image_files import SUFFIXES
from jaxdefend.datasets.parts import Part
from jaxdefend.datasets.sources import reason, shown
from jaxdefend.datasets.streams import readable
from jaxdefend.results.text import printable

FOLDER, PICTURE = "folder", "picture"
# What opens the images of a data file: its path, whether labels are wanted, how many classes there are.
Reader = Callable[[Path, bool, int | None], Part]
DATA_FILES: dict[str, Reader] = {"hdf5": hdf5.part, "npz": npz.part, "npy": npy.part, "idx": idx.part}

# Most files are these; nobody has to look further.
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_UNPACK = "extract it and pass what is in it"
_CONVERT = "convert it to PNG"
_NAMED = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch the file with `git lfs pull`"),
    (b"BZh", "compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\0", "compressed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file of version 5", "save it with -v7.3, as `data` and `label`"),
    (b"PAR1", "a Parquet table", "save the images as .npz or .h5"),
    (b"%PDF", "a PDF document", _CONVERT),
    *((b"P%d" % number, "a PPM picture", _CONVERT) for number in range(1, 7)),
)
_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"avif": "AVIF", b"avis": "AVIF"}
# A gigabyte of nothing takes no room in the file system, and minutes to read.
_MAX_SPARSE = 1100


def kind(path: Path) -> str:
    """ "folder", "picture" or one of `DATA_FILES`.

    Raises: InputError if nothing can be read there, or it is something else that has a name.
    """
    try:
        if path.is_dir():
            return FOLDER
        if path.exists() and not path.is_file():
            raise InputError(f"{shown(path)}: neither a file nor a folder")
        with open(path, "rb") as file:
            head = file.read(512)
            room = os.fstat(file.fileno())
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(path)}: cannot be opened ({reason(error)})") from error
    if not head:
        raise InputError(f"{shown(path)}: the file is empty, expected images")
    # Some network file systems count no blocks at all.
    if 0 < getattr(room, "st_blocks", 0) * 512 * _MAX_SPARSE < room.st_size > 2**26:
        raise InputError(f"{shown(path)}: {room.st_size:,} bytes that were never filled in; is the file complete?")
    if head.startswith(_PICTURES):
        return PICTURE
    if h5py.is_hdf5(path):
        return "hdf5"
    if head.startswith(b"PK\3\4") or head.startswith(b"PK\5\6"):
        return _in_zip(path)
    if head.startswith(b"\x1f\x8b"):
        return _in_gzip(path)
    if head.startswith(npy.MAGIC):
        return "npy"
    if idx.begins(head):
        return "idx"
    _refuse_known(path, head)
    return PICTURE


def _in_zip(path: Path) -> str:
    names = npz.members(path)
    if any(name.endswith(".npy") for name in names):
        return "npz"
    if "config.json" in names:
        raise InputError(f"{shown(path)}: a net (a .keras file), expected images")
    raise InputError(f"{shown(path)}: a zip archive of {printable(', '.join(names[:3]), 100) or 'nothing'}; {_UNPACK}")


def _in_gzip(path: Path) -> str:
    with readable(shown(path)), gzip.open(path) as file:
        head = file.read(8)
    if head.startswith(npy.MAGIC):
        return "npy"
    if idx.begins(head):
        return "idx"
    what = "an HDF5 file " if head.startswith(b"\x89HDF") else ""
    raise InputError(
        f"{shown(path)}: {what}compressed with gzip; decompress it first: gunzip {printable(path.name, 100)}"
    )


def _refuse_known(path: Path, head: bytes) -> None:
    for begin, what, way_out in _NAMED:
        if head.startswith(begin):
            raise InputError(f"{shown(path)}: {what}; {way_out}")
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        raise InputError(f"{shown(path)}: a {_BRANDS[head[8:12]]} picture; {_CONVERT}")
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{shown(path)}: a web page (HTML), not the file itself; download it again")
    if head[257:262] == b"ustar":
        raise InputError(f"{shown(path)}: a tar archive; {_UNPACK}")
    suffix = path.suffix.lower()
    if suffix in (".h5", ".hdf5"):
        raise InputError(f"{shown(path)}: not an HDF5 file; is it complete?")
    if suffix in SUFFIXES:
        return
    if head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5":
        raise InputError(
            f"{shown(path)}: a Python pickle, which may run code when it is read; save the arrays with np.savez"
        )
    if suffix == ".csv":
        raise InputError(f"{shown(path)}: a table; pass the folder that it lies in")
