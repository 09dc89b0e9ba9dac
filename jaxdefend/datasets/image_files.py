"""Decode one picture, whatever its mode and size."""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from jaxdefend import InputError
from jaxdefend.datasets.pixels import MAX_PIXELS, MAX_SIDE, Shape, resized
from jaxdefend.datasets.sources import reason, shown

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
# The texts by which a PNG says that it is an inverted trigger, and for which class.
TRIGGER, TARGET = "jaxdefend_trigger", "jaxdefend_target"
_EXPECTED = "PNG, JPEG, BMP, WebP, TIFF or GIF"


class Seen(NamedTuple):
    """A picture as it will be seen, from its header."""

    height: int
    width: int
    is_grey: bool


def seen(path: Path) -> Seen:
    """What the header of a picture says.

    Raises: InputError if it is not a readable picture, has more than 64 megapixels or more than 65,535 on a side, or
        is an inverted trigger.
    """
    with _opened(path) as image:
        if is_marked(image):
            raise InputError(f"{shown(path)}: an inverted trigger, expected an image")
        on_its_side = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = reversed(image.size) if on_its_side else image.size
        return Seen(height, width, image.mode in ("1", "L", "LA") or image.mode.startswith("I"))


def decode(path: Path, shape: Shape) -> UInt8[np.ndarray, "h w c"]:
    """A picture at `shape`: turned as its EXIF says, transparency on white, grey as Pillow's "L" where c is 1.

    Raises: InputError as `seen` does of any picture, and if it is damaged or incomplete.
    """
    with _opened(path) as image:
        return resized(_rgb(ImageOps.exif_transpose(image)), shape)


def rgba(path: Path) -> tuple[UInt8[np.ndarray, "h w 4"], Mapping[str, str]]:
    """A picture with its transparency, 0 where nothing is to be seen, and the texts in it.

    Raises: InputError as `decode` does, and if it has no transparency.
    """
    with _opened(path) as image:
        image.load()
        if not image.has_transparency_data:
            raise InputError(f"{shown(path)}: has no transparency, expected an RGBA picture")
        return np.asarray(image.convert("RGBA")), dict(getattr(image, "text", {}))


def is_marked(image: Image.Image) -> bool:
    """Whether the picture says that it is an inverted trigger."""
    return TRIGGER in image.info or TARGET in image.info


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not os.path.isfile(path):  # a pipe would wait for ever
        raise InputError(f"{shown(path)}: no such file, or not one; expected a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise InputError(
                        f"{shown(path)}: {height}×{width} pixels, expected at most {MAX_PIXELS:,}; make it smaller"
                    )
                if max(width, height) > MAX_SIDE:
                    raise InputError(f"{shown(path)}: {height}×{width} pixels, expected at most {MAX_SIDE:,} on a side")
                yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:  # which says no more than the path
        raise InputError(f"{shown(path)}: cannot identify it as a picture; expected a complete {_EXPECTED}") from error
    except Exception as error:  # Pillow's parsers let through struct.error, SyntaxError, zlib.error, IndexError …
        raise InputError(f"{shown(path)}: cannot be read ({reason(error)}); expected a complete {_EXPECTED}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("grey values are floats, whose range nothing says; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips it at 255
        grey = np.asarray(image).astype(np.int32)
        if grey.size and (grey.min() < 0 or grey.max() > 65535):
            raise ValueError(f"grey values {grey.min()}…{grey.max()}, more than 16 bits")
        if "transparency" in image.info:
            grey = np.where(grey == image.info["transparency"], 65535, grey)
        return Image.fromarray(((grey + 128) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
