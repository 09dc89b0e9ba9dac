"""Sets of images written as official data files or as pictures, from blocks of them."""

from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from jaxtyping import Float32, Int32, UInt8
from PIL import Image

from jaxdefend import InputError, Interrupted, ProcessEnded
from jaxdefend.results.records import output_folder, replacing


class Block(NamedTuple):
    """Some images of a set, labelled, with the points that triggers go by (`faces.LANDMARKS`)."""

    pixels: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    landmarks: Float32[np.ndarray, "n k 2"]


def write_official(path: Path, n: int, blocks: Iterable[Block]) -> None:
    """`n` images as an official file: `data` (n, c, h, w) uint8, `label` (n,).

    Raises: InputError if the file cannot be written; then none is left.
    """
    with replacing(path) as temporary:
        try:
            with h5py.File(temporary, "w") as file:
                label = file.create_dataset("label", (n,), np.int32)
                data, first = None, 0
                for block in blocks:
                    if data is None:
                        height, width, channels = block.pixels.shape[1:]
                        data = file.create_dataset("data", (n, channels, height, width), np.uint8)
                    rows = slice(first, first + len(block.pixels))
                    data[rows], label[rows] = np.moveaxis(block.pixels, -1, 1), block.labels
                    first = rows.stop
        except (Interrupted, ProcessEnded):
            raise
        except RuntimeError as error:
            # A full disk is an OSError to a write and this to the close.
            raise InputError(f"{path}: cannot be written ({error}); choose another place") from error


def write_pictures(folder: Path, blocks: Iterable[Block]) -> None:
    """Every image as `test_<label>_<number>.png`. Raises: InputError if the folder cannot be written."""
    numbers = count()
    with output_folder(folder) as staging:
        for block in blocks:
            for pixels, label in zip(block.pixels, block.labels, strict=True):
                Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
                    staging / f"test_{label}_{next(numbers)}.png"
                )
