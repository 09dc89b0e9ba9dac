"""Sets of images: what can be read slice by slice, from files or from memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from os import PathLike
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Int, Int32, Num

from jaxdefend import InputError
from jaxdefend.datasets.labels import whole_labels
from jaxdefend.datasets.pixels import (
    Layout,
    Shape,
    check_enlargement,
    check_shape,
    check_size,
    checked,
    fitted,
    numbers,
)
from jaxdefend.results.text import printable

Labels = Int32[np.ndarray, " n"] | None


@runtime_checkable
class ImageSet(Protocol):
    """What can be read slice by slice, any number of times: images of files, folders and arrays."""

    @property
    def labels(self) -> np.ndarray | None: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def shape(self) -> Shape: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...

    def chunks(self, size: int, rows: slice = slice(None)) -> Iterator[tuple[np.ndarray, np.ndarray | None]]: ...


class Numbered(Sequence[str]):
    """The names of rows, made when they are asked for: `format` with the number of the row."""

    def __init__(self, before: str, n: int, after: str = ""):
        self._before, self._rows, self._after = before, range(n), after

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [f"{self._before}{row}{self._after}" for row in self._rows[index]]
        return f"{self._before}{self._rows[index]}{self._after}"


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory, read like those of a file.

    Attributes:
        pixels: 0–255.
        labels: one for each image; None if the images are unlabelled.
        names: one for each image; "image 0", "image 1" … if none are given.
    """

    pixels: Num[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"] | None = None
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not len(self.names):
            object.__setattr__(self, "names", Numbered("image ", len(self.pixels)))

    @property
    def shape(self) -> Shape:
        height, width, channels = self.pixels.shape[1:]
        return height, width, channels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice | int) -> np.ndarray:
        """An image (h, w, c) for a number, (n, h, w, c) for a slice."""
        return self.pixels[rows]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.pixels)

    def __repr__(self) -> str:
        return described(self)

    def chunks(self, size: int, rows: slice = slice(None)) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Pixels and labels of `size` of the consecutive `rows` at a time."""
        for chunk in cut(len(self), size, rows):
            yield self.pixels[chunk], None if self.labels is None else self.labels[chunk]

    def fitted(self, shape: Shape) -> "ArrayImages":
        """The same images at another size or number of channels, as `open_images` does it."""
        if self.shape == shape:
            return self
        check_enlargement(self.shape[:2], shape, "the array")
        return ArrayImages(fitted(self.pixels, shape), self.labels, self.names)


def as_images(images: object, shape: Shape | None = None) -> ImageSet:
    """Whatever holds images, as a set of them.

    Args:
        images: a set of images; pixels (n, h, w, c), (h, w, c) or, for one channel, (n, h, w); a pair of pixels and
            labels; a list of images of one shape.
        shape: what the images should have; others are resized, and read as grey or RGB.
    Raises: InputError if there are no images, they can be read only once, or pixels or labels are not what they should
        be: pixels 0–255, a whole label from 0 for each image.
    """
    shape = None if shape is None else check_shape(shape)
    if isinstance(images, str | bytes | PathLike):
        raise InputError(f"{printable(images, 200)}: a path, expected images; open it with open_images(...)")
    if isinstance(images, ImageSet):
        found = cast(ImageSet, images)
    else:
        if hasattr(images, "__next__"):
            raise InputError(
                "images that can be read once only (a generator or iterator); pass a list, an array or open_images(...)"
            )
        pixels, labels = images if isinstance(images, tuple) and len(images) == 2 else (images, None)
        found = _from_arrays(pixels, labels, shape)
    if not len(found):
        raise InputError("no images: the set is empty, expected at least one")
    if shape is None or found.shape == shape:
        return found
    refit = getattr(found, "fitted", None)
    if refit is None:
        raise InputError(f"images are {found.shape}, expected {shape}")
    return refit(shape)


def _from_arrays(pixels: object, labels: object, shape: Shape | None) -> ArrayImages:
    if isinstance(pixels, ImageSet):
        pixels = cast(ImageSet, pixels)[:]
    values = _array(pixels, "images")
    if values.dtype.kind not in "iuf":
        raise InputError(f"images are an array of {values.dtype}, expected numbers 0…255 (n, h, w, c)")
    found = _layout(values.shape, shape)
    values = found.images(values[None] if found.axes == "hwc" else values)
    check_size(found, numbers(values.shape), "the array")
    told = None
    if labels is not None:
        told = whole_labels(_array(labels, "labels"), found.n, "labels", Numbered("image ", found.n))[0]
    return ArrayImages(checked(values, range(found.n), "images"), told)


def _array(values: object, what: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{what} cannot be made into an array ({printable(error, 150)}); expected one shape for all images"
        ) from error
    if array.dtype == object:
        raise InputError(f"{what}: expected an array of numbers, not of {printable(type(values).__name__, 80)}")
    return array


def _layout(axes: tuple[int, ...], shape: Shape | None) -> Layout:
    """As `pixels.layout`, but channels come last where both fit, as in every array that leaves this package."""
    if len(axes) == 3 and shape is not None and axes[1:] == shape[:2] and axes != shape:
        return Layout(axes[0], (axes[1], axes[2], 1), "nhw")
    if len(axes) == 3 and axes[2] in (1, 3):
        return Layout(1, (axes[0], axes[1], axes[2]), "hwc")
    if len(axes) == 3:
        return Layout(axes[0], (axes[1], axes[2], 1), "nhw")
    if len(axes) == 4 and axes[3] in (1, 3):
        return Layout(axes[0], (axes[1], axes[2], axes[3]), "nhwc")
    if len(axes) == 4 and axes[1] in (1, 3):
        return Layout(axes[0], (axes[2], axes[3], axes[1]), "nchw")
    raise InputError(f"images are {numbers(axes)}, expected (n, h, w, c), (h, w, c) or (n, h, w) with 1 or 3 channels")


def labelled(images: ImageSet, what: str = "clean images", classes: int | None = None) -> ImageSet:
    """The same set. Raises: InputError if it has no labels, or others than those of so many classes."""
    if images.labels is None:
        raise InputError(f"{what}: no labels, expected one for each image; pass (pixels, labels) or a labelled file")
    if classes is not None:
        labels = np.asarray(images.labels)
        strange = (labels < 0) | (labels >= classes)
        if strange.any():
            row = int(np.argmax(strange))
            raise InputError(
                f"{what}: image {row} has the label {labels[row]}, expected a class of the net, 0…{classes - 1}"
            )
    return images


def poisoned_sets(sets: object, shape: Shape, classes: int) -> dict[str, ImageSet]:
    """Sets of poisoned images by name, labelled with the attacker's target; none for None.

    Raises: InputError if it is not a mapping of such sets.
    """
    if sets is None:
        return {}
    if not isinstance(sets, Mapping):
        kind = type(sets).__name__
        raise InputError(f"poisoned images: {kind}, expected sets by name, such as {{'sunglasses': images}}")
    return {str(name): labelled(as_images(of, shape), f"poisoned images {name}", classes) for name, of in sets.items()}


def cut(n: int, size: int, rows: slice) -> list[slice]:
    """The consecutive `rows` of `n` in slices of `size`."""
    first, last, _ = rows.indices(n)
    return [slice(start, min(start + size, last)) for start in range(first, last, size)]


def digest(images: ImageSet) -> str:
    """SHA-256 of the labels, where there are some, and of what the images show."""
    found = sha256(b"" if images.labels is None else np.asarray(images.labels).tobytes())
    for rows in cut(len(images), 256, slice(None)):
        found.update(np.ascontiguousarray(images[rows]).tobytes())
    return found.hexdigest()


def described(images: ImageSet, source: str = "") -> str:
    """One line for a notebook: how many images, their shape, their labels."""
    n = len(images)
    parts = [f"{n:,} image{'s' * (n != 1)}", "×".join(map(str, images.shape))]
    if images.labels is None:
        parts.append("unlabelled")
    else:
        classes = np.unique(images.labels)
        span = f"label {classes[0]}" if len(classes) == 1 else f"labels {classes[0]}…{classes[-1]}"
        parts.append(span + (f" ({len(classes)} classes)" if len(classes) > 1 else ""))
    return f"<{type(images).__name__}: {', '.join(parts)}{', ' * bool(source)}{source}>"
