"""Convolutions in the fastest form for the backend, its vectors and the jax version: chosen only here."""

import math
from collections.abc import Callable
from functools import cache, partial, reduce
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Num, PyTree

from jaxdefend.nets import windows
from jaxdefend.nets.backend import PRECISION, apart, has_wide_vectors

# Images side by side in `_written_out`: float32 in a vector register of 512 bits.
_LANES = 16

# Images that go through the layers together, see `in_blocks`.
_BLOCK = 32

# Bytes. Images larger than the 32×32 to 64×64 pixels of which the windows below speak would fill the memory.
_MOST_WINDOWS = 2**29

# Bytes of eight images' windows in `_is_narrow`.
_CACHED_WINDOWS = 2**22

# XLA's compiler makes vectors of a loop that reads up to about 490 different places, and none of a longer one.
_MOST_LOADS = 480


def _channels_in(n: int) -> int:
    """To how many channels a convolution's `n` inputs are filled up with zeros.

    Before jax 0.12, XLA's CPU convolution is slow unless they are a multiple of 4. DeepID, 256 images, microseconds of
    one Zen 5 core an image: 1,010 as they are, 430 as a matrix of windows in blocks of 16, 213 filled up. From 0.12 on
    264 as they are, 314 filled up. One channel alone is fast as it is: 16 kernels of 5×5 on 28×28 pixels take 10
    microseconds of two such cores an image, filled up 18.
    """
    on_old_cpu = jax.default_backend() == "cpu" and jax.__version_info__ < (0, 12)
    return -(-n // 4) * 4 if on_old_cpu and n > 1 else n


def _channels_out(n: int) -> int:
    """To how many channels a convolution's `n` results are filled up.

    On a CPU a multiple of 8 is fast, where it adds little: conv_3 with 64 for 60 takes 40 instead of 74 microseconds of
    one Xeon core an image (jax 0.10; 0.12: 47 instead of 63), conv_1 with 24 for 20 takes 184 instead of 108.
    """
    filled = -(-n // 8) * 8
    adds_little = filled <= 1.1 * n
    return filled if jax.default_backend() == "cpu" and adds_little else n


def training_block(n: int) -> int:
    """Of `n` images of a device, how many go forward and backward together; the last of the blocks may be filled up.

    DeepID's convolutions forward and backward, one Zen 5 core of 1 MB second-level cache, microseconds an image: 310 in
    blocks of 8, 360 of 16, 480 of 32; the dense layers take 32 in blocks of 16 and 25 of 32. Whole steps are as fast in
    blocks of 8 and 16.
    """
    blocks = -(-n // 16) if jax.default_backend() == "cpu" else 1
    return -(-n // blocks)


def in_blocks(compute: Callable[[Any], PyTree[Array]], images: Num[Array | np.ndarray, "n ..."]) -> PyTree[Array]:
    """`compute(images)`, image by image: on a CPU in blocks, so that what lies between two layers stays in its cache.

    Two Zen 5 cores, 256 images of each, microseconds an image all at once and in blocks of 32, jax 0.10 (0.12): DeepID
    62, 52 (67, 56); ResNet-20 417, 311 (443, 333); a net of six wide convolutions 235, 241 (193, 203). Blocks of 16 and
    of 64 are as fast but for the last, which takes 335 in blocks of 64.
    """
    n = len(images)
    if jax.default_backend() != "cpu" or n <= _BLOCK or n % _BLOCK or not _is_compiling():
        return compute(images)
    found = lax.map(compute, jnp.reshape(images, (n // _BLOCK, _BLOCK, *images.shape[1:])))
    return jax.tree.map(lambda each: each.reshape(n, *each.shape[2:]), found)


def _is_compiling() -> bool:
    """Whether this is the body of a compiled function: elsewhere, within `grad` or `vmap` alone too, every call would
    compile the blocks anew."""
    return isinstance(jnp.zeros(()), Tracer)


def max_pool(
    activations: Float[Array, "n h w k"],
    size: tuple[int, int] = (2, 2),
    strides: tuple[int, int] = (2, 2),
    padding: str = "valid",
) -> Float[Array, "n i j k"]:
    """Largest of each window; rows and columns that are left over are left out where `padding` is valid."""
    window, steps = (1, *size, 1), (1, *strides, 1)
    return lax.reduce_window(activations, -jnp.inf, lax.max, window, steps, padding.upper())


def average_pool(
    activations: Float[Array, "n h w k"],
    size: tuple[int, int] = (2, 2),
    strides: tuple[int, int] = (2, 2),
    padding: str = "valid",
) -> Float[Array, "n i j k"]:
    """Mean of each window, of what lies inside the image."""
    window, steps = (1, *size, 1), (1, *strides, 1)
    sums = lax.reduce_window(activations, 0.0, lax.add, window, steps, padding.upper())
    if padding == "valid":
        return sums / (size[0] * size[1])
    return sums / lax.reduce_window(jnp.ones((1, *activations.shape[1:3], 1)), 0.0, lax.add, window, steps, "SAME")


def convolve(
    images: Float[Array, "n h w c"],
    kernel: Float[Array, "a b d k"],
    bias: Float[Array, " k"] | None = None,
    strides: tuple[int, int] = (1, 1),
    padding: str = "valid",
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Float[Array, "n i j k"]:
    """Cross-correlation of `images` with `kernel`, plus `bias`.

    Args:
        padding: "valid", or "same": zeros around the images, so that strides of 1 keep their size.
        groups: how many parts the channels fall into, each convolved by itself; d is c / groups.
    """
    bias = jnp.zeros(kernel.shape[3]) if bias is None else bias
    if (dilation, groups) == ((1, 1), 1):
        return _convolve_plain(images, kernel, bias, strides, padding)
    return _by_xla(images, kernel, strides, padding, dilation, groups) + bias


def depthwise(
    images: Float[Array, "n h w c"],
    kernel: Float[Array, "a b c m"],
    strides: tuple[int, int] = (1, 1),
    padding: str = "valid",
    dilation: tuple[int, int] = (1, 1),
) -> Float[Array, "n i j k"]:
    """Every channel of `images` with its own m kernels; k = c · m, the results of one channel side by side."""
    height, width, channels, several = kernel.shape
    by_channel = kernel.reshape(height, width, 1, channels * several)
    return convolve(images, by_channel, None, strides, padding, dilation, channels)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _convolve_plain(
    images: Float[Array, "n h w c"],
    kernel: Float[Array, "a b c k"],
    bias: Float[Array, " k"],
    strides: tuple[int, int],
    padding: str,
) -> Float[Array, "n i j k"]:
    """`convolve` without dilation and groups."""
    if (strides, padding) == ((1, 1), "valid"):
        return _convolve(images, kernel) + bias
    return _by_xla(images, kernel, strides, padding) + bias


def _by_xla(
    images: Float[Array, "n h w c"],
    kernel: Float[Array, "a b d k"],
    strides: tuple[int, int],
    padding: str,
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Float[Array, "n i j k"]:
    # Filled up as in `_filled_up` they are no faster: nets of 16 to 64 channels for 32×32 pixels, jax 0.10.
    return lax.conv_general_dilated(
        images,
        kernel,
        strides,
        padding.upper(),
        rhs_dilation=dilation,
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=PRECISION,
    )


@jax.custom_jvp
def convolve_relu_pool(
    images: Float[Array, "n h w c"], kernel: Float[Array, "a b c k"], bias: Float[Array, " k"]
) -> Float[Array, "n i j k"]:
    """`max_pool(relu(convolve(...)))`."""
    return _convolve_relu_pool(images, kernel, bias)


@jax.custom_jvp
def convolve_relu_average(
    images: Float[Array, "n h w c"], kernel: Float[Array, "a b c k"], bias: Float[Array, " k"]
) -> Float[Array, "n i j k"]:
    """`average_pool(relu(convolve(...)))`."""
    if outputs := _outputs_together(len(images), kernel.shape):
        return _written_out(images, kernel, bias, outputs, "average")
    if _is_narrow(images.shape, kernel.shape):
        return windows.pooled_by_eight(images, kernel, bias, "average")
    return _averaged(images, kernel, bias)


def _averaged(
    images: Float[Array, "n h w c"], kernel: Float[Array, "a b c k"], bias: Float[Array, " k"]
) -> Float[Array, "n i j k"]:
    return average_pool(jax.nn.relu(convolve(images, kernel, bias)))


def _convolve(images: Float[Array, "n h w c"], kernel: Float[Array, "a b c k"]) -> Float[Array, "n i j k"]:
    return _filled_up(images, kernel)[..., : kernel.shape[3]]


def _convolve_relu_pool(
    images: Float[Array, "n h w c"], kernel: Float[Array, "a b c k"], bias: Float[Array, " k"]
) -> Float[Array, "n i j k"]:
    if outputs := _outputs_together(len(images), kernel.shape):
        return _written_out(images, kernel, bias, outputs)
    if _is_narrow(images.shape, kernel.shape):
        return windows.pooled_by_eight(images, kernel, bias)
    # What was filled up goes behind the pool: it is a fourth to copy.
    return jax.nn.relu(max_pool(_filled_up(images, kernel))[..., : len(bias)] + bias)


def _filled_up(images: Float[Array, "n h w c"], kernel: Float[Array, "a b c k"]) -> Float[Array, "n i j filled"]:
    """The convolution, followed by channels of zeros up to `_channels_out`."""
    inputs, outputs = kernel.shape[2:]
    more_inputs, more_outputs = _channels_in(inputs) - inputs, _channels_out(outputs) - outputs
    return lax.conv_general_dilated(
        jnp.pad(images, ((0, 0), (0, 0), (0, 0), (0, more_inputs))),
        jnp.pad(kernel, ((0, 0), (0, 0), (0, more_inputs), (0, more_outputs))),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=PRECISION,
    )


def _outputs_together(n: int, kernel: tuple[int, ...]) -> int:
    """How many of the four convolution outputs under a pool square `_written_out` computes in one loop.

    0 where another form is faster: without vectors of 512 bits, with too few images beside each other, and where even
    two outputs read too much.

    DeepID, two Xeon cores, microseconds an image: 169 with `lax.conv`, 138 with conv_1 (four) and conv_2 (two) written
    out (jax 0.10; 0.12: 214, 121); with vectors of 256 bits 370 to 410.
    """
    full = n >= 0.8 * (-(-n // _LANES) * _LANES)
    if jax.default_backend() != "cpu" or not has_wide_vectors() or not full:
        return 0
    height, width, inputs, _ = kernel
    loads = {
        4: (height * width + (height + 1) * (width + 1)) * inputs,
        2: (height * width + height * (width + 1)) * inputs,
    }
    return next((outputs for outputs, loaded in loads.items() if loaded <= _MOST_LOADS), 0)


def _is_narrow(images: tuple[int, ...], kernel: tuple[int, ...]) -> bool:
    """Whether without vectors of 512 bits a matrix of windows is faster than XLA's form: of kernels with few channels.

    One Zen 3 core, microseconds an image, XLA's form and windows, jax 0.10 (0.12): DeepID's conv_1 149, 114 (193, 125);
    3 to 16 channels on 64×64 pixels 351, 120 (306, 116); 1 to 16 by 5×5 on 28×28 55, 20 (50, 20). With 32 channels XLA
    is as fast or faster, 51, 53 (38, 53), with 20 that are read too, 97, 131 (104, 175).
    """
    if jax.default_backend() != "cpu" or has_wide_vectors() or images[0] % 8:
        return False
    return kernel[2] <= 4 and kernel[3] <= 24 and 32 * math.prod(images[1:3]) * math.prod(kernel[:3]) <= _CACHED_WINDOWS


@partial(jax.jit, static_argnames=("outputs", "pool"))
def _written_out(
    images: Float[Array, "n h w c"],
    kernel: Float[Array, "a b c k"],
    bias: Float[Array, " k"],
    outputs: int,
    pool: str = "max",
) -> Float[Array, "n i j k"]:
    """`convolve_relu_pool`, or `convolve_relu_average`, as sums of products, one by one, from which XLA makes one loop
    that keeps them in registers.

    Args:
        outputs: under a pool square, how many are computed in one loop: 4, or the 2 beside each other.
        pool: "max" or "average".
    """
    n, height, width, inputs = images.shape
    kernel_height, kernel_width, _, channels = kernel.shape
    rows, columns = (height - kernel_height + 1) // 2, (width - kernel_width + 1) // 2
    filled = jnp.pad(images, ((0, -n % _LANES), (0, 0), (0, 0), (0, 0)))
    lanes = filled.reshape(-1, _LANES, height, width, inputs).transpose(0, 2, 3, 4, 1)
    step = 2 if outputs == 4 else 1
    shape = (len(lanes), rows * 2 // step, columns, channels, _LANES)

    # Each is one place that the loop reads, however many products it is part of.
    @cache
    def pixel(row: int, column: int, channel: int) -> Array:
        end = (len(lanes), row + (shape[1] - 1) * step + 1, column + (columns - 1) * 2 + 1, channel + 1, _LANES)
        seen = lax.slice(lanes, (0, row, column, channel, 0), end, (1, step, 2, 1, 1))
        return lax.broadcast_in_dim(seen, shape, range(5))

    @cache
    def weight(row: int, column: int, channel: int) -> Array:
        end = (row + 1, column + 1, channel + 1, channels)
        return lax.broadcast_in_dim(lax.slice(kernel, (row, column, channel, 0), end), shape, range(4))

    def output(down: int, right: int) -> Array:
        # One sum for each row of the kernel: an addition need not wait for the one before.
        taps = list(product(range(kernel_width), range(inputs)))
        products = (
            [pixel(down + row, right + column, channel) * weight(row, column, channel) for column, channel in taps]
            for row in range(kernel_height)
        )
        return reduce(lax.add, [reduce(lax.add, of_row) for of_row in products])

    def activated(values: Array) -> Array:
        return jax.nn.relu(values + bias[:, None])

    # The largest may be taken before the ReLU.
    joined = lax.max if pool == "max" else lambda one, other: one + other
    each = output if pool == "max" else lambda down, right: activated(output(down, right))
    if outputs == 4:
        found = reduce(joined, [each(down, right) for down in (0, 1) for right in (0, 1)])
    else:
        wide = apart(joined(each(0, 0), each(0, 1)))
        found = joined(wide[:, ::2], wide[:, 1::2])
    pooled = apart(activated(found) if pool == "max" else found / 4)
    return pooled.transpose(0, 4, 1, 2, 3).reshape(-1, rows, columns, channels)[:n]


# Where derivatives are asked for, a CPU does better with matrices of windows, in blocks of `training_block`: two Xeon
# cores, jax 0.10, microseconds per image, ResNet-20: 12,200, `lax.conv` 73,500; a net of six convolutions for traffic
# signs 3,000, `lax.conv` 17,700.


@_convolve_plain.defjvp
def _(
    strides: tuple[int, int], padding: str, primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    def form(images: Array, kernel: Array, bias: Array) -> Array:
        height, width = kernel.shape[:2]
        if padding == "same":
            images = jnp.pad(images, ((0, 0), *_edges(images.shape[1:3], (height, width), strides), (0, 0)))
        rows, columns = ((images.shape[1 + axis] - kernel.shape[axis]) // strides[axis] + 1 for axis in (0, 1))
        size = 4 * len(images) * rows * columns * math.prod(kernel.shape[:3])
        if jax.default_backend() != "cpu" or size > _MOST_WINDOWS:
            return (
                _convolve(images, kernel) if strides == (1, 1) else _by_xla(images, kernel, strides, "valid")
            ) + bias
        seen = windows.as_rows(images, height, width, rows, columns, strides)
        return jnp.dot(seen, kernel.reshape(-1, kernel.shape[3]), precision=PRECISION) + bias

    return jax.jvp(form, primals, tangents)


def _edges(image: tuple[int, ...], kernel: tuple[int, int], strides: tuple[int, int]) -> list[tuple[int, int]]:
    """The zeros before and behind each axis where padding is "same"; one that is left over stands behind."""
    needed = [
        max((-(-side // stride) - 1) * stride + size - side, 0)
        for side, size, stride in zip(image, kernel, strides, strict=True)
    ]
    return [(zeros // 2, zeros - zeros // 2) for zeros in needed]


@convolve_relu_pool.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    images, kernel, _ = primals
    size = 4 * math.prod(images.shape[:3]) * math.prod(kernel.shape[:3])
    by_windows = jax.default_backend() == "cpu" and size <= _MOST_WINDOWS
    return jax.jvp(windows.pooled if by_windows else _convolve_relu_pool, primals, tangents)


@convolve_relu_average.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    return jax.jvp(_averaged, primals, tangents)
