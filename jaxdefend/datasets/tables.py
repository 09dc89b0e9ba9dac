"""labels.csv: file and label of each picture, as people and their programs write it."""

import codecs
import csv
import os
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

from jaxdefend import InputError
from jaxdefend.datasets.names import whole
from jaxdefend.datasets.sources import reason, shown
from jaxdefend.results.text import printable

_MAX_BYTES = 2**24
_DELIMITERS = (",", ";", "\t")


def labels_in(path: Path) -> dict[Path, int]:
    """The pictures that a labels.csv lists, in its order, with their labels.

    Columns are file and label, separated by commas, semicolons or tabs; a header and a row number in front of them
    are skipped. UTF-8, or UTF-16 with a byte-order mark.

    Raises: InputError with the line that is not as it should be.
    """
    folder = path.parent
    labels: dict[Path, int] = {}
    for line, name, label in _rows(path):
        where = f"{shown(path)}, line {line}"
        picture = _picture(folder, name)
        if picture is None:
            raise InputError(f"{where}: {printable(name, 80)!r} is not there, expected an image in this folder")
        if picture in labels:
            raise InputError(f"{where}: {printable(name, 80)!r} is listed a second time, expected one label per image")
        number = whole(label)
        if number is None:
            raise InputError(f"{where}: label is {printable(label, 60)!r}, expected a whole number")
        labels[picture] = number
    if not labels:
        raise InputError(f"{shown(path)}: lists no images, expected lines with file,label")
    return labels


def _picture(folder: Path, name: str) -> Path | None:
    """The file of this name in the folder, written with / or \\."""
    for written in dict.fromkeys((name, name.replace("\\", "/"))):
        inside = not os.path.isabs(written) and ".." not in Path(written).parts
        path = Path(folder, os.path.normpath(written))
        if inside and written and os.path.isfile(path):
            return path
    return None


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, file and label of each line; a first line that names neither is a header."""
    if not os.path.isfile(path):
        raise InputError(f"{shown(path)}: no such file, or not one; expected lines with file,label")
    try:
        size = os.path.getsize(path)
        if size > _MAX_BYTES:
            raise InputError(f"{shown(path)}: {size:,} bytes, expected a table of at most {_MAX_BYTES:,}")
        with open(path, "rb") as file:
            begin = file.read(4096)
            file.seek(0)
            text = TextIOWrapper(file, encoding=_encoding(begin), newline="")
            yield from _cells(text, path)
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{shown(path)}: cannot be read ({reason(error)}); expected UTF-8, file,label") from error


def _encoding(begin: bytes) -> str:
    return "utf-16" if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _cells(text: TextIOWrapper, path: Path) -> Iterator[tuple[int, str, str]]:
    reader = csv.reader(text, strict=True, delimiter=_delimiter(text))
    is_first, has_index, index = True, False, 0
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if is_first and len(cells) == 3:
            # pandas writes the number of the row first, under no name.
            has_index = cells[0] in ("", "index", "Unnamed: 0") or (cells[0] == "0" and whole(cells[1]) is None)
        where = f"{shown(path)}, line {reader.line_num}"
        if len(cells) != 2 + has_index:
            raise InputError(f"{where}: {len(cells)} columns, expected {'three' if has_index else 'two'}: file,label")
        *numbered, name, label = cells
        is_header = is_first and whole(label) is None and _picture(path.parent, name) is None
        is_first = False
        if is_header:
            continue
        if has_index and numbered != [str(index)]:
            raise InputError(f"{where}: row number is {printable(numbered[0], 60)!r}, expected {index}")
        index += 1
        yield reader.line_num, name, label


def _delimiter(text: TextIOWrapper) -> str:
    """The one that separates the first line into two columns, or into the three of pandas."""
    line = next((line for line in text.read(100_000).splitlines() if line.strip()), "")
    text.seek(0)
    columns = {delimiter: len(next(csv.reader([line], delimiter=delimiter), [])) for delimiter in _DELIMITERS}
    return next((mark for n in (2, 3) for mark in _DELIMITERS if columns[mark] == n), ",")
