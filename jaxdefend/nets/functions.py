"""What each kind of layer computes from what it reads: float32, the batch first, channels last."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxdefend.nets import kinds
from jaxdefend.nets.backend import PRECISION
from jaxdefend.nets.convolution import average_pool, convolve, depthwise, max_pool
from jaxdefend.nets.kinds import Kind

Arrays = Mapping[str, Any]
Activations = Float[Array, "n ..."]


def computed(settings: Kind, arrays: Arrays, inputs: Sequence[Activations]) -> Activations:
    """What a layer gives."""
    return activated(settings, preactivation(settings, arrays, inputs))


def activated(settings: Kind, values: Activations) -> Activations:
    """A layer's own activation function of what comes before it."""
    match settings:
        case kinds.Softmax():
            return jax.nn.softmax(values)
        case kinds.ReLU():
            return _relu(values, settings)
        case kinds.LeakyReLU():
            return jax.nn.leaky_relu(values, settings.negative_slope)
        case kinds.ELU():
            return jax.nn.elu(values, settings.alpha)
        case _:
            return ACTIVATIONS[getattr(settings, "activation", "linear")](values)


def preactivation(settings: Kind, arrays: Arrays, inputs: Sequence[Activations]) -> Activations:
    """What goes into a layer's own activation function."""
    arrays = {name: jnp.asarray(array) for name, array in arrays.items()}
    match settings:
        case kinds.Conv2D():
            bias = arrays.get("bias")
            strides, dilation = settings.strides, settings.dilation_rate
            return convolve(inputs[0], arrays["kernel"], bias, strides, settings.padding, dilation, settings.groups)
        case kinds.DepthwiseConv2D():
            found = depthwise(
                inputs[0], arrays["depthwise_kernel"], settings.strides, settings.padding, settings.dilation_rate
            )
            return found + arrays["bias"] if settings.use_bias else found
        case kinds.SeparableConv2D():
            found = depthwise(
                inputs[0], arrays["depthwise_kernel"], settings.strides, settings.padding, settings.dilation_rate
            )
            found = jnp.dot(found, arrays["pointwise_kernel"][0, 0], precision=PRECISION)
            return found + arrays["bias"] if settings.use_bias else found
        case kinds.Dense():
            found = jnp.dot(inputs[0], arrays["kernel"], precision=PRECISION)
            return found + arrays["bias"] if settings.use_bias else found
        case kinds.BatchNormalization():
            return _batch_normalized(inputs[0], arrays, settings.epsilon)
        case kinds.LayerNormalization():
            return _layer_normalized(inputs[0], arrays, settings)
        case kinds.Normalization():
            # Keras's own guard against a variance of 0.
            deviation = jnp.maximum(jnp.sqrt(lax.stop_gradient(arrays["variance"])), 1e-7)
            return (inputs[0] - lax.stop_gradient(arrays["mean"])) / deviation
        case kinds.Rescaling():
            return inputs[0] * _numbers(settings.scale) + _numbers(settings.offset)
        case kinds.MaxPooling2D():
            return max_pool(inputs[0], settings.pool_size, settings.strides, settings.padding)
        case kinds.AveragePooling2D():
            return average_pool(inputs[0], settings.pool_size, settings.strides, settings.padding)
        case kinds.GlobalMaxPooling2D():
            return inputs[0].max(axis=(1, 2), keepdims=settings.keepdims)
        case kinds.GlobalAveragePooling2D():
            return inputs[0].mean(axis=(1, 2), keepdims=settings.keepdims)
        case kinds.ZeroPadding2D():
            return jnp.pad(inputs[0], ((0, 0), *settings.padding, (0, 0)))
        case kinds.Cropping2D():
            (above, below), (left, right) = settings.cropping
            return inputs[0][:, above : inputs[0].shape[1] - below, left : inputs[0].shape[2] - right]
        case kinds.UpSampling2D():
            return inputs[0].repeat(settings.size[0], axis=1).repeat(settings.size[1], axis=2)
        case kinds.Flatten():
            return inputs[0].reshape(inputs[0].shape[0], -1)
        case kinds.Reshape():
            return inputs[0].reshape(inputs[0].shape[0], *settings.shape(inputs[0].shape[1:]))
        case kinds.Permute():
            return inputs[0].transpose(0, *settings.dims)
        case kinds.Concatenate():
            return jnp.concatenate(inputs, axis=settings.axis)
        case kinds.Add() | kinds.Subtract() | kinds.Multiply() | kinds.Average() | kinds.Maximum() | kinds.Minimum():
            return _merged(settings, inputs)
        case _:
            return inputs[0]


def _batch_normalized(inputs: Activations, arrays: Arrays, epsilon: float) -> Activations:
    # The statistics are not trained: what moves them in training is the images, not the loss.
    mean, variance = (lax.stop_gradient(arrays[name]) for name in ("moving_mean", "moving_variance"))
    factor = lax.rsqrt(variance + epsilon)
    if "gamma" in arrays:
        factor = factor * arrays["gamma"]
    shift = -mean * factor
    if "beta" in arrays:
        shift = shift + arrays["beta"]
    return inputs * factor + shift


def _layer_normalized(inputs: Activations, arrays: Arrays, settings: kinds.LayerNormalization) -> Activations:
    axes = tuple(sorted(settings.axis))
    centered = inputs - inputs.mean(axis=axes, keepdims=True)
    found = centered * lax.rsqrt(jnp.square(centered).mean(axis=axes, keepdims=True) + settings.epsilon)
    along = [inputs.shape[axis] if axis in axes else 1 for axis in range(-inputs.ndim, 0)]
    if settings.scale:
        found = found * arrays["gamma"].reshape(along)
    return found + arrays["beta"].reshape(along) if settings.center else found


def _merged(settings: Kind, inputs: Sequence[Activations]) -> Activations:
    rank = max(values.ndim for values in inputs)
    # Of lower rank: the axes that are missing come behind the batch.
    alike = [values.reshape(len(values), *(1,) * (rank - values.ndim), *values.shape[1:]) for values in inputs]
    found = alike[0]
    for values in alike[1:]:
        found = _MERGES[type(settings)](found, values)
    return found / len(alike) if isinstance(settings, kinds.Average) else found


_MERGES: dict[type[Kind], Callable[[Array, Array], Array]] = {
    kinds.Add: lambda a, b: a + b,
    kinds.Subtract: lambda a, b: a - b,
    kinds.Multiply: lambda a, b: a * b,
    kinds.Average: lambda a, b: a + b,
    kinds.Maximum: jnp.maximum,
    kinds.Minimum: jnp.minimum,
}


def _numbers(values: tuple[float, ...]) -> Float[Array, " c"]:
    return jnp.asarray(values, jnp.float32)


def _relu(values: Activations, settings: kinds.ReLU) -> Activations:
    # The derivative at 0 is 0, as jax.nn.relu has it: a zeroed channel stays at zero in training.
    below = settings.negative_slope * (values - settings.threshold)
    found = jnp.where(values > settings.threshold, values, below)
    if settings == kinds.ReLU(settings.max_value):
        found = jax.nn.relu(values)
    return found if settings.max_value is None else jnp.minimum(found, settings.max_value)


ACTIVATIONS: dict[str, Callable[[Activations], Activations]] = {
    "linear": lambda values: values,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    # Keras's slope where only the name is given.
    "leaky_relu": lambda values: jax.nn.leaky_relu(values, 0.2),
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "gelu": lambda values: jax.nn.gelu(values, approximate=False),
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "hard_silu": jax.nn.hard_silu,
    "hard_tanh": jax.nn.hard_tanh,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "exponential": jnp.exp,
    "mish": jax.nn.mish,
    "softmax": jax.nn.softmax,
}
assert set(ACTIVATIONS) == set(kinds.ACTIVATIONS)
