"""A graph while it is read from a Keras file: its layers so far, and where in the file their channels stand."""

import math
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.graph import INPUT, LAYERS_LIMIT, LOGITS, Graph, Layer
from jaxdefend.nets.keras_architecture import Entry
from jaxdefend.nets.keras_json import batch_shape, name_of
from jaxdefend.nets.keras_layers import shown
from jaxdefend.nets.kinds import Kind, Shape

_TO_CHANNELS_LAST, _TO_CHANNELS_FIRST = (2, 3, 1), (3, 1, 2)


class Tensor(NamedTuple):
    """What a layer of the graph gives; `first`: in Keras its channels stand first, in the graph last, as everywhere."""

    layer: str
    first: bool = False


@dataclass
class Building:
    """The layers of a graph as they are found in the JSON of a file, which Keras `major` has written."""

    major: int
    layers: dict[str, Layer] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    given: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    new_names: dict[str, str] = field(default_factory=dict)
    channels_first: bool = False
    # Where each layer stands in the file: graphs that differ in nothing else shall be equal.
    places: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def input_layer(self, layer: Any, given: Tensor | None) -> tuple[Tensor, Entry]:
        """An InputLayer: what a model around it gives to it, or the images."""
        name = name_of(layer)
        if given is None:
            given = self.input(name, batch_shape(layer["config"]))
        return given, Entry(name, "InputLayer", given.layer)

    def input(self, name: str, shape: object) -> Tensor:
        """The images, of the shape that the file gives."""
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
        return self.add(name, kinds.InputLayer((rows, columns, channels)), [], self.channels_first)

    def add(self, name: str, settings: Kind, inputs: list[Tensor], first: bool) -> Tensor:
        """One more layer, under its name, or a similar one if that is taken."""
        if len(self.layers) >= LAYERS_LIMIT:
            raise InputError(f"more than {LAYERS_LIMIT:,} layers")
        name = self._free_name(name, isinstance(settings, kinds.InputLayer))
        shape = settings.shape(*(self.shapes[tensor.layer] for tensor in inputs))
        kinds.check_shape(shape)
        self.layers[name] = Layer(name, settings, tuple(tensor.layer for tensor in inputs))
        if isinstance(settings, kinds.InputLayer):
            self.places[name] = ()
        self.shapes[name] = shape
        return Tensor(name, first)

    def natural(self, tensor: Tensor) -> Tensor:
        """The same in the order that it has in Keras."""
        if not tensor.first or len(self.shapes[tensor.layer]) != 3:
            return tensor._replace(first=False)
        return self.add(f"{tensor.layer}_channels_first", kinds.Permute(_TO_CHANNELS_FIRST), [tensor], False)

    def with_channels(self, tensor: Tensor, first: bool) -> Tensor:
        """The same, the channels last, where in Keras they stand first, or last."""
        if first == tensor.first or len(self.shapes[tensor.layer]) != 3:
            return tensor
        if not first:
            return self.natural(tensor)
        return self.add(f"{tensor.layer}_channels_last", kinds.Permute(_TO_CHANNELS_LAST), [tensor], True)

    def place_new(self, before: int, number: int) -> None:
        """The layers behind the first `before` come from the layer `number` of a model."""
        for name in islice(self.layers, before, None):
            self.places[name] = (number, *self.places.get(name, ()))

    def graph(self, output: Tensor) -> Graph:
        """All layers, in the order of the file."""
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

    def _free_name(self, name: str, is_input: bool = False) -> str:
        taken = self.layers.keys() | ({LOGITS} if is_input else {INPUT})
        if name not in taken:
            return name
        return next(new for number in range(1, 2 * LAYERS_LIMIT) if (new := f"{name}_{number}") not in taken)
