"""Labels as files and arrays hold them: whole numbers from 0, or one-hot."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from jaxdefend import InputError
from jaxdefend.datasets.pixels import numbers
from jaxdefend.results.text import printable

# Rows of one-hot labels looked at together.
_BLOCK = 4096


def whole_labels(
    values: np.ndarray, n: int, name: str, names: Sequence[str], classes: int | None = None, of: str = "images"
) -> tuple[Int32[np.ndarray, " n"], str | None]:
    """One label for each of `n` images, and what the user should know about them.

    Args:
        values: (n,), (n, 1), (1, n) or one-hot (n, k).
        name: the array, for the error; names: the images.
        classes: labels must be below it.
        of: the images, for the error.
    Raises: InputError if the number of labels is not `n`, or one is not a whole number in 0 … classes − 1.
    """
    if values.dtype.kind not in "iufb":
        raise InputError(f"{name} is an array of {values.dtype}, expected whole numbers")
    note = None
    if values.ndim == 2 and n in values.shape and 1 in values.shape and values.size == n:
        values = values.reshape(n)
    elif values.ndim == 2 and len(values) == n and _is_one_hot(values):
        note = f"{name} is one-hot, {numbers(values.shape)}; the position of the 1 is used as the label"
        values = np.concatenate([values[i : i + _BLOCK].argmax(axis=1) for i in range(0, n, _BLOCK)])
    if values.shape != (n,):
        raise InputError(f"{name} is {numbers(values.shape)}, expected ({n},): one label for each of the {n:,} {of}")
    return check_labels(values, names, classes), note


def check_labels(
    labels: Sequence[int] | np.ndarray, names: Sequence[str], classes: int | None
) -> Int32[np.ndarray, " n"]:
    """Labels as int32. Raises: InputError at the first that is not a whole number in 0 … classes − 1."""
    values = np.asarray(labels)
    last = np.iinfo(np.int32).max if classes is None else classes - 1
    with np.errstate(invalid="ignore"):
        good = (values >= 0) & (values <= last) & (values == np.floor(values))
    if not good.all():
        row = int(np.argmin(good))
        value = printable(values[row], 60)
        raise InputError(f"{printable(names[row], 300)}: label is {value}, expected a whole number in 0…{last}")
    return values.astype(np.int32)


def _is_one_hot(values: np.ndarray) -> bool:
    if values.shape[1] < 2:
        return False
    blocks = (values[i : i + _BLOCK] for i in range(0, len(values), _BLOCK))
    return all((((block == 0) | (block == 1)).all() and ((block == 1).sum(axis=1) == 1).all()) for block in blocks)
