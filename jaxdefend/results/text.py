"""Text that is safe to print, sorted as people sort it, and set in columns."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence


def printable(text: object, limit: int | None = None) -> str:
    """`text` in one line that every terminal takes: control characters and undecodable bytes are escaped.

    Args:
        limit: longer text is cut in the middle to so many characters.
    """
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))
    return line if limit is None else shortened(line, limit)


def shortened(text: str, limit: int) -> str:
    """`text`, or its beginning and its end with … between them if it is longer than `limit`."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def listed(names: Sequence[str], limit: int = 8) -> str:
    """For a message: the first names, and how many more."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def natural(name: str) -> list[str | tuple[int, str]]:
    """A sort key by which image_2 comes before image_10."""
    # Text and numbers alternate, so that keys can be compared; a number is its length and its digits.
    pieces = re.split("([0-9]+)", name)
    pieces[1::2] = [(len(digits.lstrip("0")), digits.lstrip("0")) for digits in pieces[1::2]]
    return pieces


def titled(name: str, images: Mapping[str, int], width: int = 90) -> str:
    """What a figure shows: the net's name, and how many images of each set."""
    counts = ", ".join(f"{n:,} {printable(of, 40)}" for of, n in images.items())
    return textwrap.fill(f"{printable(name, 60)}; images: {counts}", width)


def narrow(name: str, width: int = 14) -> str:
    """A name over a small picture, in lines."""
    return textwrap.fill(printable(name, 60), width)


def counted(n: int, what: str) -> str:
    """ "1 image", "2,000 images"."""
    return f"{n:,} {what if n == 1 else f'{what}s'}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under their headings, the first one flush left, the others flush right."""
    # A line break in a name would make lines of its own.
    lines = [[cell.replace("\r", "\\r").replace("\n", "\\n") for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()

    return "\n".join(map(line, lines))
