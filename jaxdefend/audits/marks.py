"""Random marks to put on images: stickers, overlays, warps. One mark is one row of numbers, so that marks can be drawn,
`vmap`ped and improved.

Images are float, 0–1, on the device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, PRNGKeyArray

Image = Float[Array, "h w c"]
Mark = Float[Array | np.ndarray, " p"]
Shape = tuple[int, int, int]

# The sizes below are for images of 55×47.
_SIDE = (55 * 47) ** 0.5
# Which part of an image a sticker may cover.
_AREA = (0.004, 0.25)


@dataclass(frozen=True)
class Family:
    """A kind of mark.

    Attributes:
        draw: (key, n, shape of an image) → n marks.
        put: (mark, image, opacity) → the image with the mark on it; opacity 1 is the mark as it was drawn.
    """

    name: str
    draw: Callable[[PRNGKeyArray, int, Shape], Float[np.ndarray, "n p"]]
    put: Callable[[Mark, Image, float | Float[Array, ""]], Image]


def sticker_mask_and_pattern(mark: Mark, shape: Shape) -> tuple[Float[Array, "h w 1"], Image]:
    """A superellipse, or two that mirror each other, its edge soft by half a pixel; its colour, plain or textured."""
    mark = jnp.asarray(mark)
    height, width, channels = shape
    size = (height * width) ** 0.5 / _SIDE
    rows, columns = jnp.arange(float(height))[:, None], jnp.arange(float(width))
    center_y, center_x = (height - 1) / 2 * (1 + mark[0] / 1.5), (width - 1) / 2 * (1 + mark[1] / 1.5)
    half_height = size * jnp.clip(jnp.exp(1.3 + 0.6 * mark[2]), 1.5, 12.0)
    half_width = size * jnp.clip(jnp.exp(1.7 + 0.7 * mark[3]), 1.5, 23.0)
    exponent = jnp.exp(1.2 + 0.5 * jnp.clip(mark[4], -2, 2))

    def superellipse(center_x: Array, angle: Array) -> Array:
        y, x = rows - center_y, columns - center_x
        u = jnp.abs(x * jnp.cos(angle) + y * jnp.sin(angle)) / half_width
        v = jnp.abs(-x * jnp.sin(angle) + y * jnp.cos(angle)) / half_height
        radius = ((u + 1e-6) ** exponent + (v + 1e-6) ** exponent) ** (1 / exponent)
        return jax.nn.sigmoid((1 - radius) * jnp.minimum(half_width, half_height) * 4)

    angle = 0.25 * mark[6]
    mask = superellipse(center_x, angle)
    mask = jnp.where(mark[5] > 0, jnp.maximum(mask, superellipse(width - 1.0 - center_x, -angle)), mask)
    colour = jax.nn.sigmoid(2.5 * mark[7:10])[:channels]
    checkers = ((rows + columns) % 2) * 2 - 1
    stripes = jnp.sign(jnp.sin(columns * 1.05)) * jnp.ones((height, 1))
    texture = jnp.where(mark[11] > 1, checkers, jnp.where(mark[11] > 0.5, stripes, 0.0))
    contrast = 0.7 * jnp.tanh(mark[10]) * jnp.sign(mark[12:15])[:channels]
    return mask[..., None], jnp.clip(colour + texture[..., None] * contrast, 0, 1)


def _draw_stickers(key: PRNGKeyArray, n: int, shape: Shape) -> Float[np.ndarray, "n 16"]:
    places, traits = jax.random.split(key)
    marks = jax.random.normal(traits, (5 * n, 16))
    marks = marks.at[:, :2].set(jax.random.uniform(places, (5 * n, 2), minval=-1.5, maxval=1.5))
    cover = np.asarray(_cover(marks, shape))
    rows = np.flatnonzero((cover > _AREA[0]) & (cover < _AREA[1]))
    return np.asarray(marks)[np.resize(rows, n)]


@partial(jax.jit, static_argnames="shape")
def _cover(marks: Float[Array, "n 16"], shape: Shape) -> Float[Array, " n"]:
    return lax.map(lambda mark: sticker_mask_and_pattern(mark, shape)[0].mean(), marks, batch_size=64)


def _put_sticker(mark: Mark, image: Image, opacity: float | Array) -> Image:
    height, width, channels = image.shape
    mask, pattern = sticker_mask_and_pattern(mark, (height, width, channels))
    return image + opacity * mask * (pattern - image)


def overlay_blend_and_addition(mark: Mark, shape: Shape) -> tuple[Float[Array, ""], Image]:
    """image × (1 − blend) + addition: noise blended in, from single pixels to smooth clouds, or a wave added."""
    mark = jnp.asarray(mark)
    height, width, _ = shape
    noise = jax.random.uniform(jax.random.key((mark[0] * 1e6).astype(int), impl="threefry2x32"), shape) - 0.5
    blur = jnp.where(mark[1] < 0.4, 0.0, jnp.exp(jnp.log(8.0) * (mark[1] - 0.4) / 0.6))
    down, right = jnp.fft.fftfreq(height)[:, None, None], jnp.fft.fftfreq(width)[None, :, None]
    spectrum = jnp.fft.fft2(noise, axes=(0, 1)) * jnp.exp(-2 * (jnp.pi * blur) ** 2 * (down**2 + right**2))
    smooth = jnp.fft.ifft2(spectrum, axes=(0, 1)).real
    clouds = jnp.clip(0.5 + 0.29 * smooth / jnp.maximum(smooth.std(), 1e-6), 0, 1)

    rows, columns = jnp.arange(float(height))[:, None], jnp.arange(float(width))
    angle = jnp.where(mark[3] < 0.4, 0.0, jnp.where(mark[3] < 0.6, jnp.pi / 2, jnp.pi * mark[3]))
    periods = jnp.exp(jnp.log(1.5) + mark[2] * jnp.log(10.0))
    phase = 2 * jnp.pi * (periods * (columns / width * jnp.cos(angle) + rows / height * jnp.sin(angle)) + mark[4])
    wave = jnp.broadcast_to(jnp.sin(phase)[..., None], shape)

    is_wave = mark[5] < 0.5
    blend = jnp.where(is_wave, 0.0, 0.1 + 0.3 * mark[6])
    return blend, jnp.where(is_wave, (0.04 + 0.12 * mark[6]) * wave, blend * clouds)


def _put_overlay(mark: Mark, image: Image, opacity: float | Array) -> Image:
    height, width, channels = image.shape
    blend, addition = overlay_blend_and_addition(mark, (height, width, channels))
    return jnp.clip(image + opacity * (addition - blend * image), 0, 1)


def _put_warp(mark: Mark, image: Image, opacity: float | Array) -> Image:
    """A smooth field of shifts over the image, on average 0.2 to 1.2 pixels of a 55×47 image."""
    height, width, _ = image.shape
    control = 2 * mark[1:].reshape(4, 4, 2) - 1
    field = jax.image.resize(control / jnp.abs(control).mean(), (height, width, 2), "cubic")
    shift = opacity * (0.2 + mark[0]) * (height * width) ** 0.5 / _SIDE * field
    rows = jnp.clip(jnp.arange(height)[:, None] + shift[..., 1], 0, height - 1)
    columns = jnp.clip(jnp.arange(width) + shift[..., 0], 0, width - 1)
    return jax.vmap(lambda plane: map_coordinates(plane, [rows, columns], order=1), in_axes=2, out_axes=2)(image)


def _uniform(size: int) -> Callable[[PRNGKeyArray, int, Shape], Float[np.ndarray, "n p"]]:
    return lambda key, n, shape: np.asarray(jax.random.uniform(key, (n, size)))


STICKERS = Family("stickers", _draw_stickers, _put_sticker)
OVERLAYS = Family("overlays", _uniform(7), _put_overlay)
WARPS = Family("warps", _uniform(33), _put_warp)
