"""A net's layers as data: who reads whom, the shapes that follow, and where a channel can be masked."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.kinds import Kind, Shape
from jaxdefend.results.text import listed, printable, shortened

# The largest nets for pictures (NASNet, EfficientNet-B7) have about a thousand.
LAYERS_LIMIT = 5_000

# What every net has, whatever its layers are called: the images in its own scale; what goes into the last softmax.
INPUT, LOGITS = "input", "logits"

# The kinds whose channels can be pruned.
CONVOLUTIONS = tuple(kind.__name__ for kind in kinds.CONVOLUTIONS)


@dataclass(frozen=True)
class Layer:
    """One layer: its settings, and the names of the layers that it reads."""

    name: str
    settings: Kind
    inputs: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Keras's name for it."""
        return type(self.settings).__name__

    def __getitem__(self, setting: str) -> Any:
        """The setting of this name."""
        return getattr(self.settings, setting)


class Graph:
    """A net without its arrays. Equal graphs are equal keys of what is compiled.

    Args:
        layers: in any order; they are kept in Keras's own, in which none stands before one that it reads.
        output: the name of the layer that answers.
    Raises: InputError if a layer reads one that is not there, or itself, or leads nowhere; if shapes do not fit.
    """

    def __init__(self, layers: "tuple[Layer, ...] | list[Layer]", output: str):
        if len(layers) > LAYERS_LIMIT:
            raise InputError(f"{len(layers):,} layers, expected at most {LAYERS_LIMIT:,}")
        self.layers = _sorted(tuple(layers), output)
        self.output = output
        self._hash = hash((self.layers, output))
        self._layers = {layer.name: layer for layer in self.layers}
        self.shapes: Mapping[str, Shape] = {}
        self.weight_shapes: Mapping[str, Mapping[str, Shape]] = {}
        self._infer()
        self._head: tuple[Literal["inside", "behind", "none"], Layer] = self._find_head()
        self._check_names()
        _ = self.classes

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        # It is part of the key of every compiled function: looked at again at every call.
        if self is other:
            return True
        if not isinstance(other, Graph) or self._hash != other._hash:
            return False
        return self.layers == other.layers and self.output == other.output

    def __getitem__(self, name: str) -> Layer:
        """The layer of this name. Raises: InputError, naming all layers, if there is none."""
        try:
            return self._layers[name]
        except KeyError:
            raise InputError(f"no layer {_shown(name)} in this net; its layers are {self._all_names()}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def __repr__(self) -> str:
        lines = [
            f"  {layer.name}: {layer.settings} of {', '.join(layer.inputs) or 'the images'} → "
            f"{'×'.join(map(str, self.shapes[layer.name]))}"
            for layer in self.layers
        ]
        return "\n".join(["Graph", *lines])

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """(rows, columns, channels) of an image."""
        rows, columns, channels = self.shapes[self.input]
        return rows, columns, channels

    @property
    def input(self) -> str:
        """The name of the layer that is given the images."""
        return self.layers[0].name

    @cached_property
    def classes(self) -> int:
        """N; the GoodNet's answer N means "backdoored"."""
        shape = self.shapes[self.output]
        if len(shape) != 1:
            raise InputError(
                f"its output {_shown(self.output)} is {'×'.join(map(str, shape))}, expected one number per class"
            )
        if shape == (1,) and not self.is_binary and self._head[0] == "none":
            raise InputError(
                f"its output {_shown(self.output)} is a single number without a sigmoid, expected one number per class"
            )
        return 2 if self.is_binary else shape[0]

    @cached_property
    def is_binary(self) -> bool:
        """Whether one sigmoid tells two classes apart."""
        where, layer = self._head
        return where != "none" and self.shapes[self.output] == (1,) and _last_function(layer.settings) == "sigmoid"

    @property
    def head(self) -> tuple[Literal["inside", "behind", "none"], Layer]:
        """Where the last softmax or sigmoid is: inside a layer, or a layer of its own behind another, or nowhere."""
        return self._head

    @cached_property
    def convolutions(self) -> tuple[str, ...]:
        """The names of all convolutions, from the images to the output."""
        return tuple(layer.name for layer in self.layers if isinstance(layer.settings, kinds.CONVOLUTIONS))

    @cached_property
    def last_convolution(self) -> str:
        """The convolution at which a net is pruned where none is named.

        The last one that every path to the output passes, unless more than half of all come behind it: then the last.
        Raises: InputError if there is none whose channels can be zeroed.
        """
        possible = [name for name in self.convolutions if self.stays_zero(name)]
        if not possible:
            raise InputError("this net has no convolution whose channels could be pruned")
        passed = [name for name in possible if self._passes_all(self.masked_at(name))]
        late = passed and 2 * (self.convolutions.index(passed[-1]) + 1) >= len(self.convolutions)
        return passed[-1] if late else possible[-1]

    def _passes_all(self, name: str) -> bool:
        """Whether every path from the images to the output goes through this layer."""
        reached, queue = set(), [self.output]
        while queue:
            layer = queue.pop()
            if layer != name and layer not in reached:
                reached.add(layer)
                queue += self[layer].inputs
        return self.input not in reached

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What `activations` takes: all layers, "input" and "logits"."""
        return tuple(dict.fromkeys((INPUT, *self._layers, LOGITS)))

    def readers(self, name: str) -> tuple[str, ...]:
        """The names of the layers that read this one."""
        return self._readers.get(self[name].name, ())

    @cached_property
    def _readers(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for layer in self.layers:
            for name in dict.fromkeys(layer.inputs):
                found.setdefault(name, []).append(layer.name)
        return {name: tuple(readers) for name, readers in found.items()}

    def channels(self, convolution: str) -> int:
        """How many output channels it has. Raises: InputError, naming all convolutions, if it is none."""
        if convolution not in self.convolutions:
            there = listed(self.convolutions) or "none"
            raise InputError(f"no convolution {_shown(convolution)} in this net; its convolutions are {there}")
        return self.shapes[convolution][2]

    def stays_zero(self, convolution: str) -> bool:
        """Whether a zeroed channel is zero behind the convolution's own activation, so that it can be pruned."""
        self.channels(convolution)
        return kinds.of_zero(self[convolution]["activation"]) == 0

    def behind(self, convolution: str) -> tuple[str, ...]:
        """The layers through which the channels of a convolution go one by one, beginning with itself.

        Each is the only reader of the one before, and a channel that was zeroed is zero behind it: batch
        normalizations, activations with f(0) = 0, what works in training only, and pools.

        Raises: InputError if the convolution's own activation makes something else of zero.
        """
        if not self.stays_zero(convolution):
            raise InputError(
                f"{_shown(convolution)}: its activation {self[convolution]['activation']} does not leave a zeroed "
                "channel at zero; choose another convolution"
            )
        found = [convolution]
        while len(readers := self.readers(found[-1])) == 1:
            layer = self[readers[0]]
            if not _keeps_zero_channels(layer.settings) or layer.name == self.output:
                break
            found.append(layer.name)
        return tuple(found)

    def normalized_behind(self, convolution: str) -> tuple[str, ...]:
        """The batch normalizations through which its channels go one by one; none if it cannot be masked."""
        if not self.stays_zero(convolution):
            return ()
        layers = (self[name] for name in self.behind(convolution))
        return tuple(layer.name for layer in layers if isinstance(layer.settings, kinds.BatchNormalization))

    def masked_at(self, convolution: str) -> str:
        """The layer behind which a mask does the same to the net as zeroing the channels of `convolution`.

        Raises: InputError if there is none, see `behind`.
        """
        return self.behind(convolution)[-1]

    def _all_names(self) -> str:
        return shortened(", ".join(map(printable, self.names)), 300)

    def _infer(self) -> None:
        shapes: dict[str, Shape] = {}
        arrays: dict[str, dict[str, Shape]] = {}
        for layer in self.layers:
            before = [shapes[name] for name in layer.inputs]
            try:
                _check_inputs(layer)
                shapes[layer.name] = tuple(map(int, layer.settings.shape(*before)))
                kinds.check_shape(shapes[layer.name])
                if found := layer.settings.arrays(*before):
                    arrays[layer.name] = found
            except InputError as error:
                raise InputError(f"layer {_shown(layer.name)}, a {layer.kind}: {error}") from None
        self.shapes, self.weight_shapes = shapes, arrays

    def _check_names(self) -> None:
        """A layer called as what every net has must be that."""
        where, head = self._head
        before_softmax = {"behind": head.inputs[:1], "none": (head.name,), "inside": ()}[where]
        for name, it in ((INPUT, (self.input,)), (LOGITS, before_softmax)):
            if name in self and name not in it:
                raise InputError(f"layer {name!r} must not be called so: its name stands for the net's {name}")

    def _find_head(self) -> tuple[Literal["inside", "behind", "none"], Layer]:
        layer = self[self.output]
        while isinstance(layer.settings, kinds.Idle):
            layer = self[layer.inputs[0]]
        if _last_function(layer.settings) not in ("softmax", "sigmoid"):
            return "none", layer
        return ("behind" if isinstance(layer.settings, kinds.Activation | kinds.Softmax) else "inside"), layer


def _last_function(settings: Kind) -> str:
    return "softmax" if isinstance(settings, kinds.Softmax) else getattr(settings, "activation", "linear")


def _keeps_zero_channels(settings: Kind) -> bool:
    match settings:
        case kinds.BatchNormalization() | kinds.Idle() | kinds.LeakyReLU() | kinds.ELU():
            return True
        case kinds.MaxPooling2D() | kinds.AveragePooling2D():
            return True
        case kinds.ReLU():
            return settings.threshold == 0 or settings.negative_slope == 0
        case kinds.Activation():
            return kinds.of_zero(settings.activation) == 0
        case _:
            return False


def _check_inputs(layer: Layer) -> None:
    expected, found = layer.settings.reads, len(layer.inputs)
    if found != expected and not (expected is None and found >= 2):
        raise InputError(f"reads {found} layers, expected {'two or more' if expected is None else expected}")


def _sorted(layers: tuple[Layer, ...], output: str) -> tuple[Layer, ...]:
    """The layers in the order in which Keras sorts them: it takes the arrays of a file by that order, not by name."""
    by_name = {layer.name: layer for layer in layers}
    if len(by_name) < len(layers):
        ((name, _),) = Counter(layer.name for layer in layers).most_common(1)
        raise InputError(f"several layers are named {_shown(name)}, expected one of each name")
    for layer in layers:
        for name in layer.inputs:
            if name not in by_name:
                raise InputError(f"layer {_shown(layer.name)} reads {_shown(name)}, which is not there")
    if output not in by_name:
        raise InputError(f"the output {_shown(output)} is not there")
    inputs = [layer.name for layer in layers if isinstance(layer.settings, kinds.InputLayer)]
    if len(inputs) != 1:
        raise InputError(f"{len(inputs)} inputs, expected one: images")
    image_shape = by_name[inputs[0]].settings.shape()
    if len(image_shape) != 3:
        raise InputError(f"its input has the shape {image_shape}, expected rows × columns × channels of an image")
    missing = {layer.name: len(set(layer.inputs)) for layer in layers}
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for name in set(layer.inputs):
            readers.setdefault(name, []).append(layer.name)
    ready = [name for name, number in missing.items() if number == 0]
    found: list[str] = []
    while ready:
        found.append(ready.pop())
        for reader in readers.get(found[-1], ()):
            missing[reader] -= 1
            if missing[reader] == 0:
                ready.append(reader)
    if len(found) < len(layers):
        left = next(name for name, number in missing.items() if number)
        raise InputError(f"layer {_shown(left)} reads what it is read by: the graph has a cycle")
    _check_reached(by_name, output)
    depths, visits = _depths(by_name, found), _visits(by_name, output)
    return tuple(sorted(by_name.values(), key=lambda layer: (-depths[layer.name], visits[layer.name])))


def _depths(by_name: Mapping[str, Layer], found: list[str]) -> dict[str, int]:
    """How many layers there are at most between each layer and the output; `found` is any sound order."""
    depths = dict.fromkeys(found, 0)
    for name in reversed(found):
        for read in by_name[name].inputs:
            depths[read] = max(depths[read], depths[name] + 1)
    return depths


def _visits(by_name: Mapping[str, Layer], output: str) -> dict[str, int]:
    """When each layer is met on a walk from the output, each one before those that it reads."""
    visits: dict[str, int] = {}
    waiting = [output]
    while waiting:
        name = waiting.pop()
        if name not in visits:
            visits[name] = len(visits)
            waiting += reversed(by_name[name].inputs)
    return visits


def _check_reached(by_name: Mapping[str, Layer], output: str) -> None:
    reached, queue = set(), [output]
    while queue:
        name = queue.pop()
        if name not in reached:
            reached.add(name)
            queue += by_name[name].inputs
    for layer in by_name.values():
        if layer.name not in reached:
            raise InputError(f"layer {_shown(layer.name)} ({layer.kind}) is superfluous: the output does not read it")


def _shown(name: str) -> str:
    return repr(shortened(printable(name), 80))
