"""Orbax checkpoints of a net: its arrays, bit for bit, and its input scale."""

from pathlib import Path

import numpy as np

from jaxdefend import InputError
from jaxdefend.nets.deepid import INPUT_SCALES, DeepID, from_weights, to_weights


def write_checkpoint(net: DeepID, folder: Path | str) -> None:
    """A new folder with the net. Raises: InputError if it is there already or cannot be written."""
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    if folder.exists():
        raise InputError(f"{folder}: is there already; choose a new folder")
    scale = INPUT_SCALES.index(net.input_scale) if net.input_scale else -1
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder, {"weights": to_weights(net), "input_scale": np.int32(scale)})
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from error


def read_checkpoint(folder: Path | str) -> DeepID:
    """The net that `write_checkpoint` wrote, any number of classes. Raises: InputError if the folder holds none."""
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.restore(folder)
        scale = int(saved["input_scale"])
        weights = {
            layer: {name: np.asarray(array) for name, array in arrays.items()}
            for layer, arrays in saved["weights"].items()
        }
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: holds no net written by jaxdefend; expected an Orbax checkpoint") from error
    return from_weights(weights, INPUT_SCALES[scale] if scale >= 0 else None)
