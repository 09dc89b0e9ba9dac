"""Orbax checkpoints: a net, its arrays bit for bit, its graph and its input scale."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxdefend import InputError
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.keras_config import read_config
from jaxdefend.nets.keras_files import config_of_net
from jaxdefend.nets.net import Net
from jaxdefend.results.text import printable

# Before the graph was part of it, a checkpoint held DeepID, and its scale as a number here.
_SCALES = ("raw", "unit", None)


def checkpointer_of_its_own() -> Any:
    """Orbax's, of this process: unlike the usual one, it does not wait for the other processes of a run."""
    import jax
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return ocp.StandardCheckpointer()
    own = jax.process_index()
    options = ocp.options.MultiprocessingOptions(own, {own}, f"process_{own}")
    return ocp.StandardCheckpointer(multiprocessing_options=options)


def write_checkpoint(net: Net, folder: Path | str) -> None:
    """A new folder with the net. Raises: InputError if it is there already or cannot be written."""
    folder = Path(folder).absolute()
    weights = {
        layer: {name: np.asarray(array) for name, array in arrays.items()} for layer, arrays in net.weights.items()
    }
    # A checkpoint holds arrays only: what else there is, is JSON as bytes.
    described = json.dumps({"input_scale": net.input_scale, "architecture": config_of_net(net)}).encode()
    try:
        if folder.exists():
            raise InputError(f"{folder}: is there already; choose a new folder")
        # Orbax would report a folder that cannot be made with tracebacks from its threads.
        folder.parent.mkdir(parents=True, exist_ok=True)
        with checkpointer_of_its_own() as checkpointer:
            checkpointer.save(folder, {"weights": weights, "described": np.frombuffer(described, np.uint8)})
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{folder}: cannot be written ({why}); choose another place") from error


def read_checkpoint(folder: Path | str) -> Net:
    """The net that `write_checkpoint` wrote.

    Raises: InputError if the folder holds none, or one with other layers, shapes or values that are not finite.
    """
    folder = Path(folder).absolute()
    try:
        with checkpointer_of_its_own() as checkpointer:
            saved = checkpointer.restore(folder)
        weights = {
            layer: {name: np.asarray(array, np.float32) for name, array in arrays.items()}
            for layer, arrays in saved["weights"].items()
        }
        if "described" in saved:
            described = json.loads(np.asarray(saved["described"], np.uint8).tobytes())
            graph, scale = read_config(json.dumps(described["architecture"])).graph, described["input_scale"]
        else:
            graph, scale = deepid(len(weights["output"]["bias"])), _SCALES[int(saved["input_scale"])]
        net = Net(graph, weights, scale)
    except InputError as error:
        raise InputError(printable(f"{folder}: {error}", 500)) from error
    except Exception as error:
        # Orbax and TensorStore answer what is not a checkpoint with errors of many kinds.
        raise InputError(f"{folder}: holds no net written by jaxdefend; expected an Orbax checkpoint") from error
    for layer, arrays in weights.items():
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise InputError(f"{folder}: {layer}/{name} holds values that are not finite numbers")
    return net
