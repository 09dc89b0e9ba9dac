"""Data files, pictures and folders of pictures, as one set of images that is read a slice at a time."""

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import glob
from itertools import accumulate, chain, groupby
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Int32

from jaxdefend import InputError
from jaxdefend.datasets import idx, kinds, npy
from jaxdefend.datasets.folders import check_source, in_order, labels_of_files, pictures_in
from jaxdefend.datasets.image_files import SUFFIXES, decode, seen
from jaxdefend.datasets.images import cut, described
from jaxdefend.datasets.labels import check_labels
from jaxdefend.datasets.parts import Part
from jaxdefend.datasets.pixels import Pixels, Shape, check_enlargement, check_shape, dimensions
from jaxdefend.datasets.sources import shown
from jaxdefend.results.text import printable

Labels = Int32[np.ndarray, " n"] | None

# How many images are read at once when one after the other is asked for.
_ITERATED = 64
_PICTURES_AT_ONCE = 256


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """A set of images that stays on disk until a slice is asked for.

    `images[0]` is one image (h, w, c), `images[3:7]` an array (n, h, w, c), `for image in images` goes through all.
    Pixels are 0–255, RGB or grey: uint8, or float32 where a slice holds values that are not whole numbers.
    Reading raises InputError, with the file and the row, for what `open_images` could not see.

    Attributes:
        labels: one for each image; None if the images are unlabelled.
        names: one for each image: its path, or `file.h5[row]`.
        shape: height, width and channels of every image, however it is stored.
        notes: what the user should be told, one line each.
    """

    labels: Labels
    names: Sequence[str]
    shape: Shape
    notes: tuple[str, ...]
    _parts: tuple[Part, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, rows: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, rows: slice) -> Pixels: ...
    def __getitem__(self, rows: slice | int) -> np.ndarray:
        if not isinstance(rows, slice):
            row = range(len(self))[operator.index(rows)]
            return self[row : row + 1][0]
        wanted = range(len(self))[rows]
        if wanted.step < 0:
            return next(self._read([wanted[::-1]]))[::-1]
        return next(self._read([wanted]))

    def __iter__(self) -> Iterator[np.ndarray]:
        for pixels, _ in self.chunks(_ITERATED):
            yield from pixels

    def __repr__(self) -> str:
        first = self._parts[0].title
        return described(self, first if len(self._parts) == 1 else f"{first} and {len(self._parts) - 1} more")

    def chunks(self, size: int, rows: slice = slice(None)) -> Iterator[tuple[Pixels, Labels]]:
        """Pixels and labels of `size` of the consecutive `rows` at a time; each file is read once, front to end."""
        slices = cut(len(self), size, rows)
        for chunk, pixels in zip(slices, self._read([range(len(self))[chunk] for chunk in slices]), strict=True):
            yield pixels, None if self.labels is None else self.labels[chunk]

    def fitted(self, shape: Shape) -> "Images":
        """The same images at another size or number of channels, read from the files again; notes say what changes.

        Raises: InputError if `shape` is not (height, width, 1 or 3), or so large that nothing would be seen.
        """
        shape = check_shape(shape)
        return self if shape == self.shape else _assembled(self._parts, self.labels, shape)

    def _read(self, slices: Sequence[range]) -> Iterator[Pixels]:
        pieces = chain.from_iterable(map(self._pieces, slices))
        arrays = chain.from_iterable(
            self._parts[part].read((rows for _, rows in group), self.shape)
            for part, group in groupby(pieces, lambda piece: piece[0])
        )
        for rows in slices:
            yield _gathered(arrays, len(rows), self.shape)

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
    paths: str | PathLike | Iterable[str | PathLike],
    *,
    shape: Shape | None = None,
    labels: str = "auto",
    target: int | None = None,
    classes: int | None = None,
    labelled: bool = True,
) -> Images:
    """Official data files, pictures and folders of pictures as one set, in the order given.

    Args:
        paths: one path, or several.
        shape: height, width and channels (1 or 3) that the images should have; those of the first image by default.
        labels: where the labels of pictures come from: "csv", "folders", "names", "names:K" (the K-th number), or
            "auto": the first of these that is there. Other files hold their own.
        target: the label of every image, whatever the files say.
        classes: labels must be below it.
        labelled: False to look for no labels at all.
    Raises: InputError if anything but the pixels themselves cannot be used.
    """
    check_source(labels)
    shape = None if shape is None else check_shape(shape)
    paths = [paths] if isinstance(paths, str | PathLike) else list(paths)
    if not paths:
        raise InputError("no images given; expected data files, image files or folders of images")
    if target is not None:
        check_labels([target], ["target"], classes)
    source = labels if labelled and target is None else None

    parts: list[Part] = []
    for kind, group in groupby(_expanded(paths), kinds.kind):
        if kind == kinds.PICTURE:
            files = list(group)
            seen(files[0])  # what is not a picture is named as such before its name is read
            values, notes = labels_of_files(files, source) if source else (None, ())
            title = shown(files[0]) if len(files) == 1 else "image files"
            parts.append(_pictures(title, files, values, classes, notes))
        elif kind == kinds.FOLDER:
            parts += [_folder(path, source, classes) for path in group]
        else:
            parts += [kinds.DATA_FILES[kind](path, source is not None, classes) for path in group]

    found = [part.labels for part in parts if part.labels is not None]
    if target is not None and labelled:
        found = [np.full(sum(len(part.names) for part in parts), target, np.int32)]
    return _assembled(tuple(parts), np.concatenate(found) if found else None, shape or parts[0].shape)


def _assembled(parts: tuple[Part, ...], labels: Labels, shape: Shape) -> Images:
    notes = chain.from_iterable((*part.notes, *part.note_of(shape)) for part in parts)
    return Images(labels, _Joined([part.names for part in parts]), shape, tuple(notes), parts)


class _Joined(Sequence[str]):
    """Sequences one after the other."""

    def __init__(self, parts: Sequence[Sequence[str]]):
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        row = range(len(self))[index]
        part = bisect_right(self._ends, row)
        return self._parts[part][row - (self._ends[part - 1] if part else 0)]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._parts)


def _expanded(paths: Sequence[str | PathLike]) -> list[Path]:
    """The paths, patterns replaced by what they match, and without the label files of other paths.

    Raises: InputError if a pattern matches nothing.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if _is_pattern(path):
            matches = sorted(map(Path, glob(str(path))), key=in_order)
            if not matches:
                raise InputError(f"{shown(path)}: no file matches this pattern, expected images")
            found += matches
        else:
            found.append(path)
    if len(found) < 2:
        return found
    data = [path for path in found if path.suffix.lower() not in SUFFIXES]
    partners = {partner for path in data for partner in (npy.label_file(path), idx.label_file(path)) if partner}
    return [path for path in found if path not in partners] or found


def _is_pattern(path: Path) -> bool:
    try:
        return any(sign in str(path) for sign in "*?[") and not path.exists()
    except (OSError, ValueError):
        return False


# Pictures


def _folder(path: Path, source: str | None, classes: int | None) -> Part:
    found = pictures_in(path, source)
    return _pictures(shown(path), found.paths, found.labels, classes, found.notes)


def _pictures(
    title: str, files: list[Path], labels: list[int] | None, classes: int | None, notes: tuple[str, ...] = ()
) -> Part:
    names = tuple(map(printable, files))
    headers = [seen(path) for path in files]

    def note_of(shape: Shape) -> tuple[str, ...]:
        lines = []
        others = sum(header[:2] != shape[:2] for header in headers)
        for name, header in zip(names, headers, strict=True):
            check_enlargement(header[:2], shape, name)
        if others:
            size = dimensions(shape[:2])
            lines.append(f"{title}: {others} of {len(files)} images are not {size} and will be resized")
        coloured = 0 if shape[2] == 3 else sum(not header.is_grey for header in headers)
        if coloured:
            lines.append(f"{title}: {coloured} of {len(files)} images are in colour and will be converted to grey")
        return tuple(lines)

    values = None if labels is None else check_labels(labels, names, classes)
    first = (headers[0].height, headers[0].width, 3)
    return Part(title, names, values, first, notes, _PICTURES_AT_ONCE, partial(_read_pictures, files), note_of)


def _read_pictures(files: list[Path], slices: Iterable[range], shape: Shape) -> Iterator[Pixels]:
    for rows in slices:
        yield np.stack([decode(files[row], shape) for row in rows])


def _gathered(arrays: Iterator[Pixels], n: int, shape: Shape) -> Pixels:
    """The next `n` images of `arrays` in one array; float32 if one of them is."""
    pixels = np.empty((n, *shape), np.uint8)
    done = 0
    while done < n:
        piece = next(arrays)
        if piece.dtype != pixels.dtype and pixels.dtype == np.uint8:
            pixels = pixels.astype(np.float32)
        pixels[done : done + len(piece)] = piece
        done += len(piece)
    return pixels
