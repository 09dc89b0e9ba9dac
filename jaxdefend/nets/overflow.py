"""Nets whose activations leave float32: Keras answers with no number then, of which XLA's fast maximum makes 0."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.graph import Layer
from jaxdefend.nets.net import Net
from jaxdefend.nets.scales import scaled
from jaxdefend.results.text import printable

# Float32 ends at 3.4e38. ResNet-20 is at 8e8, and every residual block makes it ten times as much.
_SUSPICIOUS = 1e25


def require_finite(net: Net) -> None:
    """Runs an image of noise through a net whose weights are so large that it may overflow; others cost nothing.

    Raises: InputError if it does, so that there is an activation, or an answer, that is not a number.
    """
    # So that what is not a number is suspicious too.
    if typical_activation(net) < _SUSPICIOUS:
        return
    image = np.random.default_rng(0).integers(0, 256, (1, *net.image_shape)).astype(np.uint8)
    if (layer := _first_without_numbers(net, image)) is not None:
        raise InputError(
            f"{net.name}: its activations overflow float32 on an ordinary image: {printable(layer, 100)} gives what "
            "is not a number; expected weights with which a net can answer"
        )


def typical_activation(net: Net) -> float:
    """The size of the largest activations, as if what a kernel adds up were independent; infinite or NaN at worst.

    Unknown input scales count as 0–1.
    """
    sizes: dict[str, float] = {}
    with np.errstate(all="ignore"):
        for layer in net.graph.layers:
            arrays = {name: np.asarray(array) for name, array in net.weights.get(layer.name, {}).items()}
            read = np.array([sizes[name] for name in layer.inputs])
            size = _size(layer, arrays, read) if len(read) else _input_size(net)
            sizes[layer.name] = _activated(layer, float(size))
        return float(np.max(list(sizes.values())))


def _first_without_numbers(net: Net, pixels: UInt8[np.ndarray, "1 h w c"]) -> str | None:
    """The first layer with an activation that is not a number, or the output where it is infinite."""
    graph = net.graph
    readers = {layer.name: len(graph.readers(layer.name)) for layer in graph.layers}
    found: dict[str, Array] = {graph.input: scaled(pixels, net.input_scale or "unit")}
    # Layer by layer, not compiled as one: else the maximum of a ReLU would hide it.
    for layer in graph.layers:
        if layer.inputs:
            found[layer.name] = net.applied(layer.name, *(found[name] for name in layer.inputs))
        values = np.asarray(jax.device_get(found[layer.name]))
        if np.isnan(values).any() or (layer.name == graph.output and not np.isfinite(values).all()):
            return layer.name
        for name in set(layer.inputs):
            readers[name] -= 1
            if not readers[name]:
                del found[name]
    return None


def _input_size(net: Net) -> float:
    known = {"raw": 255.0, "unit": 1.0, "symmetric": 1.0, None: 1.0}
    if net.input_scale in known:
        return known[net.input_scale]
    ends = np.broadcast_to(np.array([0, 255], np.uint8)[:, None, None, None], (2, 1, 1, net.image_shape[2]))
    return float(np.abs(scaled(ends, net.input_scale)).max())


def _size(layer: Layer, arrays: Mapping[str, Float[np.ndarray, "..."]], read: Float[np.ndarray, " r"]) -> Any:
    """A number, of one layer before its activation function, from the sizes of what it reads."""
    largest = {name: np.abs(array).max(initial=0) for name, array in arrays.items() if array.ndim == 1}
    bias, first = largest.get("bias", 0), read[0]
    match layer.settings:
        case kinds.Conv2D() | kinds.Dense():
            return first * _gain(arrays["kernel"]) + bias
        case kinds.DepthwiseConv2D():
            return first * _gain(_by_channel(arrays["depthwise_kernel"])) + bias
        case kinds.SeparableConv2D():
            gain = _gain(_by_channel(arrays["depthwise_kernel"])) * _gain(arrays["pointwise_kernel"])
            return first * gain + bias
        case kinds.BatchNormalization(epsilon=epsilon):
            variance = arrays["moving_variance"] + epsilon
            # Below, XLA makes it 0.
            variance = np.where(np.abs(variance) < np.finfo(np.float32).tiny, 0, variance)
            factor = np.abs(arrays.get("gamma", np.ones(1))) / np.sqrt(variance)
            return ((first + np.abs(arrays["moving_mean"])) * factor).max() + largest.get("beta", 0)
        case kinds.Normalization():
            return ((first + np.abs(arrays["mean"])) / np.maximum(np.sqrt(arrays["variance"]), 1e-7)).max()
        case kinds.LayerNormalization():
            # Some hundred deviations, unless their squares are beyond float32.
            return 100 * largest.get("gamma", 1) + largest.get("beta", 0) if first < 1e15 else np.inf
        case kinds.Rescaling(scale=scale, offset=offset):
            return first * np.abs(scale).max() + np.abs(offset).max()
        case kinds.Multiply():
            return read.prod()
        case kinds.Add() | kinds.Subtract() | kinds.Average():
            return read.sum()
        case kinds.LeakyReLU(negative_slope=slope) | kinds.ReLU(negative_slope=slope) | kinds.ELU(alpha=slope):
            return first * max(1, abs(slope)) + abs(slope)
        case _:
            return read.max()


def _activated(layer: Layer, size: float) -> float:
    match "softmax" if isinstance(layer.settings, kinds.Softmax) else getattr(layer.settings, "activation", "linear"):
        case "softmax" | "sigmoid" | "tanh" | "hard_tanh" | "softsign" if size < np.inf:
            return 1.0
        case "exponential":
            return float(np.exp(size))
        case _:
            return size


def _gain(kernel: Float[np.ndarray, "*a k"]) -> float:
    """The root of the largest sum of squares that an output has."""
    flat = kernel.reshape(-1, kernel.shape[-1])
    return float(np.sqrt(np.einsum("ik,ik->k", flat, flat)).max(initial=0))


def _by_channel(kernel: Float[np.ndarray, "a b c m"]) -> Float[np.ndarray, "a b k"]:
    return kernel.reshape(*kernel.shape[:2], -1)
