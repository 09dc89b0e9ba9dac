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
        if not isinstance(each, np.ndarray | np.generic | jax.Array) or array.dtype.kind not in "biufc":
            raise TypeError(f"{type(each).__name__}: processes say JSON and arrays of numbers to each other")
        arrays.append(array)
        return {_ARRAY: len(arrays)}

    text = json.dumps(value, default=aside)
    if text.count(f'"{_ARRAY}":') != len(arrays):
        raise TypeError(f"a key {_ARRAY}, which stands for an array in what processes say to each other")
    buffer = io.BytesIO()
    np.savez(buffer, np.frombuffer(text.encode(), np.uint8), *arrays)
    return buffer.getvalue()


def unpacked(said: bytes) -> Any:
    """What was packed; a tuple is a list then, and an array of no axes a NumPy number."""
    with np.load(io.BytesIO(said), allow_pickle=False) as found:

        def back(each: dict[str, Any]) -> Any:
            return found[f"arr_{each[_ARRAY]}"][()] if each.keys() == {_ARRAY} else each

        return json.loads(found["arr_0"].tobytes(), object_hook=back)
