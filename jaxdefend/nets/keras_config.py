"""The architecture in a Keras file, as JSON, to and from a graph. Read as data: nothing in it is imported or run."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.graph import INPUT, LAYERS_LIMIT, LOGITS, Graph, Layer
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
    from_last,
    is_in_training,
    is_quantized,
    layer_called,
    name_of,
    one_axis,
    require_last,
    says_channels_first,
    use_of,
    uses_of,
    with_article,
)
from jaxdefend.nets.keras_layers import activation_of, config_of, flag, settings_of, shown, whole_numbers
from jaxdefend.nets.kinds import Kind, Shape

# NASNetLarge, with a thousand layers, takes 1.2 MB. More is not read: a list of lists takes thirty times its text.
TEXT_LIMIT = 8 * 2**20

# Layers that look at an image of rows, columns and channels.
_ON_IMAGES = (
    kinds.Conv2D,
    kinds.DepthwiseConv2D,
    kinds.SeparableConv2D,
    kinds.MaxPooling2D,
    kinds.AveragePooling2D,
    kinds.GlobalMaxPooling2D,
    kinds.GlobalAveragePooling2D,
    kinds.ZeroPadding2D,
    kinds.Cropping2D,
    kinds.UpSampling2D,
)
# Layers that look at each number by itself, or at numbers in the same place.
_ANY_ORDER = (kinds.Idle, kinds.ReLU, kinds.LeakyReLU, kinds.ELU)
_MERGES = (kinds.Add, kinds.Subtract, kinds.Multiply, kinds.Average, kinds.Maximum, kinds.Minimum)

_TO_CHANNELS_LAST, _TO_CHANNELS_FIRST = (2, 3, 1), (3, 1, 2)


@dataclass(frozen=True)
class Entry:
    """A layer as its file keeps it.

    Attributes:
        name, kind: Keras's name and class.
        layer: what it is called in the graph; None for a model, whose layers are `inside`.
        arrays: the names of its arrays, in the order in which they are kept.
        statistics: how many of these, at the end, are not trained.
        trainable: whether the others are; the arrays of a model that are not come last.
        is_pruned: a mask for the kernel is kept behind them.
    """

    name: str
    kind: str
    layer: str | None = None
    arrays: tuple[str, ...] = ()
    statistics: int = 0
    trainable: bool = True
    is_pruned: bool = False
    inside: "tuple[Entry, ...] | None" = None

    @property
    def has_arrays(self) -> bool:
        # A pruning wrapper counts its steps, whatever lies within.
        return bool(self.arrays) or self.is_pruned or any(entry.has_arrays for entry in self.inside or ())


@dataclass(frozen=True)
class Architecture:
    """A graph, how a file that holds it keeps the arrays, and what was found on the way.

    Attributes:
        given: arrays that are part of the architecture.
        input_scale: what a layer at the front says about it.
        notes: what a user should know, one line each.
    """

    graph: Graph
    entries: tuple[Entry, ...]
    given: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    input_scale: str | None = None
    notes: tuple[str, ...] = ()


def read_config(text: str | bytes, version: str | None = None) -> Architecture:
    """The architecture in the JSON of a Keras model.

    Args:
        version: of the Keras that wrote it, where the file says so.
    Raises: InputError naming the first layer that is not of a known kind, or not as Keras writes it.
    """
    if len(text) > TEXT_LIMIT:
        raise InputError(f"the architecture has {len(text):,} bytes, expected at most {TEXT_LIMIT:,}")
    try:
        config = json.loads(text, object_hook=_plain)
        if not isinstance(config, dict):
            raise InputError(f"the architecture is {shown(config)}, expected an object with class_name and config")
        told = version or config.get("keras_version")
        major = int(told.split(".")[0]) if isinstance(told, str) and told[:1].isdigit() else 2
        reader = _Reader(3 if major >= 3 else 2)
        (output,), entries = reader.model(config, None, 0)
        graph = reader.graph(output)
        entries = tuple(_renamed(entry, reader.new_names) for entry in entries)
        return Architecture(graph, entries, reader.given, _told_scale(graph, reader.given), tuple(reader.notes))
    except InputError:
        raise
    except RecursionError:
        raise InputError("the architecture is nested too deeply; is it a Keras model?") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        why = f"{type(error).__name__}: {shown(str(error)[:300])}"
        raise InputError(f"the architecture cannot be read ({why})") from None


def _plain(node: dict) -> Any:
    """Some versions write a tuple as {"class_name": "__tuple__", "items": […]}."""
    return node["items"] if node.keys() == {"class_name", "items"} else node


class _Tensor(NamedTuple):
    """What a layer of the graph gives; `first`: in Keras its channels stand first, in the graph last, as everywhere."""

    layer: str
    first: bool = False


@dataclass
class _Reader:
    """Builds the layers of a graph out of JSON."""

    major: int
    layers: dict[str, Layer] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    given: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    new_names: dict[str, str] = field(default_factory=dict)
    channels_first: bool = False
    # Where each layer stands in the file: graphs that differ in nothing else shall be equal.
    places: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def graph(self, output: _Tensor) -> Graph:
        self.layers = {name: self.layers[name] for name in sorted(self.layers, key=lambda name: self.places[name])}
        # A layer may be called as what every net has, without being that.
        try:
            return Graph(tuple(self.layers.values()), output.layer)
        except InputError as error:
            if LOGITS not in self.layers or "must not be called so" not in str(error):
                raise
        new = self._free_name(f"{LOGITS}_1")
        self.new_names[LOGITS] = new
        names = {LOGITS: new}
        layers = [
            Layer(
                names.get(layer.name, layer.name), layer.settings, tuple(names.get(name, name) for name in layer.inputs)
            )
            for layer in self.layers.values()
        ]
        return Graph(tuple(layers), names.get(output.layer, output.layer))

    # --- Models ---------------------------------------------------------------------------------------------------

    def model(self, config: Any, inputs: list[_Tensor] | None, depth: int) -> tuple[list[_Tensor], tuple[Entry, ...]]:
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
            self.channels_first = any(says_channels_first(layer) for layer in layers)
            _refuse_goodnet(layers)
        if kind == "Sequential":
            return self._sequential(layers, inner if isinstance(inner, dict) else {}, inputs, depth)
        if not isinstance(inner, dict):
            raise InputError(f"a {kind} model is {shown(inner)}, expected an object with its layers")
        outputs, entries = self._functional(layers, inner, inputs, depth)
        if depth == 0 and len(outputs) != 1:
            raise InputError(f"{len(outputs)} outputs, expected one")
        return outputs, entries

    def _sequential(
        self, layers: list, inner: Mapping, inputs: list[_Tensor] | None, depth: int
    ) -> tuple[list[_Tensor], tuple[Entry, ...]]:
        entries: list[Entry] = []
        if inputs is None and class_of(layers[0]) != "InputLayer":
            shape = batch_shape(layers[0]["config"]) or inner.get("build_input_shape")
            if shape is None and class_of(layers[0]) in MODELS:
                shape = first_shape(layers[0], 0)
            inputs = [self._input(name_of(layers[0]) + "_input", shape)]
        for number, layer in enumerate(layers):
            before = len(self.layers)
            if number == 0 and class_of(layer) == "InputLayer":
                found, entry = self._input_layer(layer, inputs[0] if inputs else None)
                inputs = [found]
            else:
                inputs, entry = self._layer(layer, inputs or [], depth)
            entries.append(entry)
            self._place_new(before, number)
        return inputs or [], tuple(entries)

    def _functional(
        self, layers: list, inner: Mapping, inputs: list[_Tensor] | None, depth: int
    ) -> tuple[list[_Tensor], tuple[Entry, ...]]:
        by_name: dict[str, Any] = {}
        for layer in layers:
            name = name_of(layer)
            if name in by_name:
                raise InputError(f"several layers are named {shown(name)}, expected one of each name")
            by_name[name] = layer
        found: dict[tuple[str, int], list[_Tensor]] = {}
        entries: dict[str, Entry] = {}
        starts = calls_in(inner["input_layers"])
        if inputs is not None and len(inputs) != len(starts):
            raise InputError(f"a model within reads {len(inputs)} layers, expected {len(starts)}")
        for number, start in enumerate(starts):
            layer = layer_called(by_name, start.name)
            if class_of(layer) != "InputLayer":
                raise InputError(f"the input {shown(start.name)} is a {shown(class_of(layer))}, expected an InputLayer")
            tensor, entries[start.name] = self._input_layer(layer, inputs[number] if inputs else None)
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
                before = [self._output_of(read, found[use_of(read, nodes, by_name)]) for read in reads]
                n = len(self.layers)
                found[key], entry = self._call(by_name[call.name], nodes[call.name][key[1]], before, depth)
                self._place_new(n, numbers[call.name])
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
        outputs = [self._output_of(end, found[use_of(end, nodes, by_name)]) for end in ends]
        return outputs, tuple(entries[name] for name in by_name)

    def _place_new(self, before: int, number: int) -> None:
        """The layers behind the first `before` come from the layer `number` of a model."""
        for name in islice(self.layers, before, None):
            self.places[name] = (number, *self.places.get(name, ()))

    @staticmethod
    def _output_of(call: Call, outputs: list[_Tensor]) -> _Tensor:
        if not 0 <= call.output < len(outputs):
            raise InputError(f"output {call.output} of layer {shown(call.name)} is read, which is not there")
        return outputs[call.output]

    # --- Layers ---------------------------------------------------------------------------------------------------

    def _call(self, layer: Any, node: Any, inputs: list[_Tensor], depth: int) -> tuple[list[_Tensor], Entry]:
        kind = class_of(layer)
        if is_in_training(node) and (kind in MODELS or kind in kinds.KINDS):
            told = "is always in training (training=True), expected only for training"
            raise InputError(f"layer {shown(name_of(layer))} {told}")
        return self._layer(layer, inputs, depth)

    def _layer(self, layer: Any, inputs: list[_Tensor], depth: int) -> tuple[list[_Tensor], Entry]:
        kind, name = class_of(layer), name_of(layer)
        trainable = layer["config"].get("trainable", True) is not False if isinstance(layer["config"], dict) else True
        if kind in MODELS:
            outputs, inside = self.model(layer, inputs, depth + 1)
            return outputs, Entry(name, kind, trainable=trainable, inside=inside)
        is_pruned = kind.rpartition(">")[2].rpartition(".")[2] == PRUNING_WRAPPER
        wrapper = name
        if is_pruned:
            layer = layer["config"]["layer"]
            kind, name = class_of(layer), name_of(layer)
        try:
            outputs, entry = self._one(kind, name, layer["config"], inputs)
        except InputError as error:
            raise InputError(f"layer {shown(name)}{with_article(kind)}: {error}") from None
        if is_pruned:
            return outputs, replace(entry, name=wrapper, kind=PRUNING_WRAPPER, is_pruned=True, trainable=trainable)
        return outputs, replace(entry, trainable=trainable)

    def _one(self, kind: str, name: str, config: Mapping, inputs: list[_Tensor]) -> tuple[list[_Tensor], Entry]:
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
        function = activation_of(config, self.major) if hasattr(settings, "activation") else []
        if isinstance(settings, kinds.Activation):
            return self._activation(kind, name, function, inputs[0])
        if isinstance(function, str):
            settings, function = replace(settings, activation=function), []
            if function_of(settings) == "softmax" and inputs[0].first and len(self.shapes[inputs[0].layer]) == 3:
                raise InputError("activation is softmax, along an axis that is not the channels'")
        settings, inputs = self._placed(settings, config, inputs)
        is_image = isinstance(settings, _ON_IMAGES)
        first = inputs[0].first and not isinstance(settings, kinds.Flatten)
        tensor = self._add(name, settings, inputs, first)
        if is_image and len(self.shapes[tensor.layer]) == 1:
            tensor = tensor._replace(first=False)
        entry = self._entry(kind, name, tensor.layer, settings, inputs, config)
        for number, following in enumerate(function):
            tensor = self._add(f"{name}_activation_{number + 1}", following, [tensor], tensor.first)
        return [tensor], entry

    def _activation(
        self, kind: str, name: str, function: str | list[Kind], tensor: _Tensor
    ) -> tuple[list[_Tensor], Entry]:
        *before, last = [kinds.Activation(function)] if isinstance(function, str) else function
        if function == "softmax":
            tensor = self._natural(tensor)
        for number, following in enumerate(before):
            tensor = self._add(f"{name}_{number + 1}", following, [tensor], tensor.first)
        tensor = self._add(name, last, [tensor], tensor.first)
        return [tensor], Entry(name, kind, tensor.layer)

    def _entry(self, kind: str, name: str, layer: str, settings: Kind, inputs: list[_Tensor], config: Mapping) -> Entry:
        arrays = tuple(settings.arrays(*(self.shapes[tensor.layer] for tensor in inputs)))
        if isinstance(settings, kinds.Normalization) and config.get("mean") is not None:
            self.given[layer] = {each: array_of(config, each) for each in arrays}
            arrays = ()
        statistics = sum(each in ("moving_mean", "moving_variance", "mean", "variance") for each in arrays)
        return Entry(name, kind, layer, arrays, statistics)

    def _placed(self, settings: Kind, config: Mapping, inputs: list[_Tensor]) -> tuple[Kind, list[_Tensor]]:
        """The settings as they are with the channels last, and the inputs in the order in which they are read."""
        first = says_channels_first({"config": config})
        rank = len(self.shapes[inputs[0].layer])
        if isinstance(settings, _ON_IMAGES):
            return settings, [self._with_channels(tensor, first) for tensor in inputs]
        match settings:
            case kinds.Flatten():
                # Keras moves the channels to the end before it flattens them.
                return settings, [self._with_channels(inputs[0], first) if rank == 3 else inputs[0]]
            case kinds.BatchNormalization():
                axis = one_axis(config, rank)
                if rank == 3 and axis == 1:
                    return settings, [self._with_channels(inputs[0], True)]
                require_last(axis, rank)
                return settings, [self._natural(inputs[0])]
            case kinds.LayerNormalization():
                natural = self._natural(inputs[0])
                axes = config.get("axis", -1)
                axes = [axes] if isinstance(axes, int) else whole_numbers(config, "axis")
                return replace(settings, axis=tuple(sorted(from_last(axis, rank) for axis in axes))), [natural]
            case kinds.Normalization():
                if flag(config, "invert", False):
                    raise InputError("invert is on, expected a normalization")
                axes = config.get("axis", -1)
                if axes is None or axes == []:
                    return kinds.Normalization(False), inputs
                axis = one_axis(config, rank)
                if rank == 3 and axis == 1 and inputs[0].first:
                    return settings, inputs
                require_last(axis, rank)
                return settings, [self._natural(inputs[0])]
            case kinds.Softmax():
                natural = self._natural(inputs[0])
                require_last(one_axis(config, rank), rank)
                return settings, [natural]
            case kinds.Concatenate():
                axis = config.get("axis", -1)
                if not isinstance(axis, int) or isinstance(axis, bool) or not -rank <= axis <= rank or axis == 0:
                    raise InputError(f"axis is {shown(axis)}, expected one of an image's")
                place = axis if axis > 0 else rank + 1 + axis
                if rank == 3 and all(tensor.first for tensor in inputs):
                    return kinds.Concatenate({1: -1, 2: -3, 3: -2}[place]), inputs
                return kinds.Concatenate(place - rank - 1), [self._natural(tensor) for tensor in inputs]
            case kinds.Rescaling():
                one = len(settings.scale) == len(settings.offset) == 1
                return settings, inputs if one else [self._natural(inputs[0])]
        if isinstance(settings, _ANY_ORDER):
            return settings, inputs
        if isinstance(settings, _MERGES) and len({tensor.first for tensor in inputs}) == 1:
            ranks = {len(self.shapes[tensor.layer]) for tensor in inputs}
            return settings, inputs if len(ranks) == 1 else [self._natural(tensor) for tensor in inputs]
        return settings, [self._natural(tensor) for tensor in inputs]

    def _natural(self, tensor: _Tensor) -> _Tensor:
        """The same in the order that it has in Keras."""
        if not tensor.first or len(self.shapes[tensor.layer]) != 3:
            return tensor._replace(first=False)
        return self._add(f"{tensor.layer}_channels_first", kinds.Permute(_TO_CHANNELS_FIRST), [tensor], False)

    def _with_channels(self, tensor: _Tensor, first: bool) -> _Tensor:
        """The same, the channels last, where in Keras they stand first, or last."""
        if first == tensor.first or len(self.shapes[tensor.layer]) != 3:
            return tensor
        if not first:
            return self._natural(tensor)
        return self._add(f"{tensor.layer}_channels_last", kinds.Permute(_TO_CHANNELS_LAST), [tensor], True)

    def _input_layer(self, layer: Any, given: _Tensor | None) -> tuple[_Tensor, Entry]:
        name = name_of(layer)
        if given is None:
            given = self._input(name, batch_shape(layer["config"]))
        return given, Entry(name, "InputLayer", given.layer)

    def _input(self, name: str, shape: object) -> _Tensor:
        if not isinstance(shape, list) or len(shape) != 4 or not all(isinstance(n, int) for n in shape[1:]):
            raise InputError(
                f"its input has the shape {shown(shape)}, expected [null, rows, columns, channels], of one size"
            )
        if min(shape[1:]) < 1 or math.prod(shape[1:]) > 2**26:
            raise InputError(f"its images are {shown(shape[1:])}, expected at most 8,192×8,192 pixels")
        if any(isinstance(layer.settings, kinds.InputLayer) for layer in self.layers.values()):
            raise InputError("several inputs, expected one: images")
        rows, columns, channels = (*shape[2:], shape[1]) if self.channels_first else shape[1:]
        if self.channels_first:
            self.notes.append("the channels stand first in the file (channels_first); the net has them last")
        return self._add(name, kinds.InputLayer((rows, columns, channels)), [], self.channels_first)

    def _add(self, name: str, settings: Kind, inputs: list[_Tensor], first: bool) -> _Tensor:
        if len(self.layers) >= LAYERS_LIMIT:
            raise InputError(f"more than {LAYERS_LIMIT:,} layers")
        name = self._free_name(name, isinstance(settings, kinds.InputLayer))
        shape = settings.shape(*(self.shapes[tensor.layer] for tensor in inputs))
        kinds.check_shape(shape)
        self.layers[name] = Layer(name, settings, tuple(tensor.layer for tensor in inputs))
        if isinstance(settings, kinds.InputLayer):
            self.places[name] = ()
        self.shapes[name] = shape
        return _Tensor(name, first)

    def _free_name(self, name: str, is_input: bool = False) -> str:
        taken = self.layers.keys() | ({LOGITS} if is_input else {INPUT})
        if name not in taken:
            return name
        return next(new for number in range(1, 2 * LAYERS_LIMIT) if (new := f"{name}_{number}") not in taken)


def function_of(settings: Kind) -> str:
    return getattr(settings, "activation", "linear")


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


def _renamed(entry: Entry, names: Mapping[str, str]) -> Entry:
    if entry.inside is not None:
        return replace(entry, inside=tuple(_renamed(each, names) for each in entry.inside))
    return entry if entry.layer is None else replace(entry, layer=names.get(entry.layer, entry.layer))


def _told_scale(graph: Graph, given: Mapping[str, Mapping[str, np.ndarray]]) -> str | None:
    """What a Rescaling, or a Normalization whose numbers are known, at the front says about the input scale."""
    for layer in graph.layers[1:]:
        if isinstance(layer.settings, kinds.Idle | kinds.ZeroPadding2D | kinds.Permute):
            continue
        if isinstance(layer.settings, kinds.Rescaling):
            return scale_of_width(255 * max(map(abs, layer.settings.scale)))
        if layer.name in given:
            return scale_of_statistics(given[layer.name])
        break
    return None


def scale_of_width(width: float) -> str | None:
    """The scale at which a factor makes 0…255 as wide as `width`: training wants a few units of width."""
    if 0.5 <= width <= 16:
        return "raw"
    return "unit" if 0.5 <= width / 255 <= 16 else None


def scale_of_statistics(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The scale of images that have these means and variances."""
    return scale_of_width(255 / max(float(np.sqrt(np.abs(arrays["variance"]).max())), 1e-6))


# --- To JSON ---------------------------------------------------------------------------------------------------------


def write_config(graph: Graph, given: Mapping[str, Mapping[str, np.ndarray]] | None = None, name: str = "net") -> dict:
    """The architecture as Keras 2 writes it into a model file; Keras 3 reads it too.

    Args:
        given: means and variances of Normalization layers, which are part of the architecture.
    """
    layers = []
    for layer in graph.layers:
        settings = config_of(layer.settings)
        if isinstance(layer.settings, kinds.InputLayer):
            config = {**settings, "dtype": "float32", "sparse": False, "ragged": False, "name": layer.name}
        else:
            config = {"name": layer.name, "trainable": True, "dtype": "float32", **settings}
        for key, array in (given or {}).get(layer.name, {}).items():
            values = np.asarray(array).tolist()
            config[key] = values if config["axis"] else values[0]
        reads = [[[each, 0, 0, {}] for each in layer.inputs]] if layer.inputs else []
        layers.append({"class_name": layer.kind, "config": config, "name": layer.name, "inbound_nodes": reads})
    config = {
        "name": name,
        "layers": layers,
        "input_layers": [[graph.input, 0, 0]],
        "output_layers": [[graph.output, 0, 0]],
    }
    return {"class_name": "Functional", "config": config}
