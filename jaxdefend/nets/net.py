"""A net: a graph, its arrays, and the scale of its input. Any layer from any others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from jaxdefend import InputError
from jaxdefend.nets import functions, kinds
from jaxdefend.nets.convolution import convolve_relu_average, convolve_relu_pool, in_blocks
from jaxdefend.nets.goodnet import Rule
from jaxdefend.nets.graph import INPUT, LOGITS, Graph
from jaxdefend.nets.scales import check_scale, scaled
from jaxdefend.results.text import listed

if TYPE_CHECKING:
    from jaxdefend.datasets.images import ImageSet

# 0–255, of any type, on the host or the device.
Pixels = Num[Array | np.ndarray, "n h w c"]
# {layer: {"kernel", "bias", …: array}}.
Weights = Mapping[str, Mapping[str, Any]]

# The pools that are computed together with the convolution before them.
_TOGETHER = {kinds.MaxPooling2D(): convolve_relu_pool, kinds.AveragePooling2D(): convolve_relu_average}


@dataclass(frozen=True)
class Source:
    """The file that a net was read from.

    Attributes:
        rule: how a GoodNet of this net answers, if the file says so.
    """

    name: str
    sha256: str
    rule: Rule | None = None


class Net(nnx.Module, pytree=False):
    """An image classifier. It is a tree of its arrays to jax: `jax.jit`, `vmap` and `grad` take it as it is.

    Args:
        graph: its layers.
        weights: float32 arrays, {layer: {"kernel", "bias", …}}; they stay NumPy until the first jitted call.
        input_scale: what it was trained on, see `nets.scales`; None: not known yet.
        source: the file that it was read from; a net made from another one has none.
    Raises: InputError if an array is missing, superfluous or of another shape.
    """

    graph: Graph
    weights: dict[str, dict[str, Any]]
    input_scale: str | None
    source: Source | None

    def __init__(self, graph: Graph, weights: Weights, input_scale: str | None = None, source: Source | None = None):
        _check(graph, weights)
        self.graph = graph
        self.weights = {layer: dict(weights[layer]) for layer in graph.weight_shapes}
        self.input_scale = None if input_scale is None else check_scale(input_scale, graph.image_shape[2])
        self.source = source

    @property
    def name(self) -> str:
        """What its file is called; "net" if it was made from another one."""
        return self.source.name if self.source else "net"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(rows, columns, channels) of an image."""
        return self.graph.image_shape

    @property
    def classes(self) -> int:
        """N; the GoodNet's answer N means "backdoored"."""
        return self.graph.classes

    @property
    def convolutions(self) -> tuple[str, ...]:
        """The names of the layers whose channels can be pruned, from the images to the output."""
        return self.graph.convolutions

    @property
    def last_convolution(self) -> str:
        """The convolution at which the net is pruned where none is named."""
        return self.graph.last_convolution

    def __call__(self, images: "ImageSet | np.ndarray | tuple[np.ndarray, np.ndarray]") -> Float[np.ndarray, "n k"]:
        """Logits of images: an image set, pixels 0–255 (n, rows, columns, channels), one image, or (pixels, labels)."""
        from jaxdefend.nets.inference import logits_of

        return logits_of(self, images)

    def activations(
        self, known: Mapping[str, Float[Array | np.ndarray, "n ..."]], layers: Iterable[str]
    ) -> dict[str, Float[Array, "n ..."]]:
        """Activations of `layers`, computed from those that are `known`.

        `{"input": images}` runs the whole net, `{LAYER: activations}` the rest of it from there. Where the graph forks
        before that layer, the other branches are needed too.

        Args:
            known: activations by layer, batch first; "input" in the net's own scale.
            layers: the layers' names, "input", and "logits": what goes into the last softmax.
        Raises: InputError if a layer is unknown or does not follow from the known ones.
        """
        layers = tuple(layers)
        graph, found = self.graph, {name: jnp.asarray(values) for name, values in known.items()}
        names = {graph.input: INPUT}
        if graph.input in found:
            found.setdefault(INPUT, found[graph.input])

        # A layer comes up twice: first what it reads is asked for, then it is computed.
        for asked in layers:
            waiting: list[tuple[str, _Plan | None]] = [(names.get(asked, asked), None)]
            while waiting:
                name, plan = waiting.pop()
                if name in found:
                    continue
                if plan is None:
                    if name == INPUT:
                        there = ", ".join(known) or "no layers"
                        raise InputError(f"{there} alone do not determine the layer asked for: give the input too")
                    plan = self._plan(name, found)
                    waiting.append((name, plan))
                    waiting += [(names.get(read, read), None) for read in reversed(plan.reads)]
                else:
                    found[name] = plan.compute([found[names.get(read, read)] for read in plan.reads])
        return {layer: found[names.get(layer, layer)] for layer in layers}

    def _plan(self, name: str, found: Mapping[str, Any]) -> "_Plan":
        """What the layer `name` is computed from, where `found` is there already."""
        graph = self.graph
        where, head = graph.head
        if name == LOGITS and LOGITS not in graph:
            return self._logits_plan()
        layer = graph[name]
        if name == head.name and where == "inside" and not graph.is_binary:
            return _Plan((LOGITS,), lambda inputs: functions.activated(layer.settings, inputs[0]))
        if (fused := self._fused(name)) is not None and fused.name not in found:
            arrays = [jnp.asarray(self.weights[fused.name][kind]) for kind in ("kernel", "bias")]
            together = _TOGETHER[layer.settings]
            return _Plan(fused.inputs, lambda inputs: together(inputs[0], *arrays))
        arrays = self.weights.get(name, {})
        return _Plan(layer.inputs, lambda inputs: functions.computed(layer.settings, arrays, inputs))

    def _logits_plan(self) -> "_Plan":
        graph = self.graph
        where, head = graph.head
        arrays = self.weights.get(head.name, {})

        def compute(inputs: Sequence[Array]) -> Array:
            found = functions.preactivation(head.settings, arrays, inputs) if where == "inside" else inputs[0]
            return self._as_logits(found)

        return _Plan((head.name,) if where == "none" else head.inputs, compute)

    def _fused(self, name: str) -> Any:
        """The convolution that is computed together with the pool `name`, or None."""
        if self.graph[name].settings not in _TOGETHER:
            return None
        layer = self.graph[self.graph[name].inputs[0]]
        match layer.settings:
            case kinds.Conv2D(
                strides=(1, 1), padding="valid", dilation_rate=(1, 1), groups=1, use_bias=True, activation="relu"
            ) if len(self.graph.readers(layer.name)) == 1:
                return layer
        return None

    def logits(self, known: Mapping[str, Float[Array | np.ndarray, "n ..."]]) -> Float[Array, "n k"]:
        """What goes into the softmax, from any known activations: the rest of the net from there."""
        return self.activations(known, (LOGITS,))[LOGITS]

    def features(self, pixels: Pixels, layers: Sequence[str]) -> dict[str, Float[Array, "n ..."]]:
        """Activations of `layers` for pixels 0–255."""
        return in_blocks(lambda block: self.activations({INPUT: scaled(block, self.input_scale)}, layers), pixels)

    def applied(self, layer: str, *inputs: Float[Array | np.ndarray, "n ..."]) -> Float[Array, "n ..."]:
        """What this one layer makes of what it reads."""
        arrays = [jnp.asarray(values) for values in inputs]
        return functions.computed(self.graph[layer].settings, self.weights.get(layer, {}), arrays)

    def activated(self, layer: str, preactivation: Float[Array | np.ndarray, "n ..."]) -> Float[Array, "n ..."]:
        """The layer's own activation function, of what goes into it."""
        return functions.activated(self.graph[layer].settings, jnp.asarray(preactivation))

    def given(self, layer: str, preactivation: Float[Array | np.ndarray, "n ..."]) -> dict[str, Float[Array, "n ..."]]:
        """What is known, for `activations`, where the input of a layer's own activation function is.

        That of the last softmax are the logits.
        """
        where, head = self.graph.head
        if where == "inside" and layer == head.name:
            return {LOGITS: self._as_logits(jnp.asarray(preactivation))}
        return {layer: self.activated(layer, preactivation)}

    def _as_logits(self, values: Float[Array, "n ..."]) -> Float[Array, "n k"]:
        # σ(z) is the softmax of (0, z).
        return jnp.concatenate([jnp.zeros_like(values), values], axis=-1) if self.graph.is_binary else values

    def kernel_and_bias(self, layer: str) -> tuple[Float[Array, "..."], Float[Array, " k"]]:
        """The arrays of a Conv2D or Dense layer; a bias of zeros where it has none."""
        arrays = self.weights[layer]
        kernel = jnp.asarray(arrays["kernel"])
        return kernel, jnp.asarray(arrays["bias"]) if "bias" in arrays else jnp.zeros(kernel.shape[-1])

    def pruned(self, layer: str, channels: Sequence[int] | Int[np.ndarray, " z"]) -> "Net":
        """The net with these output channels of a convolution at zero: kernel, bias, and what normalizes them.

        Raises: InputError if it has no such convolution, see `Graph.behind`, or no such channel.
        """
        chosen = np.asarray(channels)
        n = self.graph.channels(layer)
        if chosen.size and not np.issubdtype(chosen.dtype, np.integer):
            raise InputError(f"channels of {layer} as {chosen.dtype}: expected whole numbers, 0…{n - 1}")
        chosen = chosen.astype(int)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < n):
            raise InputError(
                f"{layer} has the channels 0…{n - 1}, got {sorted(set(chosen.tolist()) - set(range(n)))[:5]}"
            )
        mask = np.ones(n, np.float32)
        mask[chosen] = 0
        self.graph.masked_at(layer)
        on_host = {name: np.asarray(array) for name, array in self.weights[layer].items()}
        changed = {layer: self.masked_arrays(layer, mask, on_host)}
        for name in self.graph.normalized_behind(layer):
            changed[name] = {
                kind: array if kind == "moving_variance" else np.asarray(array) * mask
                for kind, array in self.weights[name].items()
            }
        return self.with_weights(self.weights | changed)

    def masked_arrays(self, layer: str, mask: Float[Any, " k"], arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays of a convolution, each output channel times its number in `mask`."""
        # In a separable convolution the last kernel makes the channels; in a depthwise one they are c · m.
        last = next(name for name in ("pointwise_kernel", "kernel", "depthwise_kernel") if name in arrays)
        by_channel = mask.reshape(arrays[last].shape[2:]) if last == "depthwise_kernel" else mask
        found = dict(arrays) | {last: arrays[last] * by_channel}
        return found | ({"bias": arrays["bias"] * mask} if "bias" in arrays else {})

    def with_weights(self, weights: Weights) -> "Net":
        """The same net with other arrays."""
        return Net(self.graph, weights, self.input_scale)

    def with_input_scale(self, input_scale: str) -> "Net":
        """The same net, fed with pixels of this scale."""
        return Net(self.graph, self.weights, input_scale, self.source)

    def __repr__(self) -> str:
        size = sum(int(np.prod(shape)) for arrays in self.graph.weight_shapes.values() for shape in arrays.values())
        rows, columns, channels = self.image_shape
        name = f"{self.source.name}, " if self.source else ""
        return (
            f"Net({name}{len(self.graph.layers)} layers, {size:,} parameters, images of {rows}×{columns}×{channels}, "
            f"{self.classes} classes, input scale {self.input_scale or 'not known'})"
        )

    # nnx would show all arrays.
    __str__ = __repr__


@dataclass(frozen=True)
class _Plan:
    reads: tuple[str, ...]
    compute: Any


def _flatten_with_keys(net: Net) -> tuple[tuple, tuple]:
    return ((jax.tree_util.GetAttrKey("weights"), net.weights),), (net.graph, net.input_scale)


def _flatten(net: Net) -> tuple[tuple, tuple]:
    return (net.weights,), (net.graph, net.input_scale)


def _unflatten(structure: tuple, children: Iterable[Any]) -> Net:
    # Past __init__, at every jitted call; and jax puts other things than arrays into trees.
    net = object.__new__(Net)
    (weights,) = children
    graph, input_scale = structure
    attributes: dict[str, Any] = net.__dict__  # pyright: ignore[reportAssignmentType]
    attributes.update(graph=graph, weights=weights, input_scale=input_scale, source=None)
    return net


# By hand: 16 µs a call, where nnx's own flattening takes 84.
jax.tree_util.register_pytree_with_keys(Net, _flatten_with_keys, _unflatten, _flatten)


def _check(graph: Graph, weights: Weights) -> None:
    expected = graph.weight_shapes
    if set(weights) != set(expected):
        missing, superfluous = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
        raise InputError(
            f"arrays of other layers than the net's: missing {listed(missing) or 'none'}, "
            f"superfluous {listed(superfluous) or 'none'}"
        )
    for layer, shapes in expected.items():
        if set(weights[layer]) != set(shapes):
            raise InputError(f"{layer} has {sorted(weights[layer])}, expected {sorted(shapes)}")
        for name, shape in shapes.items():
            if weights[layer][name].shape != shape:
                raise InputError(f"{layer}/{name} is {weights[layer][name].shape}, expected {shape}")
