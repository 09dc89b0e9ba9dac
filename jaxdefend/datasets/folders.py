"""Which pictures a folder holds, in which order, and where their labels come from."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

from jaxdefend import InputError
from jaxdefend.datasets.image_files import SUFFIXES, printable, reason

LABELS_CSV = "labels.csv"
_SOURCE = re.compile(r"auto|csv|folders|names(:[1-9][0-9]?)?")
_WHOLE = re.compile(r"-?[0-9]{1,18}")


def check_source(source: str) -> None:
    """Raises: InputError if `source` is not a place where labels can come from."""
    if not _SOURCE.fullmatch(source):
        raise InputError(f"labels {printable(source)!r}: expected auto, csv, folders, names or names:K with K = 1, 2 …")


def images_under(folder: Path) -> list[Path]:
    """All pictures in a folder and the folders in it, numbers in the names sorted by value.

    Hidden files and folders, and files that are no pictures by their suffix, are passed over; links to folders are
    not followed.

    Raises: InputError if a folder cannot be read or there is no picture.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{printable(error.filename)}: cannot be read ({reason(error)})") from error

    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if _is_image(name)]
    if not found:
        raise InputError(f"{printable(folder)}: no images in this folder; expected files ending in {_SUFFIXES_SHOWN}")
    return sorted(found, key=_natural)


def labelled_images(folder: Path, source: str) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """The pictures of a folder, their labels, and what the user should be told.

    Args: source: "csv", "folders", "names", "names:K", or "auto": the first of them that is there.
    Raises: InputError if the labels are not there, not whole, or told in two ways.
    """
    has_csv = os.path.lexists(folder / LABELS_CSV)
    if source == "csv" or (source == "auto" and has_csv):
        return _from_csv(folder)
    paths = images_under(folder)
    if source == "auto":
        source = "folders" if any(path.parent != folder for path in paths) else "names"
    if source == "folders":
        for path in paths:
            if path.parent.parent != folder:
                raise InputError(
                    f"{printable(path)}: not directly in a class subfolder, as expected of every image in "
                    f"{printable(folder)}; move it, or say where the labels are with {LABELS_CSV} or --labels names"
                )
    return paths, [label_of(path, source) for path in paths], ()


def label_of(path: Path, source: str) -> int:
    """The label that a picture's path tells.

    Args: source: "folders": the name of its folder; "names:K": the K-th whole number between underscores in its name,
        as in `test_<label>_<index>.png`; "names", "auto": the first.
    Raises: InputError if there is no such number.
    """
    if source == "csv":
        raise InputError(f"{printable(path)}: --labels csv needs a folder with a {LABELS_CSV}, not a single image")
    if source == "folders":
        if not _WHOLE.fullmatch(path.parent.name):
            raise InputError(
                f"{printable(path)}: its folder is called {printable(path.parent.name)!r}, "
                "expected the label, a whole number"
            )
        return int(path.parent.name)
    position = int(source.partition(":")[2] or 1)
    pieces = path.stem.split("_")
    numbers = [piece for piece in pieces if _WHOLE.fullmatch(piece)] if len(pieces) > 1 else []
    if len(numbers) < position:
        raise InputError(
            f"{printable(path)}: no label: expected {position} or more numbers between underscores, as in "
            f"test_<label>_<index>.png; or use a {LABELS_CSV}, class subfolders or --target"
        )
    return int(numbers[position - 1])


def _from_csv(folder: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    labels: dict[Path, int] = {}
    for where, name, label in _rows(folder / LABELS_CSV):
        path = Path(folder, os.path.normpath(name))
        if os.path.isabs(name) or ".." in Path(name).parts or not os.path.isfile(path):
            raise InputError(f"{where}: {printable(name)!r} is not there, expected an image in {printable(folder)}")
        if path in labels:
            raise InputError(f"{where}: {printable(name)!r} is listed a second time, expected one label an image")
        if not _WHOLE.fullmatch(label):
            raise InputError(f"{where}: label is {printable(label)!r}, expected a whole number")
        labels[path] = int(label)
    if not labels:
        raise InputError(f"{printable(folder / LABELS_CSV)}: lists no images, expected lines with file,label")
    left_out = len(set(images_under(folder)) - labels.keys())
    note = (
        f"{printable(folder / LABELS_CSV)} lists {len(labels)} of {len(labels) + left_out} images; "
        f"the other {left_out} are left out"
    )
    return list(labels), list(labels.values()), (note,) if left_out else ()


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """Where it stands, file and label of each line; a first line that names neither is a header."""
    if not os.path.isfile(path):
        raise InputError(f"{printable(path)}: no such file, or not one; expected lines with file,label")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{printable(path)}: cannot be read ({reason(error)}); expected UTF-8, file,label") from error
    for index, (line, cells) in enumerate(lines):
        where = f"{printable(path)}, line {line}"
        if len(cells) != 2:
            raise InputError(f"{where}: {len(cells)} columns, expected two: file,label")
        name, label = cells
        is_header = index == 0 and not _WHOLE.fullmatch(label) and not os.path.isfile(path.parent / name)
        if not is_header:
            yield where, name, label


_SUFFIXES_SHOWN = ", ".join(sorted(SUFFIXES))


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _natural(path: Path) -> tuple[list[list[str | int]], str]:
    """Sorts img2 before img10; the plain name decides between 1 and 01."""

    def pieces(name: str) -> list[str | int]:
        return [int(piece) if piece.isdecimal() else piece for piece in re.split("([0-9]+)", name)]

    return [pieces(part) for part in path.parts], str(path)
