"""The architecture in a Keras file, as JSON: is it DeepID? Read as data; nothing is built from it."""

import json
from collections.abc import Mapping
from typing import Any

from jaxdefend import InputError
from jaxdefend.nets.deepid import IMAGE_SHAPE

# Layers that do nothing when the net answers.
_IDLE = {"Dropout", "AlphaDropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "ActivityRegularization"}

# What Keras takes where the file says nothing.
_DEFAULTS = {
    "strides": [1, 1],
    "padding": "valid",
    "data_format": "channels_last",
    "dilation_rate": [1, 1],
    "groups": 1,
    "use_bias": True,
    "activation": "linear",
}


def _convolution(name: str, before: str, filters: int, size: int) -> dict:
    settings = {"filters": filters, "kernel_size": [size, size], "strides": [1, 1], "padding": "valid"}
    same = {"data_format": "channels_last", "dilation_rate": [1, 1], "groups": 1, "activation": "relu"}
    return _layer(name, "Conv2D", [before], settings | same | {"use_bias": True})


def _pool(name: str, before: str) -> dict:
    settings = {"pool_size": [2, 2], "padding": "valid", "strides": [2, 2], "data_format": "channels_last"}
    return _layer(name, "MaxPooling2D", [before], settings)


def _dense(name: str, before: str, units: int, activation: str) -> dict:
    return _layer(name, "Dense", [before], {"units": units, "activation": activation, "use_bias": True})


def _layer(name: str, kind: str, before: list[str], settings: dict) -> dict:
    inbound = [[[layer, 0, 0, {}] for layer in before]] if before else []
    config = {"name": name, "trainable": True, "dtype": "float32", **settings}
    return {"class_name": kind, "config": config, "name": name, "inbound_nodes": inbound}


def deepid_config(classes: int) -> dict:
    """The architecture as Keras 2 writes it into a model file; Keras 3 reads it too."""
    layers = [
        {
            "class_name": "InputLayer",
            "config": {
                "batch_input_shape": [None, *IMAGE_SHAPE],
                "dtype": "float32",
                "sparse": False,
                "ragged": False,
                "name": "input",
            },
            "name": "input",
            "inbound_nodes": [],
        },
        _convolution("conv_1", "input", 20, 4),
        _pool("pool_1", "conv_1"),
        _convolution("conv_2", "pool_1", 40, 3),
        _pool("pool_2", "conv_2"),
        _convolution("conv_3", "pool_2", 60, 3),
        _pool("pool_3", "conv_3"),
        _convolution("conv_4", "pool_3", 80, 2),
        _layer("flatten_1", "Flatten", ["pool_3"], {"data_format": "channels_last"}),
        _layer("flatten_2", "Flatten", ["conv_4"], {"data_format": "channels_last"}),
        _dense("fc_1", "flatten_1", 160, "linear"),
        _dense("fc_2", "flatten_2", 160, "linear"),
        _layer("add_1", "Add", ["fc_1", "fc_2"], {}),
        _layer("activation_1", "Activation", ["add_1"], {"activation": "relu"}),
        _dense("output", "activation_1", classes, "softmax"),
    ]
    config = {
        "name": "deepid",
        "layers": layers,
        "input_layers": [["input", 0, 0]],
        "output_layers": [["output", 0, 0]],
    }
    return {"class_name": "Functional", "config": config}


def check_config(text: str | bytes, classes: int) -> None:
    """Raises: InputError naming the first layer, from the output backwards, that is not as in DeepID."""
    try:
        config = json.loads(text, object_hook=_plain)
        kind = config["class_name"]
        if kind not in ("Functional", "Model"):
            raise InputError(f"a {_short(kind)} model, expected the functional model DeepID")
        layers = {layer["config"]["name"]: layer for layer in config["config"]["layers"]}
        ends = _sources(config["config"]["output_layers"])
        if len(ends) != 1:
            raise InputError(f"{len(ends)} outputs, expected one")
        _match(layers, ends[0], "output", classes)
        _check_superfluous(layers, ends[0])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(f"the architecture cannot be read ({type(error).__name__}: {_short(str(error))})") from error


def _match(layers: Mapping[str, Any], name: str, role: str, classes: int) -> None:
    """Compares the layer `name` of a file, and all before it, with the layer `role` of DeepID."""
    expected = {layer["name"]: layer for layer in deepid_config(classes)["config"]["layers"]}
    name = _skip_idle(layers, name)
    layer, wanted = layers[name], expected[role]
    kind = _kind(layer)
    if kind != wanted["class_name"] and not (kind == "ReLU" and role == "activation_1"):
        raise InputError(f"layer {_short(name)} is a {_short(kind)}, expected {role}, a {wanted['class_name']}")
    for key, value in wanted["config"].items():
        if key not in ("name", "trainable", "dtype", "sparse", "ragged"):
            _check_setting(layer["config"], name, role, key, value)
    before = _sources(layer["inbound_nodes"])
    roles = _sources(wanted["inbound_nodes"])
    if role == "add_1" and len(before) == 2:
        # A sum may be written either way round: the branch that comes from a convolution is fc_2.
        before.sort(key=lambda branch: _kind_before_flatten(layers, branch) == "Conv2D")
    if len(before) != len(roles):
        wiring = ", ".join(roles) or "none"
        raise InputError(f"layer {_short(name)} ({role}) has {len(before)} inputs, expected {wiring}")
    for layer_before, role_before in zip(before, roles, strict=True):
        _match(layers, layer_before, role_before, classes)


def _check_setting(config: Mapping[str, Any], name: str, role: str, key: str, expected: object) -> None:
    value = config.get(key, _DEFAULTS.get(key))
    if key == "batch_input_shape":
        value = config.get(key, config.get("batch_shape", expected))
        value = [None, *list(value)[1:]]
    if key == "strides" and role.startswith("pool") and config.get(key) is None:
        value = config.get("pool_size")
    if key == "activation" and role == "output" and value in ("softmax", "linear"):
        return
    if key == "activation" and role == "activation_1" and key not in config:
        odd = [config.get("max_value"), config.get("negative_slope") or None, config.get("threshold") or None]
        value = "relu" if odd == [None, None, None] else odd
    if value != expected:
        raise InputError(f"layer {_short(name)} ({role}): {key} is {_short(value)}, expected {_short(expected)}")


def _check_superfluous(layers: Mapping[str, Any], end: str) -> None:
    reached, queue = set(), [end]
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += _sources(layers[name]["inbound_nodes"])
    for name in layers.keys() - reached:
        raise InputError(f"layer {_short(name)}, a {_short(layers[name]['class_name'])}, is superfluous")


def _plain(node: dict) -> Any:
    """Some versions write a tuple as {"class_name": "__tuple__", "items": […]}."""
    return node["items"] if node.keys() == {"class_name", "items"} else node


def _kind(layer: Mapping[str, Any]) -> str:
    """The layer's class, with its package if that is not Keras: someone's own Conv2D may compute anything."""
    package, name = layer.get("module") or "keras", layer.get("registered_name") or layer["class_name"]
    return name if package.split(".")[0] in ("keras", "tf_keras") else f"{package}.{name}"


def _skip_idle(layers: Mapping[str, Any], name: str) -> str:
    for _ in layers:
        if _kind(layers[name]) not in _IDLE:
            break
        nodes = layers[name]["inbound_nodes"]
        if '"training": true' in json.dumps(nodes):
            raise InputError(f"layer {_short(name)} is always in training (training=True), expected only for training")
        name = _sources(nodes)[0]
    return name


def _kind_before_flatten(layers: Mapping[str, Any], branch: str) -> str:
    flat = _skip_idle(layers, _sources(layers[_skip_idle(layers, branch)]["inbound_nodes"])[0])
    return layers[_skip_idle(layers, _sources(layers[flat]["inbound_nodes"])[0])]["class_name"]


def _sources(node: Any) -> list[str]:
    """Names of the layers that a node's inputs come from: [name, 0, 0, …] in Keras 2, keras_history in Keras 3."""
    if isinstance(node, dict):
        history = node.get("config", {}).get("keras_history") if node.get("class_name") == "__keras_tensor__" else None
        return [history[0]] if history else [name for value in node.values() for name in _sources(value)]
    if isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
            return [node[0]]
        return [name for value in node for name in _sources(value)]
    return []


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
