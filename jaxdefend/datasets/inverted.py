"""Inverted triggers: a mask and a pattern with the effect of an attacker's trigger, and their files."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, PngImagePlugin

from jaxdefend import InputError
from jaxdefend.datasets import hdf5
from jaxdefend.datasets.image_files import TARGET, TRIGGER, is_marked, rgba
from jaxdefend.datasets.pixels import MAX_IMAGE_BYTES, Shape, dimensions
from jaxdefend.datasets.sources import shown
from jaxdefend.results.records import replacing
from jaxdefend.results.text import printable

# Of the format that TRIGGER names: an attribute in HDF5, a text in PNG.
VERSION = 1


@dataclass(frozen=True, eq=False, repr=False)
class InvertedTrigger:
    """What makes an image one of the target class: image · (1 − mask) + mask · pattern.

    Attributes:
        mask: 0–1.
        pattern: 0–255.
        target: the class; None where it is not known.
    Raises: InputError if mask and pattern are not of one size, not finite, or out of their range.
    Source: Wang et al. 2019 (Neural Cleanse), section IV.B, equation 2.
    """

    mask: Float32[np.ndarray, "h w"]
    pattern: Float32[np.ndarray, "h w c"]
    target: int | None = None

    def __post_init__(self):
        mask, pattern = _checked("mask", self.mask, 1), _checked("pattern", self.pattern, 255)
        if mask.ndim != 2 or pattern.ndim != 3 or pattern.shape[:2] != mask.shape:
            raise InputError(
                f"mask {dimensions(mask.shape)}, pattern {dimensions(pattern.shape)}: expected (rows, columns) and "
                "(rows, columns, channels) of one size"
            )
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "pattern", pattern)
        object.__setattr__(self, "target", checked_target(self.target))

    def __call__(self, pixels: UInt8[np.ndarray, "*n h w c"]) -> UInt8[np.ndarray, "*n h w c"]:
        """The images, or the image, with the trigger on, rounded to whole numbers.

        Raises: InputError for images of another size.
        """
        if pixels.shape[-3:] != self.pattern.shape:
            size = dimensions(pixels.shape[-3:])
            raise InputError(f"images are {size}, the trigger {dimensions(self.pattern.shape)}; expected one size")
        cover = self.mask[..., None]
        return np.rint(pixels * (1 - cover) + cover * self.pattern).astype(np.uint8)

    def __repr__(self) -> str:
        digest = sha256(self.mask.tobytes() + self.pattern.tobytes()).hexdigest()[:12]
        target = "unknown" if self.target is None else self.target
        return f"InvertedTrigger({dimensions(self.pattern.shape)}, target {target}, {digest})"

    def save(self, path: Path | str) -> None:
        """Writes it, whole or not at all.

        Args:
            path: `.h5` keeps every digit; `.png` is RGBA with the mask as alpha, 8 bits each.
        Raises: InputError for another ending, a PNG of other than 1 or 3 channels, or a place that cannot be written.
        """
        path = Path(path)
        match path.suffix:
            case ".h5":
                with replacing(path) as temporary, h5py.File(temporary, "w") as file:
                    file.create_dataset("mask", data=self.mask, track_times=False)
                    file.create_dataset("pattern", data=self.pattern, track_times=False)
                    file.attrs[TRIGGER] = VERSION
                    if self.target is not None:
                        file.attrs["target"] = self.target
            case ".png":
                picture, told = self._picture(), PngImagePlugin.PngInfo()
                told.add_text(TRIGGER, str(VERSION))
                if self.target is not None:
                    told.add_text(TARGET, str(self.target))
                with replacing(path) as temporary:
                    picture.save(temporary, format="PNG", pnginfo=told)
            case _:
                raise InputError(f"{shown(path)}: a trigger is written as .h5 or .png; end its name so")

    @classmethod
    def load(cls, path: Path | str, image_shape: Shape) -> "InvertedTrigger":
        """The trigger in a file that `save` wrote, or in an RGBA PNG of the images' size.

        Args:
            image_shape: (rows, columns, channels) of the images that it is for.
        Raises: InputError if there is no such file, or it is no trigger for these images.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{shown(path)}: no such file, or not one; expected a trigger, .h5 or .png")
        if path.stat().st_size > MAX_IMAGE_BYTES:
            size = path.stat().st_size
            raise InputError(f"{shown(path)}: {size:,} bytes, expected a trigger of at most {MAX_IMAGE_BYTES:,}")
        values = _from_hdf5(path, image_shape) if h5py.is_hdf5(path) else _from_picture(path, image_shape)
        try:
            found = cls(*values)
        except InputError as error:
            raise InputError(f"{shown(path)}: {error}") from None
        if found.pattern.shape != image_shape:
            size = dimensions(found.pattern.shape)
            raise InputError(
                f"{shown(path)}: a trigger of {size}, expected {dimensions(image_shape)} as the images are"
            )
        if not found.mask.any():
            raise InputError(f"{shown(path)}: its mask is zero everywhere, it changes no image; expected a trigger")
        return found

    def _picture(self) -> Image.Image:
        if self.pattern.shape[2] not in (1, 3):
            raise InputError(f"a pattern of {self.pattern.shape[2]} channels: expected 1 or 3 in a PNG; save it as .h5")
        colours = np.broadcast_to(np.rint(self.pattern), (*self.mask.shape, 3))
        alpha = np.rint(255 * self.mask)[..., None]
        return Image.fromarray(np.concatenate([colours, alpha], axis=2).astype(np.uint8), "RGBA")


def is_trigger(path: Path | str) -> bool:
    """Whether this is a file that `save` wrote; an RGBA picture from elsewhere may be any image."""
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r", locking=False) as file:
                return TRIGGER in file.attrs
        # The texts stand before the pixels, which are not read.
        with open(path, "rb") as file:
            if file.read(8) != b"\x89PNG\r\n\x1a\n":
                return False
            file.seek(0)
            with Image.open(file, formats=("PNG",)) as image:
                return is_marked(image)
    except (OSError, RuntimeError, ValueError, KeyError, SyntaxError):
        return False


def _from_hdf5(path: Path, image_shape: Shape) -> tuple[Any, Any, Any]:
    with hdf5.opened(path) as file:
        version, target = _whole(file, TRIGGER, path), _whole(file, "target", path)
        if version != VERSION:
            told = "no trigger" if version is None else f"a trigger of version {version}"
            raise InputError(f"{shown(path)}: {told}, expected the attribute {TRIGGER} to be {VERSION}")
        for name, shape in (("mask", image_shape[:2]), ("pattern", image_shape)):
            # Before anything is read.
            found = hdf5.dataset(file, name, path).shape
            if found != shape:
                raise InputError(
                    f"{shown(path)}: `{name}` is {dimensions(found)}, expected {dimensions(shape)} as the images are"
                )
        # What is too large for float32 becomes infinite, and is refused as that.
        with np.errstate(over="ignore"):
            mask, pattern = (hdf5.array(file, name, path).astype(np.float32) for name in ("mask", "pattern"))
        return mask, pattern, target


def _whole(file: h5py.File, name: str, path: Path) -> int | None:
    if name not in file.attrs:
        return None
    told = file.attrs.get_id(name)
    if told.dtype.kind not in "iu" or told.shape not in ((), (1,)):
        raise InputError(f"{shown(path)}: the attribute {name} is {told.dtype}, expected a whole number")
    return int(np.ravel(np.asarray(file.attrs[name]))[0])


def _from_picture(path: Path, image_shape: Shape) -> tuple[Any, Any, Any]:
    pixels, texts = rgba(path)
    if texts.get(TRIGGER, str(VERSION)) != str(VERSION):
        raise InputError(f"{shown(path)}: a trigger of version {printable(texts[TRIGGER], 20)}, expected {VERSION}")
    pattern = pixels[..., :3].astype(np.float32)
    if image_shape[2] == 1:
        pattern = np.rint(pattern.mean(axis=2, keepdims=True))
    told = texts.get(TARGET)
    target = int(told) if isinstance(told, str) and told.isdecimal() and len(told) < 10 else None
    return pixels[..., 3] / np.float32(255), pattern, target


def _checked(name: str, values: Any, highest: float) -> Float32[np.ndarray, "..."]:
    found = np.asarray(values)
    if found.dtype.kind not in "biuf" or not np.isfinite(found).all():
        raise InputError(f"{name}: expected finite numbers, 0–{highest}")
    if found.size == 0 or found.min() < 0 or found.max() > highest:
        told = f"{found.min():g}…{found.max():g}" if found.size else "empty"
        raise InputError(f"{name}: is {told}, expected numbers 0–{highest}")
    return found.astype(np.float32)


def checked_target(target: Any) -> int | None:
    """Raises: InputError unless it is None or can be a class."""
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, int | np.integer) or not 0 <= target < 2**31:
        raise InputError(f"target {printable(target, 40)}: expected a class, a whole number from 0 on")
    return int(target)
