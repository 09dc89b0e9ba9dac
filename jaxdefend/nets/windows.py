"""Convolutions as products of the kernel with matrices of windows, on a CPU."""

import math
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxdefend.nets.backend import PRECISION, apart


def pooled(
    images: Float[Array, "n h w c"], kernel: Float[Array, "a b c k"], bias: Float[Array, " k"]
) -> Float[Array, "n i j k"]:
    """`convolution.convolve_relu_pool` as one product of the kernel with the windows.

    Its derivatives are products of the same matrices. Forward and backward through DeepID's three, one Zen 5 core,
    microseconds an image: 330; with windows of (a+1)×(b+1) pixels and the four shifted kernels side by side, 1.6 to 1.8
    times the multiply-adds, 560.
    """
    return _activated(_unmarked(_largest(_outputs(images, kernel))), bias)


@partial(jax.jit, static_argnames="pool")
def pooled_by_eight(
    images: Float[Array, "n h w c"], kernel: Float[Array, "a b c k"], bias: Float[Array, " k"], pool: str = "max"
) -> Float[Array, "n i j k"]:
    """`convolve_relu_pool`, or `convolve_relu_average`, eight images at a time: their windows stay in the cache.

    Args:
        images: a multiple of eight.
        pool: "max" or "average".
    """

    def of_eight(images: Array) -> Array:
        outputs = _outputs(images, kernel)
        four = [outputs[:, :, down, :, right] for down in (0, 1) for right in (0, 1)]
        if pool == "max":
            return _activated(reduce(lax.max, four), bias)
        return reduce(lax.add, [_activated(each, bias) for each in four]) / 4

    found = lax.map(of_eight, images.reshape(-1, 8, *images.shape[1:]))
    return found.reshape(len(images), *found.shape[2:])


def _outputs(images: Float[Array, "n h w c"], kernel: Float[Array, "a b c k"]) -> Float[Array, "k i 2 j 2 n"]:
    """Of the convolution, images side by side in the last axis.

    So windows are copies of long runs, and vectors are full under the pool squares.
    """
    height, width, _, channels = kernel.shape
    rows, columns = (images.shape[1] - height + 1) // 2, (images.shape[2] - width + 1) // 2
    beside = apart(images.transpose(3, 1, 2, 0))
    taps = [
        [beside[:, top : top + 2 * rows, left : left + 2 * columns] for left in range(width)] for top in range(height)
    ]
    # A stack of stacks is copied once, a concatenation twice.
    seen = jnp.stack([jnp.stack(row) for row in taps]).reshape(math.prod(kernel.shape[:3]), -1)
    outputs = jnp.dot(kernel.reshape(-1, channels).T, seen, precision=PRECISION)
    return outputs.reshape(channels, rows, 2, columns, 2, len(images))


def _activated(largest: Float[Array, "k i j n"], bias: Float[Array, " k"]) -> Float[Array, "n i j k"]:
    return jax.nn.relu(largest + bias[:, None, None, None]).transpose(3, 1, 2, 0)


@jax.custom_jvp
def _largest(four: Float[Array, "k i 2 j 2 n"]) -> Float[Array, "k i j n"]:
    """Under each pool square, with its place, 0 to 3, in the two lowest bits: where several are equal, one of them.

    So one pass over the outputs finds both; less than a rounding is lost.
    """

    def marked(down: int, right: int) -> Array:
        bits = lax.bitcast_convert_type(four[:, :, down, :, right], jnp.int32)
        return lax.bitcast_convert_type(bits & ~3 | (2 * down + right), jnp.float32)

    return apart(reduce(lax.max, [marked(down, right) for down in (0, 1) for right in (0, 1)]))


@_largest.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (four,), (change,) = primals, tangents
    largest = _largest(four)
    place = lax.bitcast_convert_type(largest, jnp.int32) & 3
    # Split, for the transpose of that is one copy of what goes where.
    changes = [right for lower in lax.split(change, (1, 1), 2) for right in lax.split(lower, (1, 1), 4)]
    chosen = [jnp.where(place == i, part[:, :, 0, :, 0], 0) for i, part in enumerate(changes)]
    return largest, reduce(lax.add, chosen)


@jax.custom_jvp
def _unmarked(largest: Float[Array, "k i j n"]) -> Float[Array, "k i j n"]:
    """Without the place a zero is a zero, and behind the ReLU it has no gradient."""
    return lax.bitcast_convert_type(lax.bitcast_convert_type(largest, jnp.int32) & ~3, jnp.float32)


@_unmarked.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _unmarked(*primals), tangents[0]


def as_rows(
    images: Float[Array, "n h w c"], height: int, width: int, rows: int, columns: int, strides: tuple[int, int]
) -> Float[Array, "n rows columns window"]:
    """The pixels that each output sees, one row of the matrix an output."""
    down, right = (rows - 1) * strides[0] + 1, (columns - 1) * strides[1] + 1
    slices = [
        images[:, top : top + down : strides[0], left : left + right : strides[1]]
        for top in range(height)
        for left in range(width)
    ]
    return jnp.concatenate(slices, axis=-1)
