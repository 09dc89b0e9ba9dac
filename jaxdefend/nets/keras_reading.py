"""The models in the JSON of a Keras file, layer by layer, and models within them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.graph import LAYERS_LIMIT
from jaxdefend.nets.keras_architecture import Entry
from jaxdefend.nets.keras_axes import ON_IMAGES, placed
from jaxdefend.nets.keras_building import Building, Tensor
from jaxdefend.nets.keras_json import (
    DEPTH_LIMIT,
    MODELS,
    PRUNING_WRAPPER,
    Call,
    array_of,
    batch_shape,
    calls_in,
    class_of,
    first_shape,
    is_in_training,
    is_quantized,
    layer_called,
    name_of,
    says_channels_first,
    use_of,
    uses_of,
    with_article,
)
from jaxdefend.nets.keras_layers import activation_of, settings_of, shown
from jaxdefend.nets.kinds import Kind

# Models


def model_of(
    building: Building, config: Any, inputs: list[Tensor] | None, depth: int
) -> tuple[list[Tensor], tuple[Entry, ...]]:
    """The outputs of a model that is given `inputs`, or has its own, and its layers."""
    if depth > DEPTH_LIMIT:
        raise InputError(f"models lie in models more than {DEPTH_LIMIT} deep")
    kind = class_of(config)
    if kind not in MODELS:
        raise InputError(
            f"a {shown(kind)} model, expected a Sequential or Functional one: the code of others is not in the file"
        )
    inner = config["config"]
    layers = inner if isinstance(inner, list) else inner["layers"]
    if not isinstance(layers, list) or not layers:
        raise InputError(f"a {kind} without layers")
    if len(layers) > LAYERS_LIMIT:
        raise InputError(f"{len(layers):,} layers, expected at most {LAYERS_LIMIT:,}")
    if depth == 0:
        building.channels_first = any(says_channels_first(layer) for layer in layers)
        _refuse_goodnet(layers)
    if kind == "Sequential":
        return _sequential(building, layers, inner if isinstance(inner, dict) else {}, inputs, depth)
    if not isinstance(inner, dict):
        raise InputError(f"a {kind} model is {shown(inner)}, expected an object with its layers")
    outputs, entries = _functional(building, layers, inner, inputs, depth)
    if depth == 0 and len(outputs) != 1:
        raise InputError(f"{len(outputs)} outputs, expected one")
    return outputs, entries


def _refuse_goodnet(layers: Sequence[Any]) -> None:
    """A file with two nets whose answers are compared by code."""
    models = [name_of(layer) for layer in layers if isinstance(layer, dict) and class_of(layer) in MODELS]
    code = [name_of(layer) for layer in layers if isinstance(layer, dict) and class_of(layer) not in kinds.KINDS]
    code = [name for name in code if name not in models]
    if len(models) >= 2 and code:
        first, second = models[:2]
        raise InputError(
            f"holds a whole GoodNet: the nets {shown(first, 40)} and {shown(second, 40)}, compared by "
            f"{shown(code[0], 40)}, whose code is not run; in Keras, save each net by itself "
            f"(model.get_layer({shown(first, 40)}).save(…)), and give the two files as net and repaired net"
        )


def _sequential(
    building: Building, layers: list, inner: Mapping, inputs: list[Tensor] | None, depth: int
) -> tuple[list[Tensor], tuple[Entry, ...]]:
    entries: list[Entry] = []
    if inputs is None and class_of(layers[0]) != "InputLayer":
        shape = batch_shape(layers[0]["config"]) or inner.get("build_input_shape")
        if shape is None and class_of(layers[0]) in MODELS:
            shape = first_shape(layers[0], 0)
        inputs = [building.input(name_of(layers[0]) + "_input", shape)]
    for number, layer in enumerate(layers):
        before = len(building.layers)
        if number == 0 and class_of(layer) == "InputLayer":
            found, entry = building.input_layer(layer, inputs[0] if inputs else None)
            inputs = [found]
        else:
            inputs, entry = _layer(building, layer, inputs or [], depth)
        entries.append(entry)
        building.place_new(before, number)
    return inputs or [], tuple(entries)


def _functional(
    building: Building, layers: list, inner: Mapping, inputs: list[Tensor] | None, depth: int
) -> tuple[list[Tensor], tuple[Entry, ...]]:
    by_name: dict[str, Any] = {}
    for layer in layers:
        name = name_of(layer)
        if name in by_name:
            raise InputError(f"several layers are named {shown(name)}, expected one of each name")
        by_name[name] = layer
    found: dict[tuple[str, int], list[Tensor]] = {}
    entries: dict[str, Entry] = {}
    starts = calls_in(inner["input_layers"])
    if inputs is not None and len(inputs) != len(starts):
        raise InputError(f"a model within reads {len(inputs)} layers, expected {len(starts)}")
    for number, start in enumerate(starts):
        layer = layer_called(by_name, start.name)
        if class_of(layer) != "InputLayer":
            raise InputError(f"the input {shown(start.name)} is a {shown(class_of(layer))}, expected an InputLayer")
        tensor, entries[start.name] = building.input_layer(layer, inputs[number] if inputs else None)
        found[start.name, 0] = [tensor]
    numbers = {name: number for number, name in enumerate(by_name)}
    ends = calls_in(inner["output_layers"])
    nodes = {name: uses_of(layer) for name, layer in by_name.items()}

    # A call comes up twice: first what it reads is asked for, then it is made.
    waiting: list[tuple[Call, bool]] = [(call, False) for call in reversed(ends)]
    begun: set[tuple[str, int]] = set()
    while waiting:
        call, is_ready = waiting.pop()
        key = use_of(call, nodes, by_name)
        if key in found:
            continue
        if call.name in {start.name for start in starts}:
            raise InputError(f"layer {shown(call.name)} is an input, and called as a layer")
        reads = calls_in(nodes[call.name][key[1]])
        if is_ready:
            before = [_output_of(read, found[use_of(read, nodes, by_name)]) for read in reads]
            n = len(building.layers)
            found[key], entry = _call(building, by_name[call.name], nodes[call.name][key[1]], before, depth)
            building.place_new(n, numbers[call.name])
            if call.name in entries and entry.has_arrays:
                raise InputError(f"layer {shown(call.name)} is used several times; expected arrays of its own each")
            entries.setdefault(call.name, entry)
        elif key in begun:
            raise InputError(f"layer {shown(call.name)} reads what it is read by: the graph has a cycle")
        else:
            begun.add(key)
            waiting.append((call, True))
            waiting += [(read, False) for read in reversed(reads)]
    for name, layer in by_name.items():
        if name not in entries:
            raise InputError(f"layer {shown(name)}, a {shown(class_of(layer))}, is superfluous: no output reads it")
    outputs = [_output_of(end, found[use_of(end, nodes, by_name)]) for end in ends]
    return outputs, tuple(entries[name] for name in by_name)


def _output_of(call: Call, outputs: list[Tensor]) -> Tensor:
    if not 0 <= call.output < len(outputs):
        raise InputError(f"output {call.output} of layer {shown(call.name)} is read, which is not there")
    return outputs[call.output]


# Layers


def _call(building: Building, layer: Any, node: Any, inputs: list[Tensor], depth: int) -> tuple[list[Tensor], Entry]:
    kind = class_of(layer)
    if is_in_training(node) and (kind in MODELS or kind in kinds.KINDS):
        told = "is always in training (training=True), expected only for training"
        raise InputError(f"layer {shown(name_of(layer))} {told}")
    return _layer(building, layer, inputs, depth)


def _layer(building: Building, layer: Any, inputs: list[Tensor], depth: int) -> tuple[list[Tensor], Entry]:
    kind, name = class_of(layer), name_of(layer)
    trainable = layer["config"].get("trainable", True) is not False if isinstance(layer["config"], dict) else True
    if kind in MODELS:
        outputs, inside = model_of(building, layer, inputs, depth + 1)
        return outputs, Entry(name, kind, trainable=trainable, inside=inside)
    is_pruned = kind.rpartition(">")[2].rpartition(".")[2] == PRUNING_WRAPPER
    wrapper = name
    if is_pruned:
        layer = layer["config"]["layer"]
        kind, name = class_of(layer), name_of(layer)
    try:
        outputs, entry = _one(building, kind, name, layer["config"], inputs)
    except InputError as error:
        raise InputError(f"layer {shown(name)}{with_article(kind)}: {error}") from None
    if is_pruned:
        return outputs, replace(entry, name=wrapper, kind=PRUNING_WRAPPER, is_pruned=True, trainable=trainable)
    return outputs, replace(entry, trainable=trainable)


def _one(building: Building, kind: str, name: str, config: Mapping, inputs: list[Tensor]) -> tuple[list[Tensor], Entry]:
    if kind not in kinds.KINDS or kind == "InputLayer":
        raise InputError(
            "its code would have to be run, and nothing in a file is; expected one of " + ", ".join(kinds.KINDS)
            if kind == "Lambda"
            else "is not of a kind that is known; expected one of " + ", ".join(kinds.KINDS)
        )
    if not isinstance(config, dict):
        raise InputError(f"its config is {shown(config)}, expected an object")
    if is_quantized(config):
        raise InputError("is quantized, expected float32")
    if len(inputs) != 1 and kinds.KINDS[kind].reads == 1:
        raise InputError(f"reads {len(inputs)} layers, expected 1")
    settings = settings_of(kind, config)
    function = activation_of(config, building.major) if hasattr(settings, "activation") else []
    if isinstance(settings, kinds.Activation):
        return _activation(building, kind, name, function, inputs[0])
    if isinstance(function, str):
        if function == "softmax" and inputs[0].first and len(building.shapes[inputs[0].layer]) == 3:
            raise InputError("activation is softmax, along an axis that is not the channels'")
        settings, function = replace(settings, activation=function), []
    settings, inputs = placed(building, settings, config, inputs)
    is_image = isinstance(settings, ON_IMAGES)
    first = inputs[0].first and not isinstance(settings, kinds.Flatten)
    tensor = building.add(name, settings, inputs, first)
    if is_image and len(building.shapes[tensor.layer]) == 1:
        tensor = tensor._replace(first=False)
    entry = _entry(building, kind, name, tensor.layer, settings, inputs, config)
    for number, following in enumerate(function):
        tensor = building.add(f"{name}_activation_{number + 1}", following, [tensor], tensor.first)
    return [tensor], entry


def _activation(
    building: Building, kind: str, name: str, function: str | list[Kind], tensor: Tensor
) -> tuple[list[Tensor], Entry]:
    *before, last = [kinds.Activation(function)] if isinstance(function, str) else function
    if function == "softmax":
        tensor = building.natural(tensor)
    for number, following in enumerate(before):
        tensor = building.add(f"{name}_{number + 1}", following, [tensor], tensor.first)
    tensor = building.add(name, last, [tensor], tensor.first)
    return [tensor], Entry(name, kind, tensor.layer)


def _entry(
    building: Building, kind: str, name: str, layer: str, settings: Kind, inputs: list[Tensor], config: Mapping
) -> Entry:
    arrays = tuple(settings.arrays(*(building.shapes[tensor.layer] for tensor in inputs)))
    if isinstance(settings, kinds.Normalization) and config.get("mean") is not None:
        building.given[layer] = {each: array_of(config, each) for each in arrays}
        arrays = ()
    statistics = sum(each in ("moving_mean", "moving_variance", "mean", "variance") for each in arrays)
    return Entry(name, kind, layer, arrays, statistics)
