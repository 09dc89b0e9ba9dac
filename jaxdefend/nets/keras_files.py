"""Keras files in and out. Only arrays are taken from them; nothing in them is executed and no link is followed."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxdefend import InputError
from jaxdefend.nets.deepid import CLASSES, INPUT_SCALES, WEIGHTED, DeepID, from_weights, to_weights, weight_shapes
from jaxdefend.nets.keras_config import check_config, deepid_config
from jaxdefend.results.records import replacing

_SCALE = "jaxdefend_input_scale"

# A DeepID of 1,283 classes takes 2.5 MB. Nothing above these is unpacked or allocated.
_MOST_BYTES = 256 * 2**20

Layer = dict[str, np.ndarray]


@dataclass(frozen=True)
class ModelFile:
    """A net and where it comes from; `notes` say what had to be guessed, one line each."""

    net: DeepID
    name: str
    sha256: str
    notes: tuple[str, ...] = ()


def read_model(path: Path | str) -> ModelFile:
    """The DeepID in a Keras file, its arrays as float32.

    The content says which of these it is: Keras 2 weights (`layer_names`), Keras 2 model (`model_weights`), Keras 3
    weights (`layers/…/vars`), Keras 3 `.keras` archive. Layers go by their names; where these differ, by order and
    shapes, and a note says so.

    Raises: InputError if it is none of these, not a DeepID, or holds anything but finite float arrays.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if path.stat().st_size == 0:
            raise InputError("the file is empty, expected a Keras model")
        with _opened(path) as (file, config):
            layers, scale = _layers(file), _input_scale(file)
        weights, notes = _assigned(layers)
        if config is not None:
            check_config(config, len(weights["output"]["bias"]))
        return ModelFile(from_weights(weights, scale), path.name, sha256, tuple(f"{path}: {note}" for note in notes))
    except InputError as error:
        raise InputError(_line(f"{path}: {error}")) from error
    except FileNotFoundError as error:
        raise InputError(_line(f"{path}: no such file")) from error
    except IsADirectoryError as error:
        raise InputError(_line(f"{path}: is a folder, expected a Keras model file")) from error
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, zipfile.BadZipFile) as error:
        # h5py and zipfile answer damaged files with any of these.
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(_line(f"{path}: cannot be read as a Keras model ({why}); is it complete?")) from error


def write_model(net: DeepID, path: Path | str) -> None:
    """The net as a Keras 2 model file, architecture and weights; Keras 3 loads it too. Equal nets give equal bytes."""
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["model_config"] = json.dumps(deepid_config(net.classes))
        _write_layers(net, file, file.create_group("model_weights"))


def write_weights(net: DeepID, path: Path | str) -> None:
    """The net's arrays as a Keras 2 weights-only file.

    Raises: InputError for a name that ends in `.weights.h5`, by which Keras 3 knows its own, other format.
    """
    if str(path).endswith(".weights.h5"):
        raise InputError(f"{path}: Keras 3 takes this name for its own format; use another, such as net_weights.h5")
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        _write_layers(net, file, file)


def _write_layers(net: DeepID, file: h5py.File, group: h5py.Group) -> None:
    if net.input_scale:
        file.attrs[_SCALE] = net.input_scale
    names = [layer["name"] for layer in deepid_config(net.classes)["config"]["layers"]]
    weights = to_weights(net)
    for place in (file, group):
        place.attrs["backend"], place.attrs["keras_version"] = np.bytes_("tensorflow"), np.bytes_("2.7.0")
    group.attrs["layer_names"] = [name.encode() for name in names]
    for name in names:
        arrays = {f"{name}/{kind}:0": array for kind, array in weights.get(name, {}).items()}
        layer = group.create_group(name)
        layer.attrs["weight_names"] = np.array([weight.encode() for weight in arrays], "S")
        for weight, array in arrays.items():
            layer.create_dataset(weight, data=array, track_times=False)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.File, str | bytes | None]]:
    """The HDF5 file with the weights, and the architecture if there is one."""
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            yield file, file.attrs.get("model_config")
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            config, weights = (_member(archive, name) for name in ("config.json", "model.weights.h5"))
        with h5py.File(io.BytesIO(weights), "r") as file:
            yield file, config
    else:
        with path.open("rb") as file:
            is_hdf5 = file.read(8) == b"\x89HDF\r\n\x1a\n"
        raise InputError(
            "damaged or truncated HDF5 file"
            if is_hdf5
            else "neither an HDF5 file nor a .keras archive; is it complete?"
        )


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    sizes = [entry.file_size for entry in archive.infolist() if entry.filename == name]
    if len(sizes) != 1:
        raise InputError(f"{len(sizes)} members {name}, expected one in a .keras archive")
    if sizes[0] > _MOST_BYTES:
        raise InputError(f"{name} unpacks to {sizes[0]:,} bytes, expected at most {_MOST_BYTES:,}")
    with archive.open(name) as member:
        # The size above is only what the archive claims.
        content = member.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise InputError(f"{name} unpacks to more than {_MOST_BYTES:,} bytes")
    return content


def _input_scale(file: h5py.File):
    scale = file.attrs.get(_SCALE)
    scale = scale.decode() if isinstance(scale, bytes) else scale
    for known in INPUT_SCALES:
        if isinstance(scale, str) and scale == known:
            return known
    if scale is not None:
        raise InputError(f"attribute {_SCALE} is {scale!r}, expected {' or '.join(INPUT_SCALES)}")
    return None


def _layers(file: h5py.File) -> list[tuple[str, Layer]]:
    """The layers that hold arrays, by name, in the order of the file."""
    group = _child(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in group.attrs:
        names = _strings(group, "layer_names")
        layers = [(name, _keras_2_layer(_child(group, name), name)) for name in names]
    elif "layers" in file:
        folder = _child(file, "layers")
        found = [_child(folder, name) for name in sorted(folder, key=_natural)]
        layers = [_keras_3_layer(layer) for layer in found if isinstance(layer, h5py.Group)]
    elif "data" in file and "label" in file:
        raise InputError("holds images (`data`, `label`), expected a Keras model")
    else:
        raise InputError(f"holds {sorted(file)[:8]}, expected the layers of a Keras model")
    return [(name, arrays) for name, arrays in layers if arrays]


def _keras_2_layer(group: h5py.Group | h5py.Dataset, name: str) -> Layer:
    arrays = [_array(_child(group, weight), f"{name}: {weight}") for weight in _strings(group, "weight_names")]
    return _kernel_and_bias(name, arrays)


def _keras_3_layer(group: h5py.Group) -> tuple[str, Layer]:
    name = str(group.name).rsplit("/", 1)[1]
    if "vars" not in group:
        # A layer of another kind (nested, wrapped) keeps its arrays deeper down; DeepID has none.
        return name, {}
    variables = _child(group, "vars")
    told = variables.attrs.get("name")
    arrays = [_array(_child(variables, key), f"{name}: {key}") for key in sorted(variables, key=_natural)]
    name = told if isinstance(told, str) else name
    return name, _kernel_and_bias(name, arrays)


def _kernel_and_bias(name: str, arrays: list[np.ndarray]) -> Layer:
    if not arrays:
        return {}
    biases = [array for array in arrays if array.ndim == 1]
    kernels = [array for array in arrays if array.ndim > 1]
    if len(biases) != 1 or len(kernels) != 1:
        shapes = [array.shape for array in arrays]
        raise InputError(f"layer {name!r} holds arrays of shapes {shapes}, expected one kernel and one bias")
    return {"kernel": kernels[0], "bias": biases[0]}


def _assigned(layers: list[tuple[str, Layer]]) -> tuple[dict[str, Layer], list[str]]:
    """The layers under DeepID's names: by name first, then by order and shapes. And notes on the latter."""
    classes = next((len(arrays["bias"]) for _, arrays in reversed(layers) if arrays["kernel"].shape[0] == 160), CLASSES)
    shapes = weight_shapes(classes)
    weights = {name: arrays for name, arrays in layers if name in WEIGHTED}
    others = [(name, arrays) for name, arrays in layers if name not in WEIGHTED]
    renamed = []
    for missing in [name for name in WEIGHTED if name not in weights]:
        fits = [index for index, (_, arrays) in enumerate(others) if _shapes(arrays) == shapes[missing]]
        if fits:
            name, weights[missing] = others.pop(fits[0])
            renamed.append(f"{name} as {missing}")
    for name, arrays in weights.items():
        for kind, shape in shapes[name].items():
            if arrays[kind].shape != shape:
                raise InputError(f"{name}/{kind} is {arrays[kind].shape}, expected {shape}; is this DeepID?")
    missing = [f"{name} {shapes[name]['kernel']}" for name in WEIGHTED if name not in weights]
    superfluous = [f"{name!r} {arrays['kernel'].shape}" for name, arrays in others]
    if missing or superfluous or len(layers) != len(WEIGHTED):
        lacks, more = (", ".join(names) or "nothing" for names in (missing, superfluous))
        raise InputError(f"not a DeepID: missing {lacks}; superfluous {more}")
    note = f"layer names are not DeepID's; order and shapes say: {', '.join(renamed)}"
    return {name: weights[name] for name in WEIGHTED}, [_line(note)] if renamed else []


def _shapes(arrays: Layer) -> dict[str, tuple[int, ...]]:
    return {kind: array.shape for kind, array in arrays.items()}


def _array(dataset: Any, where: str) -> np.ndarray:
    """Float32 array of a dataset that lies in this very file; its size is checked before it is read."""
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{where!r} is a group, expected an array")
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{where!r} keeps its values in another file, which is not followed; save the model anew")
    if dataset.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(f"{where!r} has type {dataset.dtype}, expected float16, float32 or float64")
    if dataset.ndim not in (1, 2, 4) or dataset.nbytes > _MOST_BYTES:
        raise InputError(f"{where!r} has shape {dataset.shape}; is this DeepID?")
    with np.errstate(over="ignore"):
        array = dataset[()].astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{where!r} holds {np.count_nonzero(~np.isfinite(array))} values that are not finite numbers")
    return array


def _child(group: Any, path: str) -> Any:
    """What lies at `path` by hard links alone."""
    for name in path.split("/"):
        if not name or not isinstance(group, h5py.Group) or name not in set(group):
            raise InputError(f"{path!r} is named but not there")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise InputError(f"{path!r} is a link, which is not followed; save the model anew")
        group = group[name]
    return group


def _strings(group: h5py.Group | h5py.Dataset, attribute: str) -> list[str]:
    names = [
        name.decode() if isinstance(name, bytes) else name for name in np.ravel(np.asarray(group.attrs[attribute]))
    ]
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"attribute {attribute} holds {names[:3]}, expected names")
    return names


def _natural(name: str) -> list:
    """conv2d_2 before conv2d_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _line(text: str) -> str:
    return " ".join(text.split())
