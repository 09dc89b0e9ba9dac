"""What a page is made of: text, tables, charts, pictures. All text is plain; the template escapes it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from jaxdefend.reports.charts import Chart
from jaxdefend.results.rates import Rate
from jaxdefend.results.text import printable

# The longer side of a picture on the page, in pixels, and the bytes above which it becomes a JPEG.
_SIDE, _BYTES = 160, 12_000


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what it shows, what it is sorted by, and what pointing at it says."""

    text: str
    sort: float | None = None
    tip: str = ""


@dataclass(frozen=True)
class Table:
    """A table; `folded` ones open on a click."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    kind: str = "table"

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers: they stand flush right."""
        return [any(row[column].sort is not None for row in self.rows) for column in range(len(self.header))]


@dataclass(frozen=True)
class Text:
    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Charts:
    """Charts side by side."""

    charts: Sequence[Chart]
    kind: str = "charts"


@dataclass(frozen=True)
class Picture:
    """An image with the text under it; `mark` is "bad", "good", "flag" or ""."""

    src: str
    alt: str
    caption: str
    mark: str = ""


@dataclass(frozen=True)
class Pictures:
    heading: str
    pictures: Sequence[Picture]
    note: str = ""
    wide: bool = False
    kind: str = "pictures"


@dataclass(frozen=True)
class Drawing:
    """An SVG of our own, and what it shows."""

    svg: str
    caption: str
    kind: str = "drawing"


@dataclass(frozen=True)
class Explorer:
    """The slider over the curve, with its faces; `data` is what the script reads."""

    channels: int
    start: int
    faces: Sequence[Picture]
    data: dict
    kind: str = "explorer"


Block = Text | Table | Charts | Pictures | Drawing | Explorer


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: Sequence[Block]


def cell(value: object, tip: str = "") -> Cell:
    """A cell for text, a number, a rate, or nothing."""
    match value:
        case None:
            return Cell("–")
        case Rate():
            low, high = value.interval
            told = tip or f"{value.count:,} of {value.n:,}; 95 % interval {100 * low:.2f}–{100 * high:.2f} %"
            return Cell(f"{100 * value.share:.2f} % [{100 * low:.1f}, {100 * high:.1f}]", value.share, told)
        case bool():
            return Cell("yes" if value else "no", float(value), tip)
        case int():
            return Cell(f"{value:,}", float(value), tip)
        case float():
            return Cell(f"{value:.4g}", value if np.isfinite(value) else None, tip)
        case _:
            return Cell(printable(value, 300), None, tip)


def rows(lines: Sequence[Sequence[object]]) -> list[list[Cell]]:
    return [[value if isinstance(value, Cell) else cell(value) for value in line] for line in lines]


def uri(pixels: UInt8[np.ndarray, "h w c"], is_photo: bool = True) -> str:
    """The image inside the page; a large photo is made smaller."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    if is_photo and max(image.size) > _SIDE:
        image.thumbnail((_SIDE, _SIDE))
    written = io.BytesIO()
    image.save(written, format="png", optimize=True)
    kind = "png"
    if is_photo and len(written.getvalue()) > _BYTES:
        written, kind = io.BytesIO(), "jpeg"
        image.convert("RGB").save(written, format="jpeg", quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode()}"
