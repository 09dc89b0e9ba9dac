"""Official data files, pictures and folders of pictures, as one set of images that is read a slice at a time."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby
from pathlib import Path

import h5py
import h5py.h5l
import numpy as np
from jaxtyping import Float32, Int32, Num, UInt8
from PIL import Image

from jaxdefend import InputError
from jaxdefend.datasets.batches import cut
from jaxdefend.datasets.folders import check_source, images_under, label_of, labelled_images
from jaxdefend.datasets.image_files import IMAGE_SHAPE, MAX_PIXELS, decode, printable, reason, resized, size

__all__ = ["IMAGE_SHAPE", "Images", "Pixels", "open_images"]

Pixels = UInt8[np.ndarray, "n 55 47 3"] | Float32[np.ndarray, "n 55 47 3"]
Labels = Int32[np.ndarray, " n"] | None

# 67 images of float64: larger pieces are no faster, and the sweep's memory is for the net.
_PIECE_BYTES = 4 * 2**20
# The chunks under one row of images; h5py's own choice for the official validation file, gzipped, takes 46 MB.
_MAX_CACHE_BYTES = 128 * 2**20
# gzip packs no tighter than 1,032 to 1; a file that says so is unfinished, or means to fill the memory.
_MAX_PACKING = 1100


@dataclass(frozen=True, eq=False)
class _Part:
    """One file, or the pictures of one folder. `read` gives one array for each range of rows, in ascending order."""

    names: tuple[str, ...]
    labels: Labels
    notes: tuple[str, ...]
    rows_at_once: int
    read: Callable[[Iterable[range]], Iterator[Pixels]]


@dataclass(frozen=True, eq=False)
class Images:
    """A set of labelled images that stays on disk until a slice is asked for.

    Pixels are RGB, 0–255, (n, 55, 47, 3): uint8, or float32 where a slice holds values that are not whole numbers.
    Reading raises InputError, with the file and the row, for what `open_images` could not see.

    Attributes:
        labels: one an image; None if the images are unlabelled.
        names: one an image: its path, or `file.h5[row]`.
        notes: what the user should be told, one line each.
    """

    labels: Labels
    names: Sequence[str]
    notes: tuple[str, ...]
    _parts: tuple[_Part, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: slice) -> Pixels:
        wanted = range(len(self))[rows]
        if wanted.step < 0:
            return next(self._read([wanted[::-1]]))[::-1]
        return next(self._read([wanted]))

    def chunks(self, size: int, rows: slice = slice(None)) -> Iterator[tuple[Pixels, Labels]]:
        """Pixels and labels of `size` of the consecutive `rows` at a time; each file is read once, front to end."""
        slices = cut(len(self), size, rows)
        for chunk, pixels in zip(slices, self._read([range(len(self))[chunk] for chunk in slices]), strict=True):
            yield pixels, None if self.labels is None else self.labels[chunk]

    def _read(self, slices: Sequence[range]) -> Iterator[Pixels]:
        pieces = chain.from_iterable(map(self._pieces, slices))
        arrays = chain.from_iterable(
            self._parts[part].read(rows for _, rows in group) for part, group in groupby(pieces, lambda piece: piece[0])
        )
        for rows in slices:
            yield _gathered(arrays, len(rows))

    def _pieces(self, rows: range) -> Iterator[tuple[int, range]]:
        """`rows` cut into what is read at once: index of the part, rows of that part."""
        first = 0
        for index, part in enumerate(self._parts):
            last = first + len(part.names)
            own = rows[bisect_left(rows, first) : bisect_left(rows, last)]
            for start in range(0, len(own), part.rows_at_once):
                piece = own[start : start + part.rows_at_once]
                yield index, range(piece.start - first, piece.stop - first, piece.step)
            first = last


def open_images(
    paths: Sequence[Path | str],
    *,
    labels: str = "auto",
    target: int | None = None,
    classes: int | None = None,
    labelled: bool = True,
) -> Images:
    """Official data files, pictures and folders of pictures as one set, in the order given.

    Args:
        labels: where the labels of pictures come from: "csv", "folders", "names", "names:K" (the K-th number), or
            "auto": the first of these that is there. Official files hold their own.
        target: the label of every image, whatever the files say.
        classes: labels must be below it.
        labelled: False to look for no labels at all.
    Raises: InputError if anything but the pixels themselves cannot be used.
    """
    check_source(labels)
    if not paths:
        raise InputError("no images given; expected official .h5 files, image files or folders of images")
    if target is not None:
        _whole_labels([target], ["target"], classes)
    source = labels if labelled and target is None else None

    parts: list[_Part] = []
    for kind, group in groupby(map(Path, paths), _kind):
        if kind == "pictures":
            files = list(group)
            told = [label_of(path, source) for path in files] if source else None
            parts.append(_pictures(printable(files[0]) if len(files) == 1 else "image files", files, told, classes))
        elif kind == "folder":
            parts += [_folder(path, source, classes) for path in group]
        else:
            parts += [_official(path, source is not None, classes) for path in group]

    names = tuple(chain.from_iterable(part.names for part in parts))
    told = [part.labels for part in parts if part.labels is not None]
    if target is not None and labelled:
        told = [np.full(len(names), target, np.int32)]
    notes = tuple(chain.from_iterable(part.notes for part in parts))
    return Images(np.concatenate(told) if told else None, names, notes, tuple(parts))


def _kind(path: Path) -> str:
    """ "folder", "official" or "pictures", from what is there and not from what it is called."""
    try:
        if path.is_dir():
            return "folder"
        if path.exists() and not path.is_file():
            raise InputError(f"{printable(path)}: neither a file nor a folder")
        with open(path, "rb") as file:
            is_empty = not file.read(1)
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(path)}: cannot be opened ({reason(error)})") from error
    if is_empty:
        raise InputError(f"{printable(path)}: the file is empty, expected images")
    if h5py.is_hdf5(path):
        return "official"
    if path.suffix.lower() in (".h5", ".hdf5"):
        raise InputError(f"{printable(path)}: not an HDF5 file; is it complete?")
    return "pictures"


def _whole_labels(labels: Sequence[int] | np.ndarray, names: Sequence[str], classes: int | None) -> np.ndarray:
    """Labels as int32. Raises: InputError at the first that is not a whole number in 0 … classes − 1."""
    values = np.asarray(labels)
    last = np.iinfo(np.int32).max if classes is None else classes - 1
    with np.errstate(invalid="ignore"):
        good = (values >= 0) & (values <= last) & (values == np.floor(values))
    if not good.all():
        row = int(np.argmin(good))
        raise InputError(f"{names[row]}: label is {values[row]}, expected a whole number in 0…{last}")
    return values.astype(np.int32)


# Pictures


def _folder(folder: Path, source: str | None, classes: int | None) -> _Part:
    if source is None:
        return _pictures(printable(folder), images_under(folder), None, classes)
    files, labels, notes = labelled_images(folder, source)
    return _pictures(printable(folder), files, labels, classes, notes)


def _pictures(
    title: str, files: list[Path], labels: list[int] | None, classes: int | None, notes: tuple[str, ...] = ()
) -> _Part:
    names = tuple(map(printable, files))
    others = sum(size(path) != IMAGE_SHAPE[:2] for path in files)
    if others:
        notes += (f"{title}: {others} of {len(files)} images are not 55×47 and will be resized",)
    told = None if labels is None else _whole_labels(labels, names, classes)
    return _Part(names, told, notes, 256, partial(_read_pictures, files))


def _read_pictures(files: list[Path], slices: Iterable[range]) -> Iterator[Pixels]:
    for rows in slices:
        yield np.stack([decode(files[row]) for row in rows])


# Official files


def _official(path: Path, labelled: bool, classes: int | None) -> _Part:
    with _hdf5(path) as file:
        data = _dataset(file, "data", path)
        shape, channels_first = _layout(data, path)
        names = tuple(f"{printable(path)}[{row}]" for row in range(shape[0]))
        labels = _whole_labels(_label(file, path, shape[0]), names, classes) if labelled else None
        row_bytes = data.nbytes // shape[0]
        read = partial(_read_rows, path, data.shape, channels_first, _cache_bytes(data))
    notes = ()
    if shape[1:] != IMAGE_SHAPE:
        notes = (f"{printable(path)}: images are {shape[1]}×{shape[2]} and will be resized to 55×47",)
    return _Part(names, labels, notes, max(1, _PIECE_BYTES // row_bytes), read)


def _read_rows(
    path: Path, shape: tuple[int, ...], channels_first: bool, cache_bytes: int, slices: Iterable[range]
) -> Iterator[Pixels]:
    with _hdf5(path, cache_bytes) as file:
        data = _dataset(file, "data", path)
        if data.shape != shape:
            raise InputError(f"{printable(path)}: changed while it was in use: {data.shape}, {shape} before")
        for rows in slices:
            pixels = _checked(data[rows.start : rows.stop : rows.step], rows, path)
            yield _fitted(np.moveaxis(pixels, 1, -1) if channels_first else pixels)


@contextmanager
def _hdf5(path: Path, cache_bytes: int = 0) -> Iterator[h5py.File]:
    try:
        # A slot for every chunk in the cache, and many more: two chunks in one slot push each other out.
        with h5py.File(path, "r", locking=False, rdcc_nbytes=cache_bytes, rdcc_nslots=100_003) as file:
            yield file
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise InputError(f"{printable(path)}: cannot be read as HDF5 ({reason(error)}); is it complete?") from error


def _dataset(file: h5py.File, key: str, path: Path) -> h5py.Dataset:
    """The numbers called `key`, if they lie in this very file."""
    links = file.id.links  # unlike the mapping, it follows no link
    if not links.exists(key.encode()):
        there = ", ".join(sorted(map(printable, file))[:10]) or "nothing"
        raise InputError(f"{printable(path)}: no `{key}`, expected `data` and `label`; the file holds {there}")
    found = file[key] if links.get_info(key.encode()).type == h5py.h5l.TYPE_HARD else None
    if found is None or (isinstance(found, h5py.Dataset) and (found.is_virtual or found.external)):
        raise InputError(f"{printable(path)}: `{key}` leads to another place or file, expected the numbers themselves")
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iuf" or found.shape is None:
        what = f"of type {found.dtype}" if isinstance(found, h5py.Dataset) else "not an array"
        raise InputError(f"{printable(path)}: `{key}` is {what}, expected an array of numbers")
    if found.nbytes > _MAX_PACKING * found.id.get_storage_size():
        raise InputError(f"{printable(path)}: `{key}` {found.shape} was never filled in; is the file complete?")
    return found


def _layout(data: h5py.Dataset, path: Path) -> tuple[tuple[int, int, int, int], bool]:
    """(n, height, width, 3), and whether the file has its channels first."""
    shape = data.shape
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise InputError(f"{printable(path)}: `data` is {shape}, expected (n, 3, 55, 47) or (n, 55, 47, 3)")
    channels_first = shape[1] == 3
    n, height, width = (shape[0], *shape[2:]) if channels_first else shape[:3]
    if not n:
        raise InputError(f"{printable(path)}: `data` is {shape}: no images, expected at least one")
    if not 0 < height * width <= MAX_PIXELS:
        raise InputError(f"{printable(path)}: images are {height}×{width}, expected 1 to {MAX_PIXELS:,} pixels")
    return (n, height, width, 3), channels_first


def _label(file: h5py.File, path: Path, n: int) -> np.ndarray:
    label = _dataset(file, "label", path)
    if label.shape != (n,):
        raise InputError(f"{printable(path)}: `label` is {label.shape}, expected ({n},): one for each row of `data`")
    return label[:]


def _cache_bytes(data: h5py.Dataset) -> int:
    """The chunks under one row of images: with them in the cache, a pass in order unpacks every chunk once."""
    if data.chunks is None:
        return 0
    chunks_under_a_row = math.prod(
        -(-axis // chunk) for axis, chunk in zip(data.shape[1:], data.chunks[1:], strict=True)
    )
    return min(chunks_under_a_row * math.prod(data.chunks) * data.dtype.itemsize, _MAX_CACHE_BYTES)


def _checked(values: Num[np.ndarray, "n a b c"], rows: range, path: Path) -> Num[np.ndarray, "n a b c"]:
    """Pixels as uint8 if they are whole numbers, else as float32."""
    if values.dtype == np.uint8:
        return values
    good = (values >= 0) & (values <= 255)
    if not good.all():
        where = np.unravel_index(np.argmin(good), good.shape)
        name = f"{printable(path)}[{rows[int(where[0])]}]"
        raise InputError(f"{name}: a pixel is {values[where]}, expected 0…255")
    whole = values.astype(np.uint8)
    if np.array_equal(whole, values):
        return whole
    if values.max() <= 1:
        raise InputError(f"{printable(path)}: pixels lie in 0…1 from row {rows[0]} on, expected 0…255; multiply by 255")
    return values.astype(np.float32)


def _fitted(pixels: Num[np.ndarray, "n h w 3"]) -> Pixels:
    if pixels.shape[1:] == IMAGE_SHAPE:
        return pixels
    rounded = np.ascontiguousarray(np.rint(pixels).astype(np.uint8))
    return np.stack([resized(Image.fromarray(image)) for image in rounded])


def _gathered(arrays: Iterator[Pixels], n: int) -> Pixels:
    """The next `n` images of `arrays` in one array; float32 if one of them is."""
    pixels = np.empty((n, *IMAGE_SHAPE), np.uint8)
    done = 0
    while done < n:
        piece = next(arrays)
        if piece.dtype != pixels.dtype and pixels.dtype == np.uint8:
            pixels = pixels.astype(np.float32)
        pixels[done : done + len(piece)] = piece
        done += len(piece)
    return pixels
