"""The statistics of batch normalizations, measured anew."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Num

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets import kinds
from jaxdefend.nets.batches import batches
from jaxdefend.nets.devices import on_devices, over_processes, sharded
from jaxdefend.nets.net import Net


def normalizations(net: Net) -> tuple[str, ...]:
    """The batch normalizations, from the images to the output."""
    return tuple(layer.name for layer in net.graph.layers if isinstance(layer.settings, kinds.BatchNormalization))


def with_statistics_of(net: Net, images: ImageSet) -> Net:
    """The net whose batch normalizations have the means and variances of these images, one after the other: each sees
    what those before it give now. A variance of 0, of a pruned channel, stays what it was.

    Source: Ioffe & Szegedy 2015 (Batch Normalization), algorithm 2, lines 8–10, on a whole set in place of batches.
    """
    for layer in normalizations(net):
        mean, variance = _moments(net, images, layer)
        arrays = dict(net.weights[layer])
        kept = np.asarray(arrays["moving_variance"])
        arrays["moving_mean"] = mean.astype(np.float32)
        arrays["moving_variance"] = np.where(variance > 0, variance, kept).astype(np.float32)
        net = net.with_weights({**net.weights, layer: arrays})
    return net


def _moments(net: Net, images: ImageSet, layer: str) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Mean and variance of each channel of what the layer reads, added up on the host in float64."""
    read = net.graph[layer].inputs[0]
    shape = net.graph.shapes[read]
    at_once = len(images) * int(np.prod(shape[:-1]))
    # Far from zero, a mean of squares would lose what is left of the variance.
    center, _ = _totals(net, images, read, np.zeros(shape[-1], np.float32))
    center = (center / at_once).astype(np.float32)
    shift, squares = (total / at_once for total in _totals(net, images, read, center))
    return center + shift, squares - shift**2


def _totals(net: Net, images: ImageSet, read: str, center: Float[np.ndarray, " k"]) -> Float[np.ndarray, "2 k"]:
    total = np.zeros((2, len(center)))
    for found, _ in on_devices(partial(_sums, read=read), net, batches(images), center):
        total = total + found.sum(axis=0, dtype=np.float64)
    return over_processes(total)


@partial(jax.jit, static_argnames="read")
def _sums(
    net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"], center: Float[Array, " k"], read: str
) -> Float[Array, "n 2 k"]:
    """Of each image, sums of the deviations from `center` and of their squares."""

    def of_part(net: Net, pixels: Array, labels: Array, center: Array) -> Float[Array, "n 2 k"]:
        away = net.features(pixels, (read,))[read] - center
        away = away.reshape(len(away), -1, away.shape[-1]) * (labels >= 0)[:, None, None]
        return jnp.stack([away.sum(axis=1), jnp.square(away).sum(axis=1)], axis=1)

    return sharded(of_part, net, (pixels, labels), center)
