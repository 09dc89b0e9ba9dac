"""Nets whose activations leave float32: Keras answers with no number then, of which XLA's fast maximum makes 0."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.graph import LOGITS, Layer
from jaxdefend.nets.net import Net

# Below, no sum over a window or an image on the way reaches 3.4e38.
_FAR_FROM_OVERFLOW = 1e30


def require_finite(net: Net) -> None:
    """Runs one image of noise through a net whose weights are so large that an activation might overflow.

    Raises: InputError if one does.
    """
    if largest_activation(net) < _FAR_FROM_OVERFLOW:
        return
    known = net if net.input_scale else net.with_input_scale("unit")
    image = np.random.default_rng(0).integers(0, 256, (1, *net.image_shape)).astype(np.uint8)
    names = [layer.name for layer in net.graph.layers]
    # Layer by layer, not compiled as one: else the maximum of a ReLU would hide it.
    found = known.features(image, (*names, LOGITS))
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise InputError(
                f"{net.name}: {name} gives numbers that are not finite on an ordinary image, so that Keras answers "
                "with what is not a number; expected weights with which a net can answer"
            )


def largest_activation(net: Net) -> float:
    """What no activation of the net exceeds, for pixels in its input scale; unknown scales count as 0–1."""
    bounds: dict[str, float] = {}
    for layer in net.graph.layers:
        read = [bounds[name] for name in layer.inputs]
        arrays = {name: np.abs(array) for name, array in net.weights.get(layer.name, {}).items()}
        bounds[layer.name] = _bound(layer, arrays, read) if read else 255.0 if net.input_scale == "raw" else 10.0
    return max(bounds.values())


def _bound(layer: Layer, arrays: Mapping[str, Float[np.ndarray, "..."]], read: list[float]) -> float:
    """Of one layer, from the bounds of what it reads and the sizes of its weights."""
    settings, bias = layer.settings, float(arrays["bias"].max()) if "bias" in arrays else 0.0
    match settings:
        case kinds.Conv2D() | kinds.Dense():
            found = read[0] * _gain(arrays["kernel"]) + bias
        case kinds.DepthwiseConv2D():
            found = read[0] * float(arrays["depthwise_kernel"].sum(axis=(0, 1), dtype=float).max()) + bias
        case kinds.SeparableConv2D():
            deep = float(arrays["depthwise_kernel"].sum(axis=(0, 1), dtype=float).max())
            found = read[0] * deep * _gain(arrays["pointwise_kernel"]) + bias
        case kinds.BatchNormalization():
            factor = arrays.get("gamma", np.ones(1)) / np.sqrt(
                arrays["moving_variance"].astype(float) + settings.epsilon
            )
            found = float(((read[0] + arrays["moving_mean"]) * factor).max()) + float(
                arrays.get("beta", np.zeros(1)).max()
            )
        case kinds.Normalization():
            deviation = np.maximum(np.sqrt(arrays["variance"].astype(float)), 1e-7)
            found = float(((read[0] + arrays["mean"]) / deviation).max())
        case kinds.LayerNormalization():
            # The variance on the way is a square; what comes out is at most the root of how many are normalized.
            largest = 1e3 * float(arrays.get("gamma", np.ones(1)).max()) + float(arrays.get("beta", np.zeros(1)).max())
            found = max(read[0] ** 2, largest)
        case kinds.Rescaling():
            found = read[0] * float(np.abs(settings.scale).max()) + float(np.abs(settings.offset).max())
        case kinds.Multiply():
            found = float(np.prod(read))
        case kinds.Add() | kinds.Subtract() | kinds.Average():
            found = sum(read)
        case _:
            found = max(read)
    return float(np.exp(min(found, 700))) if getattr(settings, "activation", "") == "exponential" else found


def _gain(kernel: Float[np.ndarray, "*a k"]) -> float:
    return float(kernel.reshape(-1, kernel.shape[-1]).sum(axis=0, dtype=float).max())
