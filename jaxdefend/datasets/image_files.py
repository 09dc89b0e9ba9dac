"""Decode one picture, whatever its mode and size, to 55×47 RGB."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps

from jaxdefend import InputError

IMAGE_SHAPE = (55, 47, 3)
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
MAX_PIXELS = 64_000_000


def printable(text: object) -> str:
    """`text` in one line that every terminal takes: control characters and undecodable bytes are escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def reason(error: Exception) -> str:
    """What a library has to say about a file, in one line."""
    return printable(getattr(error, "strerror", None) or error) or type(error).__name__


def size(path: Path) -> tuple[int, int]:
    """Height and width of a picture as it will be seen, from its header.

    Raises: InputError if it is not a readable PNG, JPEG, BMP or WebP, or has more than 64 megapixels.
    """
    with _opened(path) as image:
        on_its_side = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        width, height = reversed(image.size) if on_its_side else image.size
        return height, width


def decode(path: Path) -> UInt8[np.ndarray, "55 47 3"]:
    """A picture as RGB: turned as its EXIF says, transparency on white, resized if it has another size.

    Raises: InputError as `size` does, and if the picture is damaged or incomplete.
    """
    with _opened(path) as image:
        return resized(_rgb(ImageOps.exif_transpose(image)))


def resized(image: Image.Image) -> UInt8[np.ndarray, "55 47 3"]:
    """An RGB picture at 55×47, bilinear."""
    height, width, _ = IMAGE_SHAPE
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not os.path.isfile(path):  # a pipe would wait for ever
        raise InputError(f"{printable(path)}: no such file, or not one; expected a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise InputError(
                        f"{printable(path)}: {height}×{width} pixels, expected at most {MAX_PIXELS:,}; make it smaller"
                    )
                yield image
    except InputError:
        raise
    except Exception as error:  # Pillow's parsers let through struct.error, SyntaxError, zlib.error, IndexError …
        raise InputError(
            f"{printable(path)}: cannot be read ({reason(error)}); expected a complete PNG, JPEG, BMP or WebP"
        ) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips it at 255
        grey = np.asarray(image).astype(np.int32)
        if "transparency" in image.info:
            grey = np.where(grey == image.info["transparency"], 65535, grey)
        return Image.fromarray(((grey + 128) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
