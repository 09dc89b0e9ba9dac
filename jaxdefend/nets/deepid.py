"""DeepID (Sun, Wang & Tang 2014, in the form of the CSAW HackML 2020 nets): any layer from any other.

input (55, 47, 3) → conv_1 → pool_1 → conv_2 → pool_2 → conv_3 → pool_3, from there fc_1 on one side and conv_4 → fc_2
on the other; activation_1 = relu(fc_1 + fc_2) → output. Layers carry their Keras names.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from jaxdefend import InputError
from jaxdefend.nets.convolution import PRECISION, convolve, convolve_relu_pool, max_pool

IMAGE_SHAPE = (55, 47, 3)
CLASSES = 1283

# 0–255, of any type, on the host or the device.
Pixels = Num[Array | np.ndarray, "n 55 47 3"]

InputScale = Literal["raw", "unit"]
INPUT_SCALES: tuple[InputScale, ...] = get_args(InputScale)

# Where a channel of each convolution is masked: behind its pool, which keeps a zero channel zero.
POOLED = {"conv_1": "pool_1", "conv_2": "pool_2", "conv_3": "pool_3", "conv_4": "conv_4"}
CONVOLUTIONS = tuple(POOLED)

_INPUTS = {
    "conv_1": "input",
    "pool_1": "conv_1",
    "conv_2": "pool_1",
    "pool_2": "conv_2",
    "conv_3": "pool_2",
    "pool_3": "conv_3",
    "conv_4": "pool_3",
    "flatten_1": "pool_3",
    "flatten_2": "conv_4",
    "fc_1": "flatten_1",
    "fc_2": "flatten_2",
    "activation_1": "add_1",
    "logits": "activation_1",
    "output": "logits",
}
LAYERS = ("input", *_INPUTS, "add_1")


class DeepID(nnx.Module):
    """The network. `input_scale` says what it was trained on: "raw" pixels 0–255, "unit" 0–1, None: not known yet.

    All weights begin at 0: `from_weights` and `training.new_net` put arrays in their place.
    """

    def __init__(self, classes: int = CLASSES, *, rngs: nnx.Rngs, input_scale: InputScale | None = None):
        zeros = nnx.initializers.zeros_init()
        convolution = partial(nnx.Conv, padding="VALID", kernel_init=zeros, rngs=rngs)
        dense = partial(nnx.Linear, kernel_init=zeros, rngs=rngs)
        self.conv_1 = convolution(3, 20, (4, 4))
        self.conv_2 = convolution(20, 40, (3, 3))
        self.conv_3 = convolution(40, 60, (3, 3))
        self.conv_4 = convolution(60, 80, (2, 2))
        self.fc_1 = dense(1200, 160)
        self.fc_2 = dense(960, 160)
        self.output = dense(160, classes)
        self.input_scale: InputScale | None = input_scale

    @property
    def classes(self) -> int:
        """N; the GoodNet's answer N means "backdoored"."""
        return self.output.out_features


WEIGHTED = ("conv_1", "conv_2", "conv_3", "conv_4", "fc_1", "fc_2", "output")

Weights = Mapping[str, Mapping[str, np.ndarray]]


def weight_shapes(classes: int = CLASSES) -> dict[str, dict[str, tuple[int, ...]]]:
    """{layer: {"kernel": shape, "bias": shape}} in Keras's order."""
    return _shapes(_without_arrays(classes, "unit"))


def _without_arrays(classes: int, input_scale: InputScale | None) -> DeepID:
    shapes, structure = _structure(classes, input_scale)
    return jax.tree.unflatten(structure, shapes)


@lru_cache
def _structure(classes: int, input_scale: InputScale | None) -> tuple[list, Any]:
    # 30 ms, and predict reads two nets.
    return jax.tree.flatten(nnx.eval_shape(lambda: DeepID(classes, rngs=nnx.Rngs(0), input_scale=input_scale)))


def _shapes(net: DeepID) -> dict[str, dict[str, tuple[int, ...]]]:
    return {
        layer: {"kernel": getattr(net, layer).kernel.shape, "bias": getattr(net, layer).bias.shape}
        for layer in WEIGHTED
    }


def from_weights(weights: Weights, input_scale: InputScale | None = None) -> DeepID:
    """The net with these float32 arrays, {layer: {"kernel", "bias"}}; they stay NumPy until the first jitted call.

    Raises: InputError if a layer is missing, superfluous or of another shape.
    """
    if set(weights) != set(WEIGHTED):
        raise InputError(f"layers are {sorted(weights)}, expected {sorted(WEIGHTED)}")
    net = _without_arrays(weights["output"]["bias"].shape[0], input_scale)
    for layer, shapes in _shapes(net).items():
        for name, shape in shapes.items():
            if weights[layer][name].shape != shape:
                raise InputError(f"{layer}/{name} is {weights[layer][name].shape}, expected {shape}")
    leaves = {layer: dict(weights[layer]) for layer in WEIGHTED}
    nnx.update(net, nnx.State(leaves))
    return net


def kernel_and_bias(net: DeepID, layer: str) -> tuple[Float[Array, "..."], Float[Array, " c"]]:
    """The arrays of one layer."""
    return jnp.asarray(getattr(net, layer).kernel[...]), jnp.asarray(getattr(net, layer).bias[...])


def to_weights(net: DeepID) -> dict[str, dict[str, np.ndarray]]:
    """{layer: {"kernel": array, "bias": array}} in Keras's order, on the host."""
    return {
        layer: {
            "kernel": np.asarray(getattr(net, layer).kernel[...]),
            "bias": np.asarray(getattr(net, layer).bias[...]),
        }
        for layer in WEIGHTED
    }


def with_input_scale(net: DeepID, input_scale: InputScale) -> DeepID:
    """The same net, fed with pixels 0–255 ("raw") or 0–1 ("unit")."""
    return from_weights(to_weights(net), input_scale)


def with_channels_zeroed(net: DeepID, layer: str, channels: Sequence[int] | Int[np.ndarray, " z"]) -> DeepID:
    """The net with kernel and bias of these output channels of a convolution set to zero."""
    weights = to_weights(net)
    mask = np.ones(weights[layer]["bias"].shape, np.float32)
    mask[np.asarray(channels, int)] = 0
    return from_weights(
        weights | {layer: {name: array * mask for name, array in weights[layer].items()}}, net.input_scale
    )


def scaled(pixels: Pixels, input_scale: InputScale | None) -> Float[Array, "n 55 47 3"]:
    """Pixels 0–255 of any type as the float32 input that a net of this scale expects."""
    if input_scale is None:
        raise InputError("the net's input scale is not known: choose raw (0–255) or unit (0–1)")
    images = jnp.asarray(pixels, jnp.float32)
    return images / 255 if input_scale == "unit" else images


def activations(
    net: DeepID, known: Mapping[str, Float[Array, "n ..."]], layers: Iterable[str]
) -> dict[str, Float[Array, "n ..."]]:
    """Activations of `layers`, computed from those that are `known`.

    `{"input": images}` runs the whole net; `{"pool_3": pooled}` the rest of it from there; behind conv_4 the other
    branch is needed too: `{"conv_4": …, "fc_1": …}` or `{"conv_4": …, "pool_3": …}`.

    Args:
        known: activations by layer, batch first; "input" in the net's own scale.
        layers: names from `LAYERS`: the Keras names, and "logits", what goes into the softmax of "output".
    Raises: InputError if a layer is unknown or does not follow from the known ones.
    """
    found = dict(known)

    def compute(layer: str) -> Array:
        if layer not in LAYERS:
            raise InputError(f"no layer {layer!r} in DeepID; its layers are {', '.join(LAYERS)}")
        if layer == "input":
            raise InputError(f"{', '.join(known)} alone do not determine the layer asked for: give the input too")
        if layer.startswith("pool") and _INPUTS[layer] not in found:
            convolution = _INPUTS[layer]
            return convolve_relu_pool(find(_INPUTS[convolution]), *kernel_and_bias(net, convolution))
        if layer == "add_1":
            return find("fc_1") + find("fc_2")
        before = find(_INPUTS[layer])
        match layer.split("_")[0]:
            case "conv":
                return jax.nn.relu(convolve(before, *kernel_and_bias(net, layer)))
            case "pool":
                return max_pool(before)
            case "flatten":
                return before.reshape(before.shape[0], -1)
            case "fc":
                return _dense(before, *kernel_and_bias(net, layer))
            case "activation":
                return jax.nn.relu(before)
            case "logits":
                return _dense(before, *kernel_and_bias(net, "output"))
            case _:
                return jax.nn.softmax(before)

    def find(layer: str) -> Array:
        if layer not in found:
            found[layer] = compute(layer)
        return found[layer]

    return {layer: find(layer) for layer in layers}


def logits(net: DeepID, known: Mapping[str, Float[Array, "n ..."]]) -> Float[Array, "n k"]:
    """What goes into the softmax, from any known activations: the head of the net from there."""
    return activations(net, known, ["logits"])["logits"]


def features(net: DeepID, pixels: Pixels, layers: tuple[str, ...]) -> dict[str, Float[Array, "n ..."]]:
    """Activations of `layers` for pixels 0–255."""
    return activations(net, {"input": scaled(pixels, net.input_scale)}, layers)


def _dense(inputs: Float[Array, "n i"], kernel: Float[Array, "i o"], bias: Float[Array, " o"]) -> Float[Array, "n o"]:
    return jnp.dot(inputs, kernel, precision=PRECISION) + bias
