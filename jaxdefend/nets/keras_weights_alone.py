"""Files of weights alone, without an architecture: DeepID's."""

import math
import re
from collections.abc import Sequence

import h5py
import numpy as np

from jaxdefend import InputError
from jaxdefend.nets import hdf5
from jaxdefend.nets.deepid import CLASSES, deepid
from jaxdefend.nets.keras_layers import shown
from jaxdefend.nets.keras_weights import CONTAINERS, NUMBERS_LIMIT, Place, kept_layers, some

_WAY_OUT = (
    "give its architecture too: the JSON of model.to_json(), or a file of the whole model (architecture=FILE in "
    "load_net); or save the whole model with model.save(…)"
)

# {"kernel", "bias"}, still in the file: nothing is read before the shapes are known to be right.
_Arrays = dict[str, h5py.Dataset]


def deepid_weights(file: h5py.File) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    found, notes = _assigned(_layers(file))
    for layer, arrays in found.items():
        for name, dataset in arrays.items():
            if math.prod(dataset.shape) > NUMBERS_LIMIT:
                raise InputError(f"{layer}/{name} claims {math.prod(dataset.shape):,} numbers")
    return {
        layer: {name: hdf5.array(dataset, f"{layer}/{name}") for name, dataset in arrays.items()}
        for layer, arrays in found.items()
    }, notes


def has_rescaling(file: h5py.File) -> bool:
    """Whether a layer without arrays is called as Keras calls a Rescaling; DeepID has none."""
    if "layer_names" not in file.attrs:
        return False
    return any(re.fullmatch(r"rescaling(_\d+)?", name) for name in hdf5.strings(file, "layer_names"))


def _layers(file: h5py.File) -> list[tuple[str, _Arrays]]:
    """The layers that have arrays, as the file keeps them."""
    if "layer_names" in file.attrs or "layer_names0" in file.attrs or hdf5.has(file, "model_weights"):
        group = hdf5.group_at(file, "model_weights") if hdf5.has(file, "model_weights") else file
        kept = [(name, *_by_layer(weights)) for name, weights in kept_layers(group)]
        models = [name for name, nested, _ in kept if len(nested) > 1]
        if len(models) > 1:
            first, second = (shown(name, 40) for name in models[:2])
            raise InputError(
                f"holds the weights of {len(models)} nets, {first} and {second}: a whole GoodNet? In Keras, save each "
                f"net by itself (model.get_layer({first}).save(…), or model.{models[0][:40]}.save(…)), and give the "
                "two files as net and repaired net"
            )
        layers = []
        for name, nested, weights in kept:
            place = hdf5.group_at(group, name)
            for inner, inner_weights in nested.items() if len(nested) > 1 else [(name, weights)]:
                datasets = [hdf5.dataset_at(place, weight, inner) for weight in inner_weights]
                layers.append((inner, _kernel_and_bias(inner, datasets)))
    elif container := next((found for key in CONTAINERS if (found := Place.root(file).child(key))), None):
        layers = [_layer_of_place(container.child(name), name) for name in container.names()]
    elif hdf5.has(file, "data") and hdf5.has(file, "label"):
        raise InputError("holds images (`data`, `label`), expected a Keras model")
    else:
        raise InputError(f"holds {shown(hdf5.names(file)[:8])}, expected the layers of a Keras model")
    return [(name, layer) for name, layer in layers if layer]


def _by_layer(weights: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The names of the arrays by the layer that they name, if a model lies within; and as they are."""
    found: dict[str, list[str]] = {}
    for weight in weights:
        found.setdefault(weight.rpartition("/")[0].rpartition("/")[2], []).append(weight)
    return found, list(weights)


def _layer_of_place(place: Place | None, name: str) -> tuple[str, _Arrays]:
    """The arrays, and the layer's name: newer versions keep it beside `vars`; the group is called after the class."""
    if place is None:
        return name, {}
    nested = [key for key in place.names() if key not in ("vars", "seed_generator")]
    if nested:
        raise InputError(f"layer {shown(name)} holds other layers ({some(nested)}), and DeepID none; {_WAY_OUT}")
    group, numbers = place.variables()
    if group is None:
        return name, {}
    datasets = [hdf5.dataset_at(group, key, name) for key in numbers]
    told = hdf5.decoded(hdf5.text(group, "name", 2**16)) if "name" in group.attrs else None
    return (told if told is not None else name), _kernel_and_bias(name, datasets)


def _kernel_and_bias(name: str, datasets: list[h5py.Dataset]) -> _Arrays:
    if not datasets:
        return {}
    by_rank = sorted(datasets, key=lambda dataset: len(dataset.shape))
    if len(by_rank) != 2 or len(by_rank[0].shape) != 1 or len(by_rank[1].shape) not in (2, 4):
        shapes = shown(str([dataset.shape for dataset in datasets[:8]]))[1:-1]
        raise InputError(
            f"weights alone, and not DeepID's: layer {shown(name)} holds arrays of shapes {shapes}, expected one "
            f"kernel and one bias; {_WAY_OUT}"
        )
    return {"kernel": by_rank[1], "bias": by_rank[0]}


def _assigned(layers: list[tuple[str, _Arrays]]) -> tuple[dict[str, _Arrays], list[str]]:
    """The layers under DeepID's names: by name first, then by order and shapes. And notes on the latter."""
    by_name = dict(layers)
    if len(by_name) < len(layers):
        names = [name for name, _ in layers]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"several layers are named {shown(twice)}, expected one of each")
    fits = (layer["bias"].shape[0] for _, layer in reversed(layers) if layer["kernel"].shape[0] == _hidden())
    classes = next(fits, CLASSES) or CLASSES
    if classes > 2**20:
        raise InputError(f"claims {classes:,} classes, expected at most {2**20:,}")
    shapes = {layer: dict(arrays) for layer, arrays in deepid(classes).weight_shapes.items()}
    found = {name: layer for name, layer in layers if name in shapes}
    others = [(name, layer) for name, layer in layers if name not in shapes]
    renamed = []
    for missing in [name for name in shapes if name not in found]:
        fitting = [index for index, (_, layer) in enumerate(others) if _shapes(layer) == shapes[missing]]
        if fitting:
            name, found[missing] = others.pop(fitting[0])
            renamed.append(f"{name} as {missing}")
    wrong = [
        f"{name}/{kind} is {layer[kind].shape}, expected {shapes[name][kind]}"
        for name, layer in found.items()
        for kind in shapes[name]
        if layer[kind].shape != shapes[name][kind]
    ]
    if wrong:
        raise InputError(f"{wrong[0]}: weights alone, and not DeepID's; {_WAY_OUT}")
    missing = [f"{name} {shapes[name]['kernel']}" for name in shapes if name not in found]
    superfluous = [f"{shown(name, 40)} {layer['kernel'].shape}" for name, layer in others]
    if missing or superfluous:
        raise InputError(
            f"weights alone, and not DeepID's: missing {some(missing, 3)}; superfluous {some(superfluous, 3)}; "
            f"{_WAY_OUT}"
        )
    note = f"layer names are not DeepID's; order and shapes say: {some(renamed)}"
    return {name: found[name] for name in shapes}, [note] if renamed else []


def _hidden() -> int:
    """The width of what the output reads, by which the number of classes is found."""
    return deepid().weight_shapes[deepid().output]["kernel"][0]


def _shapes(layer: _Arrays) -> dict[str, tuple[int, ...]]:
    return {kind: dataset.shape for kind, dataset in layer.items()}
