"""Orbax checkpoints: a net, its arrays bit for bit and its input scale."""

from pathlib import Path

import numpy as np

from jaxdefend import InputError
from jaxdefend.nets.deepid import INPUT_SCALES, DeepID, from_weights, to_weights

# A checkpoint holds arrays only: the scale is its index here.
_SCALES = (*INPUT_SCALES, None)


def write_checkpoint(net: DeepID, folder: Path | str) -> None:
    """A new folder with the net. Raises: InputError if it is there already or cannot be written."""
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    try:
        if folder.exists():
            raise InputError(f"{folder}: is there already; choose a new folder")
        # Orbax would report a folder that cannot be made with tracebacks from its threads.
        folder.parent.mkdir(parents=True, exist_ok=True)
        with ocp.StandardCheckpointer() as checkpointer:
            scale = np.int32(_SCALES.index(net.input_scale))
            checkpointer.save(folder, {"weights": to_weights(net), "input_scale": scale})
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{folder}: cannot be written ({why}); choose another place") from error


def read_checkpoint(folder: Path | str) -> DeepID:
    """The net that `write_checkpoint` wrote, any number of classes.

    Raises: InputError if the folder holds none, or one with other layers, shapes or values that are not finite.
    """
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.restore(folder)
        scales = dict(enumerate(_SCALES))
        weights = {
            layer: {name: np.asarray(array, np.float32) for name, array in arrays.items()}
            for layer, arrays in saved["weights"].items()
        }
        net = from_weights(weights, scales[int(saved["input_scale"])])
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error
    except Exception as error:
        # Orbax and TensorStore answer what is no checkpoint with errors of many kinds.
        raise InputError(f"{folder}: holds no net written by jaxdefend; expected an Orbax checkpoint") from error
    for layer, arrays in weights.items():
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise InputError(f"{folder}: {layer}/{name} holds values that are not finite numbers")
    return net
