"""What processes of a run say to each other, as bytes: JSON, and arrays beside it. Nothing in it is executed."""

import io
import json
from typing import Any

import jax
import numpy as np

_ARRAY = "$array"


def packed(value: Any) -> bytes:
    """Of what JSON has, with arrays of numbers in it anywhere. Raises: TypeError for anything else."""
    arrays: list[np.ndarray] = []

    def aside(each: Any) -> dict[str, int]:
        array = np.asarray(each)
        if not isinstance(each, np.ndarray | np.generic | jax.Array) or array.dtype.hasobject:
            raise TypeError(f"{type(each).__name__}: processes say JSON and arrays of numbers to each other")
        arrays.append(array)
        return {_ARRAY: len(arrays) - 1}

    text = json.dumps(value, default=aside).encode()
    buffer = io.BytesIO()
    named = {f"array_{number}": array for number, array in enumerate(arrays)}
    np.savez(buffer, text=np.frombuffer(text, np.uint8), **named)
    return buffer.getvalue()


def unpacked(said: bytes) -> Any:
    """What was packed; a tuple is a list then, and an array of no axes a NumPy number."""
    with np.load(io.BytesIO(said), allow_pickle=False) as found:

        def back(each: dict[str, Any]) -> Any:
            return found[f"array_{each[_ARRAY]}"][()] if each.keys() == {_ARRAY} else each

        return json.loads(found["text"].tobytes(), object_hook=back)
