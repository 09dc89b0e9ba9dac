"""Pixels as they come out of files and arrays: their axes, their values, and another size or number of channels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from jaxdefend import InputError

# Height, width, channels.
Shape = tuple[int, int, int]
Pixels = UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n h w c"]

MAX_PIXELS = 64_000_000
# JPEG's own limit. Pillow keeps a pointer for each line, so a picture one pixel wide costs gigabytes.
MAX_SIDE = 65_535
MAX_IMAGE_BYTES = 2**28
MAX_IMAGES = 10_000_000
# 28×28 digits for a net of 224×224 are 8 times as large; more is not a picture of anything.
MAX_ENLARGEMENT = 16


class Layout(NamedTuple):
    """How many images an array holds, their shape, and which of its axes is which."""

    n: int
    shape: Shape
    axes: str

    def images(self, values: np.ndarray) -> np.ndarray:
        """Some of the array's rows as (n, h, w, c)."""
        if self.axes == "nchw":
            return np.moveaxis(values, 1, -1)
        return values[..., None] if self.axes == "nhw" else values


def layout(shape: tuple[int, ...], name: str) -> Layout:
    """The layout of an array of images in a file; where both fit, channels come first.

    Args:
        name: the array, for the error.
    Raises: InputError if the array does not hold images, or holds too many or too large ones.
    """
    if len(shape) == 4 and shape[1] in (1, 3):
        found = Layout(shape[0], (shape[2], shape[3], shape[1]), "nchw")
    elif len(shape) == 4 and shape[3] in (1, 3):
        found = Layout(shape[0], (shape[1], shape[2], shape[3]), "nhwc")
    elif len(shape) == 3:
        found = Layout(shape[0], (shape[1], shape[2], 1), "nhw")
    else:
        raise InputError(
            f"{name} is {numbers(shape)}, expected (n, c, h, w), (n, h, w, c) or (n, h, w), 1 or 3 channels"
        )
    check_size(found, numbers(shape), name)
    return found


def check_size(found: Layout, shape: str, name: str) -> None:
    """Raises: InputError if there is nothing to see, or more than can be read."""
    height, width, _ = found.shape
    if not found.n:
        raise InputError(f"{name} is {shape}: no images, expected at least one")
    if found.n > MAX_IMAGES:
        raise InputError(f"{name} is {shape}: {found.n:,} images, expected at most {MAX_IMAGES:,}; split the file")
    if not 0 < height * width <= MAX_PIXELS:
        raise InputError(f"{name}: images are {height}×{width}, expected 1 to {MAX_PIXELS:,} pixels")
    if max(height, width) > MAX_SIDE:
        raise InputError(f"{name}: images are {height}×{width}, expected at most {MAX_SIDE:,} pixels a side")


def numbers(shape: tuple[int, ...]) -> str:
    """A shape, short whatever the number of its axes."""
    return str(shape) if len(shape) <= 8 else f"({', '.join(map(str, shape[:8]))}, …)"


def dimensions(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def check_enlargement(native: tuple[int, int], shape: Shape, name: str) -> None:
    """Raises: InputError if images are too small to be enlarged to `shape`."""
    if any(wanted > MAX_ENLARGEMENT * side for wanted, side in zip(shape, native, strict=False)):
        raise InputError(
            f"{name}: images are {dimensions(native)}, too small for {dimensions(shape[:2])}; expected at most "
            f"{MAX_ENLARGEMENT}-fold enlargement"
        )


def checked(values: np.ndarray, rows: range, name: str) -> np.ndarray:
    """Pixels as uint8 if they are whole numbers, else as float32.

    Args:
        rows: which rows of the file or array these are, for the error.
    Raises: InputError if a value is not in 0…255, or all of them lie in 0…1 and are not black.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        raise InputError(f"{name}: pixels are true or false, expected 0…255")
    good = (values >= 0) & (values <= 255)
    if not good.all():
        where = np.unravel_index(np.argmin(good), good.shape)
        raise InputError(f"{name}[{rows[int(where[0])]}]: a pixel is {values[where]}, expected 0…255")
    whole = values.astype(np.uint8)
    is_whole, largest = np.array_equal(whole, values), values.max()
    if is_whole and largest != 1:
        return whole
    if largest <= 1:
        raise InputError(f"{name}: pixels lie in 0…1 from row {rows[0]} on, expected 0…255; multiply by 255")
    return values.astype(np.float32)


def fitted(
    pixels: Pixels, shape: Shape
) -> UInt8[np.ndarray, "n height width channels"] | Float32[np.ndarray, "n height width channels"]:
    """The images at another shape: resized (bilinear), grey from RGB as Pillow's "L", RGB from grey by repeating."""
    native = pixels.shape[1:]
    if native == shape:
        return pixels
    if native[:2] == shape[:2] and native[2] == 1:
        return np.repeat(pixels, shape[2], axis=-1)
    if not len(pixels):
        return np.empty((0, *shape), np.uint8)
    rounded = np.ascontiguousarray(np.rint(pixels).astype(np.uint8))
    return np.stack([resized(Image.fromarray(image[..., 0] if native[2] == 1 else image), shape) for image in rounded])


def resized(image: Image.Image, shape: Shape) -> UInt8[np.ndarray, "h w c"]:
    """A grey or RGB picture at `shape`."""
    height, width, channels = shape
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[..., None] if channels == 1 else pixels


def check_shape(shape: Sequence[int]) -> Shape:
    """Raises: InputError if `shape` is not (height, width, 1 or 3)."""
    try:
        height, width, channels = (int(side) for side in shape)
    except (TypeError, ValueError) as error:
        raise InputError(f"shape {shape!r}: expected (height, width, channels)") from error
    if (
        height < 1
        or width < 1
        or max(height, width) > MAX_SIDE
        or height * width > MAX_PIXELS
        or channels not in (1, 3)
    ):
        raise InputError(f"shape {numbers(tuple(shape))}: expected (height, width, channels) with 1 or 3 channels")
    return height, width, channels
