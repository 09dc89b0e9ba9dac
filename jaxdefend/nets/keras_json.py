"""The forms that Keras 2 and Keras 3 give the layers of a model in JSON, and who reads whom."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxdefend import InputError
from jaxdefend.nets.graph import LAYERS_LIMIT
from jaxdefend.nets.keras_layers import shown

# How deep models lie in models.
DEPTH_LIMIT = 16

MODELS = ("Functional", "Model", "Sequential")
KERAS = ("keras", "tf_keras", "tensorflow")

# Of TensorFlow's model optimization: a layer within, and a mask for its kernel.
PRUNING_WRAPPER = "PruneLowMagnitude"


class Call(NamedTuple):
    """One use of a layer: which, which of its uses, and which of its outputs."""

    name: str
    node: int
    output: int


def class_of(layer: Any) -> str:
    """The layer's class, with its package if that is not Keras: someone's own Conv2D may compute anything."""
    name, registered = layer["class_name"], layer.get("registered_name")
    package = layer.get("module") or "keras"
    if not isinstance(name, str) or not isinstance(package, str):
        raise InputError(f"a layer is of class {shown(name)} in {shown(package)}, expected names")
    if registered is not None and registered != name:
        return str(registered)
    parts = package.split(".")
    # Operations have the names of layers, and other arguments.
    return f"{package}.{name}" if parts[0] not in KERAS or "ops" in parts else name


def name_of(layer: Any) -> str:
    config = layer["config"]
    name = config.get("name") if isinstance(config, dict) else None
    name = layer.get("name") if name is None else name
    if name is None and isinstance(config, list):
        name = "sequential"
    if not isinstance(name, str) or not name or len(name) > 1000:
        raise InputError(f"a layer is named {shown(name)}, expected a name")
    return name


def layer_called(layers: Mapping[str, Any], name: str) -> Any:
    if name not in layers:
        raise InputError(f"layer {shown(name)} is read, which is not there")
    return layers[name]


def with_article(kind: str) -> str:
    article = "an" if kind[:1] in "AEIOU" else "a"
    return f", {article} {shown(kind)[1:-1]}"


def says_channels_first(layer: Any) -> bool:
    config = layer.get("config") if isinstance(layer, dict) else None
    if not isinstance(config, dict):
        return False
    within = config.get("layers")
    if isinstance(within, list) and len(within) < LAYERS_LIMIT:
        return any(
            isinstance(each, dict)
            and isinstance(each.get("config"), dict)
            and each["config"].get("data_format") == "channels_first"
            for each in within
        )
    return config.get("data_format") == "channels_first"


def batch_shape(config: Any) -> object:
    for key in ("batch_input_shape", "batch_shape"):
        if isinstance(config, dict) and config.get(key) is not None:
            return config[key]
    return None


def first_shape(model: Any, depth: int) -> object:
    """The shape of the images of a model whose first layer is a model."""
    inner = model["config"]
    layers = inner if isinstance(inner, list) else inner["layers"]
    shape = batch_shape(layers[0]["config"]) or (inner.get("build_input_shape") if isinstance(inner, dict) else None)
    if shape is None and depth < DEPTH_LIMIT and class_of(layers[0]) in MODELS:
        return first_shape(layers[0], depth + 1)
    return shape


def uses_of(layer: Any) -> list:
    nodes = layer.get("inbound_nodes", [])
    if not isinstance(nodes, list) or len(nodes) > LAYERS_LIMIT:
        raise InputError(f"layer {shown(name_of(layer))}: inbound_nodes is {shown(nodes)}, expected a list")
    # [name, 0, 0, {}] where the first of one layer's nodes is meant, and the list around it was left out.
    return [nodes] if len(nodes) >= 3 and isinstance(nodes[0], str) else nodes


def use_of(call: Call, nodes: Mapping[str, list], layers: Mapping[str, Any]) -> tuple[str, int]:
    """The layer that is called, and which of its uses is meant."""
    layer_called(layers, call.name)
    uses = nodes[call.name]
    if len(uses) <= 1:
        if not uses and class_of(layers[call.name]) != "InputLayer":
            raise InputError(f"layer {shown(call.name)} reads no layer")
        return call.name, 0
    # A model that was made by itself counts that as its first use.
    use = call.node - 1 if class_of(layers[call.name]) in MODELS else call.node
    if not 0 <= use < len(uses):
        raise InputError(f"use {call.node} of layer {shown(call.name)} is read, which is not there")
    return call.name, use


def calls_in(node: Any) -> list[Call]:
    """What a node reads, in its order: [name, node, output, …] in Keras 2, `keras_history` in Keras 3."""
    found: list[Call] = []
    waiting = [node]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                value = value["config"]["keras_history"]
            else:
                waiting += list(value.values())[::-1]
                continue
        if isinstance(value, list):
            if len(value) >= 3 and isinstance(value[0], str) and all(isinstance(each, int) for each in value[1:3]):
                found.append(Call(*value[:3]))
            else:
                waiting += value[::-1]
        if len(found) > LAYERS_LIMIT or len(waiting) > 100 * LAYERS_LIMIT:
            raise InputError(f"a layer reads more than {LAYERS_LIMIT:,} others")
    return found


def is_in_training(node: Any) -> bool:
    waiting = [node]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("training"):
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def is_quantized(config: Mapping) -> bool:
    policy = config.get("dtype")
    inner = policy.get("config") if isinstance(policy, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else policy
    return isinstance(name, str) and ("int8" in name or "float8" in name or "int4" in name)


def one_axis(config: Mapping, rank: int) -> int:
    """Counted from 1, the batch being 0."""
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise InputError(f"axis is {shown(axis)}, expected one axis")
    return axis if axis >= 0 else rank + 1 + axis


def require_last(axis: int, rank: int) -> None:
    if axis != rank:
        raise InputError(f"axis is {axis}, expected the last one, {rank}")


def from_last(axis: int, rank: int) -> int:
    return axis if axis < 0 else axis - rank - 1


def array_of(config: Mapping, name: str) -> np.ndarray:
    value = config[name]
    if isinstance(value, dict):
        value = value["config"]["value"]
    return np.atleast_1d(np.squeeze(np.asarray(value, np.float32)))
