"""Where a Keras file keeps the arrays of an architecture's layers, and their values."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from jaxdefend import InputError
from jaxdefend.nets import hdf5, kinds
from jaxdefend.nets.graph import Graph
from jaxdefend.nets.keras_architecture import Architecture, Entry
from jaxdefend.nets.keras_layers import shown
from jaxdefend.results.text import listed, natural, shortened

NUMBERS_LIMIT = 160 * 2**20

# Where Keras 3, and TensorFlow 2.12 and 2.13, keep the layers.
CONTAINERS = ("layers", "_layer_checkpoint_dependencies")

# Beside a layer's own arrays: how many images a Normalization has seen.
_COUNT = "count"


@dataclass(frozen=True)
class _Stored:
    """An array in the file, and the mask of a pruning wrapper."""

    dataset: h5py.Dataset
    mask: h5py.Dataset | None = None


# {layer: {array: where it is stored}}.
_Places = dict[str, dict[str, _Stored]]


def read_weights(
    file: h5py.File, architecture: Architecture, is_own: bool
) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """The arrays of a graph, and notes."""
    graph = architecture.graph
    size = sum(math.prod(shape) for shapes in graph.weight_shapes.values() for shape in shapes.values())
    if size > NUMBERS_LIMIT:
        raise InputError(f"the net has {size:,} numbers, expected at most {NUMBERS_LIMIT:,}")
    if hdf5.has(file, "model_weights") or "layer_names" in file.attrs or "layer_names0" in file.attrs:
        group = hdf5.group_at(file, "model_weights") if hdf5.has(file, "model_weights") else file
        places, notes = _places_in_keras_2(group, architecture.entries, is_own)
        if is_own:
            _check_order(graph, list(places), architecture.entries)
    else:
        places, notes = _places_in_keras_3(file, architecture.entries)
    found: dict[str, dict[str, np.ndarray]] = {layer: dict(arrays) for layer, arrays in architecture.given.items()}
    for layer, stored in places.items():
        shapes = graph.weight_shapes[layer]
        for name, place in stored.items():
            _check_shape(place, shapes[name], f"{layer}/{name}")
    for layer, stored in places.items():
        shapes = graph.weight_shapes[layer]
        found[layer] = {name: _read(place, shapes[name], f"{layer}/{name}") for name, place in stored.items()}
    if any(place.mask is not None for stored in places.values() for place in stored.values()):
        notes.append("pruning wrappers were not stripped (tfmot): kernels are multiplied by their masks")
    _check_variances(graph, found)
    return found, notes


def _check_shape(place: _Stored, shape: tuple[int, ...], where: str) -> None:
    # A single mean of all channels has no axis.
    found = place.dataset.shape or (1,)
    if found != shape:
        raise InputError(f"{where} is {place.dataset.shape}, expected {shape}; is this the same net?")
    if place.mask is not None and place.mask.shape != place.dataset.shape:
        raise InputError(f"the mask of {where} is {place.mask.shape}, expected {shape}")


def _read(place: _Stored, shape: tuple[int, ...], where: str) -> np.ndarray:
    where = shortened(where, 80)
    found = hdf5.array(place.dataset, where).reshape(shape)
    return found if place.mask is None else found * hdf5.array(place.mask, f"the mask of {where}")


def _check_variances(graph: Graph, weights: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    for layer in graph.layers:
        if isinstance(layer.settings, kinds.BatchNormalization):
            least = float(weights[layer.name]["moving_variance"].min())
            if least + layer.settings.epsilon <= 0:
                raise InputError(f"{shown(layer.name)}: a moving_variance is {least:g}, expected 0 or more")
        if isinstance(layer.settings, kinds.Normalization) and float(weights[layer.name]["variance"].min()) < 0:
            raise InputError(f"{shown(layer.name)}: a variance is below 0")


# --- Keras 2: layer_names, weight_names ------------------------------------------------------------------------------


def _places_in_keras_2(group: h5py.Group, entries: Sequence[Entry], is_own: bool) -> tuple[_Places, list[str]]:
    """Keras takes the layers that have arrays by their order, and so do the arrays of each."""
    kept = kept_layers(group)
    expected = [entry for entry in entries if entry.has_arrays]
    if len(kept) != len(expected) or (is_own and [name for name, _ in kept] != [entry.name for entry in expected]):
        missing = [entry.name for entry in expected if entry.name not in dict(kept)]
        superfluous = [name for name, _ in kept if name not in {entry.name for entry in expected}]
        if not missing and not superfluous:
            raise InputError("names its layers in another order than the architecture; Keras goes by the order")
        raise InputError(
            f"holds other layers than the architecture: missing {some(missing)}; superfluous {some(superfluous)}"
        )
    renamed = [f"{name} as {entry.name}" for (name, _), entry in zip(kept, expected, strict=True) if name != entry.name]
    places: _Places = {}
    for (name, weights), entry in zip(kept, expected, strict=True):
        _add_places(places, entry, hdf5.group_at(group, name), weights)
    note = f"layer names are not the architecture's; by their order: {some(renamed)}"
    return places, [note] if renamed else []


def _check_order(graph: Graph, found: Sequence[str], entries: Sequence[Entry]) -> None:
    """Refuses what Keras would read as another net: it sorts the layers of a model by itself, and takes the arrays in
    that order, if only their shapes fit.

    `graph.layers` are in Keras's order. Models within models have an order of their own.
    """
    if len(found) != sum(entry.has_arrays for entry in entries):
        return
    sorted_by_keras = [layer.name for layer in graph.layers if layer.name in set(found)]
    pairs = list(zip(found, sorted_by_keras, strict=True))
    changed = [mine for mine, other in pairs if mine != other]
    if changed and all(graph.weight_shapes[mine] == graph.weight_shapes[other] for mine, other in pairs):
        raise InputError(
            f"{some(changed)} stand in another order than Keras sorts them, and have the same shapes: it would take "
            "the arrays of one for those of the other; save the model anew"
        )


def kept_layers(group: h5py.Group) -> list[tuple[str, list[str]]]:
    """The layers that have arrays, and the names of these."""
    names = hdf5.strings(group, "layer_names")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"several layers are named {shown(twice)}, expected one of each")
    kept = [(name, hdf5.strings(hdf5.group_at(group, name), "weight_names")) for name in names]
    if hdf5.has(group, "top_level_model_weights"):
        kept.append(
            ("top_level_model_weights", hdf5.strings(hdf5.group_at(group, "top_level_model_weights"), "weight_names"))
        )
    return [(name, weights) for name, weights in kept if weights]


def _add_places(places: _Places, entry: Entry, group: h5py.Group, weights: list[str]) -> None:
    if entry.is_pruned:
        by_name = {_last(weight): weight for weight in weights}
        known = {"mask", "threshold", "pruning_step", "step", *entry.arrays}
        if not set(entry.arrays) <= set(by_name) or not set(by_name) <= known or len(by_name) < len(weights):
            raise InputError(
                f"layer {shown(entry.name)} holds {some(weights)}, expected {some(entry.arrays)} and a mask"
            )
        kernel = next((name for name in entry.arrays if name.endswith("kernel")), None)
        for name in entry.arrays:
            mask = hdf5.dataset_at(group, by_name["mask"], entry.name) if name == kernel and "mask" in by_name else None
            stored = _Stored(hdf5.dataset_at(group, by_name[name], entry.name), mask)
            places.setdefault(str(entry.layer), {})[name] = stored
        return
    expected = list(_in_order(entry))
    if len(weights) == len(expected) + 1 and _last(weights[-1]) == _COUNT:
        weights = weights[:-1]
    if len(weights) != len(expected):
        arrays = some([name for _, name in expected])
        raise InputError(f"layer {shown(entry.name)} holds the arrays {some(weights)}, expected {arrays}")
    layers = {str(leaf.layer) for leaf in _leaves(entry)}
    for weight, (leaf, name) in zip(weights, expected, strict=True):
        told = _last(weight)
        others = layers & set(weight.split("/")[:-1])
        wrong_name = told in _ARRAY_NAMES and told != name and {told, name} != {"kernel", "depthwise_kernel"}
        if wrong_name or (others and str(leaf.layer) not in others and entry.inside is not None):
            raise InputError(
                f"layer {shown(entry.name)} holds {shown(weight)} in the place of {shown(f'{leaf.layer}/{name}')}; "
                "Keras goes by the order"
            )
        places.setdefault(str(leaf.layer), {})[name] = _Stored(hdf5.dataset_at(group, weight, entry.name))


_ARRAY_NAMES = {
    "kernel",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
    "depthwise_kernel",
    "pointwise_kernel",
    "mean",
    "variance",
}


def _last(weight: str) -> str:
    return weight.rpartition("/")[2].partition(":")[0]


def _leaves(entry: Entry) -> Iterator[Entry]:
    if entry.inside is None:
        yield entry
    for each in entry.inside or ():
        yield from _leaves(each)


def _in_order(entry: Entry) -> Iterator[tuple[Entry, str]]:
    """The arrays of a layer or model as Keras 2 keeps them: in a model, those that are not trained come last."""
    if entry.inside is None:
        yield from ((entry, name) for name in entry.arrays)
        return
    trained: list[tuple[Entry, str]] = []
    others: list[tuple[Entry, str]] = []
    for leaf, is_trainable in _with_trainable(entry, True):
        n = len(leaf.arrays) - leaf.statistics if is_trainable else 0
        trained += [(leaf, name) for name in leaf.arrays[:n]]
        others += [(leaf, name) for name in leaf.arrays[n:]]
    yield from trained + others


def _with_trainable(entry: Entry, above: bool) -> Iterator[tuple[Entry, bool]]:
    is_trainable = above and entry.trainable
    if entry.inside is None:
        yield entry, is_trainable
    for each in entry.inside or ():
        yield from _with_trainable(each, is_trainable)


# --- Keras 3: layers/CLASS_NUMBER/vars/NUMBER ------------------------------------------------------------------------


class Place:
    """A group, or what Windows made one name of: `layers\\conv2d` is conv2d in layers."""

    def __init__(self, group: h5py.Group | None):
        self.group = group
        self.children: dict[str, Place] = {}

    @classmethod
    def root(cls, file: h5py.File) -> "Place":
        root = cls(file)
        if any(hdf5.has(file, name) for name in CONTAINERS):
            return root
        for name in hdf5.names(file):
            if "\\" in name:
                place = root
                for part in name.split("\\"):
                    place = place.children.setdefault(part, cls(None))
                place.group = hdf5.group_at(file, name)
        return root

    def child(self, name: str) -> "Place | None":
        if name in self.children:
            return self.children[name]
        if self.group is not None and hdf5.has(self.group, name):
            return Place(hdf5.group_at(self.group, name))
        return None

    def names(self) -> list[str]:
        there = [] if self.group is None or isinstance(self.group, h5py.File) else hdf5.names(self.group)
        return sorted({*self.children, *there}, key=natural)

    def variables(self) -> tuple[h5py.Group | None, list[str]]:
        """Its arrays: the group and their numbers."""
        found = self.child("vars")
        if found is None or found.group is None:
            return None, []
        return found.group, sorted(hdf5.names(found.group), key=natural)


def _places_in_keras_3(file: h5py.File, entries: Sequence[Entry]) -> tuple[_Places, list[str]]:
    root = Place.root(file)
    _, own = root.variables()
    if own:
        raise InputError("the model itself holds arrays, beside those of its layers, which no known layer reads")
    places: _Places = {}
    _add_container(places, root, entries, {leaf.name for entry in entries for leaf in _leaves(entry)})
    return places, []


def _add_container(places: _Places, place: Place, entries: Sequence[Entry], all_names: set[str]) -> None:
    key, container = next(((key, found) for key in CONTAINERS if (found := place.child(key))), (None, None))
    if container is None:
        if any(entry.has_arrays for entry in entries):
            raise InputError("holds no layers, expected those of the architecture")
        return
    numbers: dict[str, int] = {}
    taken = set()
    for entry in entries:
        base = _snake(entry.kind)
        number = numbers.get(base, 0)
        # TensorFlow 2.13 counts a layer that has arrays twice.
        numbers[base] = number + (2 if key == CONTAINERS[1] and entry.has_arrays else 1)
        name = f"{base}_{number}" if number else base
        if not entry.has_arrays:
            continue
        taken.add(name)
        found = container.child(name)
        if found is None:
            raise InputError(f"holds no arrays of layer {shown(entry.name)}, a {entry.kind}, expected as {shown(name)}")
        if entry.inside is not None:
            _add_container(places, found, entry.inside, all_names)
            continue
        _add_variables(places, entry, found, all_names)
    for name in container.names():
        rest = container.child(name)
        if name not in taken and rest is not None and (rest.variables()[1] or _holds_layers(rest)):
            raise InputError(f"{shown(name)} holds arrays of no layer of the architecture: superfluous")


def _holds_layers(place: Place) -> bool:
    return any(place.child(key) for key in CONTAINERS)


def _add_variables(places: _Places, entry: Entry, place: Place, all_names: set[str]) -> None:
    mask = None
    if not entry.arrays:
        return
    if entry.is_pruned:
        own, numbers = place.variables()
        inner = place.child("layer")
        if own is None or not numbers or inner is None:
            raise InputError(f"layer {shown(entry.name)} holds no mask, expected one in a pruning wrapper")
        mask, place = hdf5.dataset_at(own, numbers[0], entry.name), inner
    group, numbers = place.variables()
    expected = [str(number) for number in range(len(entry.arrays))]
    extra = entry.kind == "Normalization" and numbers == [*expected, str(len(expected))]
    if group is None or (numbers != expected and not extra):
        arrays = some(entry.arrays)
        raise InputError(f"layer {shown(entry.name)} holds {len(numbers)} arrays, expected {len(expected)}: {arrays}")
    told = hdf5.decoded(hdf5.text(group, "name", 2**16)) if "name" in group.attrs else None
    if told != entry.name and told in all_names:
        raise InputError(f"architecture and weights disagree: {shown(told)} stands where {shown(entry.name)} should")
    kernel = next((name for name in entry.arrays if name.endswith("kernel")), None)
    places[str(entry.layer)] = {
        name: _Stored(hdf5.dataset_at(group, number, entry.name), mask if name == kernel else None)
        for name, number in zip(entry.arrays, expected, strict=True)
    }


def _snake(name: str) -> str:
    """What Keras makes of a class for a group."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def some(names: Sequence[str], limit: int = 8) -> str:
    """For a message; "nothing" if there are none."""
    shown = [shortened(str(name), 60) for name in names[:limit]]
    return shortened(listed([*shown, *names[limit:]], limit), 200) or "nothing"
