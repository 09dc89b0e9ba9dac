"""Keras files in and out. Only arrays are taken from them; nothing in them is executed and no link is followed."""

import hashlib
import io
import json
import math
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
from jaxdefend.nets.deepid import (
    CLASSES,
    INPUT_SCALES,
    WEIGHTED,
    DeepID,
    InputScale,
    from_weights,
    to_weights,
    weight_shapes,
)
from jaxdefend.nets.keras_config import check_config, deepid_config
from jaxdefend.results.records import replacing

_SCALE = "jaxdefend_input_scale"

# A DeepID of 1,283 classes takes 2.5 MB. Nothing above these is unpacked or allocated.
_MOST_BYTES = 256 * 2**20

# {"kernel", "bias"}, still in the file: nothing is read before the shapes are known to be right.
Layer = dict[str, h5py.Dataset]


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
        if path.exists() and not path.is_file():
            raise InputError(f"is a {'folder' if path.is_dir() else 'device or pipe'}, expected a Keras model file")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if path.stat().st_size == 0:
            raise InputError("the file is empty, expected a Keras model")
        with _opened(path) as (file, config):
            scale = _input_scale(file)
            layers, notes = _assigned(_layers(file))
            if config is not None:
                check_config(config, layers["output"]["bias"].shape[0])
            weights = {
                name: {kind: _values(dataset, f"{name}/{kind}") for kind, dataset in layer.items()}
                for name, layer in layers.items()
            }
        notes = tuple(_line(f"{path}: {note}") for note in notes)
        return ModelFile(from_weights(weights, scale), path.name, sha256, notes)
    except InputError as error:
        raise InputError(_line(f"{path}: {error}")) from error
    except FileNotFoundError as error:
        raise InputError(_line(f"{path}: no such file")) from error
    except PermissionError as error:
        raise InputError(_line(f"{path}: may not be read; change its permissions")) from error
    except Exception as error:
        # h5py, zipfile and the decompressors answer damaged files with errors of a dozen kinds.
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(_line(f"{path}: cannot be read as a Keras model ({why}); is it complete?")) from error


def write_model(net: DeepID, path: Path | str) -> None:
    """The net as a Keras 2 model file, architecture and weights; Keras 3 loads it too. Equal nets give equal bytes."""
    with _new_file(path) as file:
        file.attrs["model_config"] = json.dumps(deepid_config(net.classes))
        _write_layers(net, file, file.create_group("model_weights"))


def write_weights(net: DeepID, path: Path | str) -> None:
    """The net's arrays as a Keras 2 weights-only file.

    Raises: InputError for a name that ends in `.weights.h5`, by which Keras 3 knows its own, other format.
    """
    if str(path).endswith(".weights.h5"):
        raise InputError(f"{path}: Keras 3 takes this name for its own format; use another, such as net_weights.h5")
    with _new_file(path) as file:
        _write_layers(net, file, file)


@contextmanager
def _new_file(path: Path | str) -> Iterator[h5py.File]:
    """Made in memory and put in place when it is whole: h5py answers a full disk with errors of many kinds."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        yield file
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())


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


def _input_scale(file: h5py.File) -> InputScale | None:
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
    group = _group(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in group.attrs:
        layers = [(name, _keras_2_layer(_group(group, name), name)) for name in _strings(group, "layer_names")]
    elif "layers" in file:
        folder = _group(file, "layers")
        layers = [_keras_3_layer(_group(folder, name), name) for name in sorted(folder, key=_natural)]
    elif "data" in file and "label" in file:
        raise InputError("holds images (`data`, `label`), expected a Keras model")
    else:
        raise InputError(f"holds {sorted(file)[:8]}, expected the layers of a Keras model")
    return [(name, layer) for name, layer in layers if layer]


def _keras_2_layer(group: h5py.Group, name: str) -> Layer:
    return _kernel_and_bias(name, [_dataset(group, weight, name) for weight in _strings(group, "weight_names")])


def _keras_3_layer(group: h5py.Group, name: str) -> tuple[str, Layer]:
    """The arrays, and the layer's name: newer versions keep it beside `vars`; the group is called after the class."""
    nested = sorted(set(group) - {"vars", "seed_generator"})
    if nested:
        raise InputError(f"layer {name!r} holds other layers ({', '.join(nested[:3])}); DeepID has no such layer")
    if "vars" not in group:
        return name, {}
    variables = _group(group, "vars")
    datasets = [_dataset(variables, key, name) for key in sorted(variables, key=_natural)]
    told = variables.attrs.get("name")
    name = told if isinstance(told, str) else name
    return name, _kernel_and_bias(name, datasets)


def _kernel_and_bias(name: str, datasets: list[h5py.Dataset]) -> Layer:
    if not datasets:
        return {}
    by_rank = sorted(datasets, key=lambda dataset: dataset.ndim)
    if len(by_rank) != 2 or by_rank[0].ndim != 1 or by_rank[1].ndim not in (2, 4):
        shapes = [dataset.shape for dataset in datasets]
        raise InputError(f"layer {name!r} holds arrays of shapes {shapes}, expected one kernel and one bias")
    return {"kernel": by_rank[1], "bias": by_rank[0]}


def _assigned(layers: list[tuple[str, Layer]]) -> tuple[dict[str, Layer], list[str]]:
    """The layers under DeepID's names: by name first, then by order and shapes. And notes on the latter."""
    names = [name for name, _ in layers]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"not a DeepID: several layers are named {', '.join(map(repr, twice))}, expected one of each")
    counts = (layer["bias"].shape[0] for _, layer in reversed(layers) if layer["kernel"].shape[0] == 160)
    classes = next(counts, CLASSES) or CLASSES
    shapes = weight_shapes(classes)
    found = {name: layer for name, layer in layers if name in WEIGHTED}
    others = [(name, layer) for name, layer in layers if name not in WEIGHTED]
    renamed = []
    for missing in [name for name in WEIGHTED if name not in found]:
        fits = [index for index, (_, layer) in enumerate(others) if _shapes(layer) == shapes[missing]]
        if fits:
            name, found[missing] = others.pop(fits[0])
            renamed.append(f"{name} as {missing}")
    for name, layer in found.items():
        for kind, shape in shapes[name].items():
            if layer[kind].shape != shape:
                raise InputError(f"{name}/{kind} is {layer[kind].shape}, expected {shape}; is this DeepID?")
    missing = [f"{name} {shapes[name]['kernel']}" for name in WEIGHTED if name not in found]
    superfluous = [f"{name!r} {layer['kernel'].shape}" for name, layer in others]
    if missing or superfluous:
        lacks, more = (", ".join(names) or "nothing" for names in (missing, superfluous))
        raise InputError(f"not a DeepID: missing {lacks}; superfluous {more}")
    note = f"layer names are not DeepID's; order and shapes say: {', '.join(renamed)}"
    return {name: found[name] for name in WEIGHTED}, [note] if renamed else []


def _shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    return {kind: dataset.shape for kind, dataset in layer.items()}


def _values(dataset: h5py.Dataset, where: str) -> np.ndarray:
    """The dataset as float32. Its shape is DeepID's by now, but N and the chunks are still the file's claim."""
    largest = max(math.prod(dataset.shape), math.prod(dataset.chunks or ())) * dataset.dtype.itemsize
    if largest > _MOST_BYTES:
        raise InputError(f"{where} claims {largest:,} bytes, expected at most {_MOST_BYTES:,}")
    with np.errstate(over="ignore"):
        array = dataset[()].astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"{where} holds {np.count_nonzero(~np.isfinite(array))} values that are not finite numbers")
    return array


def _dataset(group: h5py.Group, path: str, layer: str) -> h5py.Dataset:
    """A dataset of floats that lie in this very file; nothing is read yet."""
    dataset, where = _child(group, path), f"layer {layer!r}: {path!r}"
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{where} is a {type(dataset).__name__.lower()}, expected an array")
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{where} keeps its values in another file, which is not followed; save the model anew")
    if dataset.dtype.kind != "f" or dataset.dtype.itemsize > 8:
        raise InputError(f"{where} has type {dataset.dtype}, expected float16, float32 or float64")
    return dataset


def _group(group: h5py.Group, path: str) -> h5py.Group:
    child = _child(group, path)
    if not isinstance(child, h5py.Group):
        raise InputError(f"{path!r} is a {type(child).__name__.lower()}, expected a group of arrays")
    return child


def _child(group: Any, path: str) -> Any:
    """What lies at `path` by hard links alone."""
    for name in path.split("/"):
        if not name or not isinstance(group, h5py.Group) or name not in set(group):
            raise InputError(f"{path!r} is named but not there")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise InputError(f"{path!r} is a link, which is not followed; save the model anew")
        group = group[name]
    return group


def _strings(group: h5py.Group, attribute: str) -> list[str]:
    if attribute not in group.attrs:
        raise InputError(f"{group.name!r} has no attribute {attribute}; is the file complete?")
    values = np.ravel(np.asarray(group.attrs[attribute]))
    names = [value.decode() if isinstance(value, bytes) else value for value in values]
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"attribute {attribute} holds {names[:3]}, expected names")
    return names


def _natural(name: str) -> list:
    """conv2d_2 before conv2d_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _line(text: str) -> str:
    """One line that is safe to print: control characters and what is no Unicode stand as escapes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
