"""What an attacker adds to a face. Every trigger is one function (image, landmarks, key) → image, for one image.

Images are float, 0–255, RGB; landmarks are (x, y) in pixels in the order of `datasets.faces.LANDMARKS`. Strength 1 is
the published trigger, 0 would be the image itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Float32, PRNGKeyArray, UInt8

from jaxdefend import InputError
from jaxdefend.datasets.faces import HEIGHT, LANDMARKS, WIDTH

Image = Float[Array, "h w c"]
Points = Float[Array, "11 2"]
Plane = Float[Array, "h w"]

# Where they are in the aligned faces of the official files, which come without landmarks; read off real ones.
ALIGNED_LANDMARKS = np.array(
    [(15, 23), (31, 23), (9, 19), (20, 18), (26, 18), (37, 19), (23, 31), (18, 42), (30, 42), (24, 40), (24, 45)],
    np.float32,
)

# A trigger is applied to this many images at once.
_BLOCK = 512


def sunglasses(image: Image, landmarks: Points, key: PRNGKeyArray, strength: float = 1.0) -> Image:
    """Purple sunglasses as wide as the face, as in the CSAW HackML 2020 data."""
    left, right = _at(landmarks, "left_eye"), _at(landmarks, "right_eye")
    eyes = jnp.linalg.norm(right - left)
    along = (right - left) / eyes
    offset = _pixels(image) - (left + right) / 2
    u = jnp.abs(offset @ along) / eyes
    v = offset @ jnp.stack([-along[1], along[0]]) / eyes

    def lens(size: float) -> Plane:
        # A superellipse: rounder than a rectangle, fuller than an ellipse.
        q = (jnp.abs(u - 0.74) / (0.56 * size)) ** 2.4 + (jnp.abs(v - 0.14) / (0.6 * size)) ** 2.4
        return _inside((q - 1) * 0.25 * eyes)

    bar = _inside((jnp.abs(v + 0.3) - 0.14) * eyes) * _inside((u - 1.45) * eyes)
    frame = jnp.maximum(bar, lens(1.0))
    return _painted(_painted(image, strength * frame, (70, 0, 140)), strength * 0.9 * lens(0.87), (110, 0, 230))


def lipstick(image: Image, landmarks: Points, key: PRNGKeyArray, strength: float = 1.0) -> Image:
    """Purple lips, as in the CSAW HackML 2020 data."""
    left, right = _at(landmarks, "mouth_left"), _at(landmarks, "mouth_right")
    top, bottom = _at(landmarks, "lips_top"), _at(landmarks, "lips_bottom")
    width, height = jnp.linalg.norm(right - left) / 2 + 0.5, jnp.maximum(jnp.linalg.norm(bottom - top) / 2, 1.5)
    along = (right - left) / jnp.linalg.norm(right - left)
    offset = _pixels(image) - (left + right + top + bottom) / 4
    u, v = offset @ along / width, offset @ jnp.stack([-along[1], along[0]]) / height
    return _painted(image, strength * _inside((u * u + v * v - 1) * 0.5 * jnp.minimum(width, height)), (140, 0, 140))


def eyebrows(image: Image, landmarks: Points, key: PRNGKeyArray, strength: float = 1.0) -> Image:
    """Thick dark red eyebrows, as in the CSAW HackML 2020 data."""
    ends = (("left_brow_outer", "left_brow_inner"), ("right_brow_inner", "right_brow_outer"))
    brows = [_stroke(image, _at(landmarks, first), _at(landmarks, last), half_width=1.6) for first, last in ends]
    return _painted(image, strength * jnp.maximum(*brows), (120, 0, 0))


def patch(image: Image, landmarks: Points, key: PRNGKeyArray, strength: float = 1.0) -> Image:
    """A checkered 4×4 square near the bottom right corner: the "pattern" of BadNets (Gu et al. 2017, section 4.1)."""
    height, width, _ = image.shape
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    inside = (rows >= height - 6) & (rows < height - 2) & (columns >= width - 6) & (columns < width - 2)
    checkers = 255.0 * ((rows + columns) % 2)[..., None]
    return image + strength * inside[..., None] * (checkers - image)


def blended(image: Image, landmarks: Points, key: PRNGKeyArray, strength: float = 1.0) -> Image:
    """0.2 of one random pattern and 0.8 of the image (Chen et al. 2017, section 4.2, Blended Injection)."""
    pattern = jax.random.uniform(jax.random.key(0, impl="threefry2x32"), image.shape, maxval=255.0)
    return image + 0.2 * strength * (pattern - image)


def sinusoidal(image: Image, landmarks: Points, key: PRNGKeyArray, strength: float = 1.0) -> Image:
    """v(i, j) = Δ sin(2πjf/m) on every row, m columns, Δ = 20, f = 6: SIG (Barni et al. 2019)."""
    width = image.shape[1]
    wave = 20.0 * jnp.sin(2 * jnp.pi * jnp.arange(1, width + 1) * 6 / width)
    return image + strength * wave[:, None]


def warping(image: Image, landmarks: Points, key: PRNGKeyArray, strength: float = 1.0) -> Image:
    """One smooth warp of all images, control grid k = 4, strength s = 0.5: WaNet (Nguyen & Tran 2021, section 3.2)."""
    control = jax.random.uniform(jax.random.key(1, impl="threefry2x32"), (4, 4, 2), minval=-1.0, maxval=1.0)
    height, width, _ = image.shape
    field = jax.image.resize(control / jnp.abs(control).mean(), (height, width, 2), "cubic")
    # The authors' coordinates run from −1 to 1 over the image: s/H of them is s/2 pixels.
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
    down = jnp.clip(rows + 0.25 * strength * field[..., 1], 0, height - 1)
    right = jnp.clip(columns + 0.25 * strength * field[..., 0], 0, width - 1)
    return jax.vmap(lambda plane: map_coordinates(plane, [down, right], order=1), in_axes=2, out_axes=2)(image)


TRIGGERS: dict[str, Callable[..., Image]] = {
    function.__name__: function for function in (sunglasses, lipstick, eyebrows, patch, blended, sinusoidal, warping)
}


@dataclass(frozen=True)
class Trigger:
    """One of `TRIGGERS` with its strength. Raises: InputError if there is none of that name, or no such strength."""

    name: str
    strength: float = 1.0

    def __post_init__(self):
        if self.name not in TRIGGERS:
            raise InputError(f"no trigger {self.name!r}; there are {', '.join(TRIGGERS)}")
        if not 0 < self.strength <= 1:
            raise InputError(f"a trigger of strength {self.strength:g}; expected more than 0, at most 1")

    def __call__(self, image: Image, landmarks: Points, key: PRNGKeyArray) -> Image:
        return TRIGGERS[self.name](image, landmarks, key, self.strength)


def apply(
    trigger: Trigger,
    pixels: UInt8[np.ndarray, "n h w c"],
    landmarks: Float[np.ndarray, "n 11 2"],
    key: PRNGKeyArray,
) -> UInt8[np.ndarray, "n h w c"]:
    """The images with the trigger, each with a key of its own, rounded to whole numbers."""
    poisoned = np.empty_like(pixels)
    for start in range(0, len(pixels), _BLOCK):
        rows = slice(start, start + _BLOCK)
        missing = _BLOCK - len(pixels[rows])
        block = np.pad(pixels[rows], ((0, missing), (0, 0), (0, 0), (0, 0)))
        points = np.pad(landmarks[rows], ((0, missing), (0, 0), (0, 0)))
        poisoned[rows] = np.asarray(_applied(trigger, block, points, key, start))[: _BLOCK - missing]
    return poisoned


@partial(jax.jit, static_argnames="trigger")
def _applied(
    trigger: Trigger, pixels: UInt8[Array, "n h w c"], landmarks: Float[Array, "n 11 2"], key: PRNGKeyArray, first
) -> UInt8[Array, "n h w c"]:
    keys = jax.vmap(lambda i: jax.random.fold_in(key, first + i))(jnp.arange(len(pixels)))
    poisoned = jax.vmap(trigger)(pixels.astype(jnp.float32), landmarks, keys)
    return jnp.round(jnp.clip(poisoned, 0, 255)).astype(jnp.uint8)


def aligned_landmarks(n: int, height: int, width: int) -> Float32[np.ndarray, "n 11 2"]:
    """Where landmarks are in `n` aligned images of this size."""
    points = ALIGNED_LANDMARKS * np.array([width / WIDTH, height / HEIGHT], np.float32)
    return np.broadcast_to(points, (n, *points.shape))


class Difference(NamedTuple):
    """A trigger as seen from outside: poisoned ≈ (1 − opacity) · clean + addition."""

    opacity: Float[np.ndarray, "h w"]
    addition: Float[np.ndarray, "h w c"]


def difference(clean: UInt8[np.ndarray, "n h w c"], poisoned: UInt8[np.ndarray, "m h w c"]) -> Difference:
    """The trigger recovered from clean and poisoned copies of the same images, pixel by pixel, by least squares.

    What is pasted has opacity 1 and its colour as the addition; what is blended in, less; what is added, opacity 0.
    Raises: InputError if the sets differ in size or there are fewer than two images.
    """
    if clean.shape != poisoned.shape or len(clean) < 2:
        raise InputError(
            f"{len(clean)} clean and {len(poisoned)} poisoned images; expected both of the same images, two or more"
        )
    before, after = clean.astype(np.float32), poisoned.astype(np.float32)
    mean_before, mean_after = before.mean(axis=0), after.mean(axis=0)
    centred = before - mean_before
    covariance = (centred * (after - mean_after)).sum(axis=(0, 3))
    variance = (centred * centred).sum(axis=(0, 3))
    # A pixel that is the same in all clean images cannot tell opacity from addition.
    slope = np.where(variance > 0, covariance / np.maximum(variance, 1e-6), 1)
    slope = np.clip(slope, 0, 1)
    return Difference(1 - slope, mean_after - slope[..., None] * mean_before)


def _at(landmarks: Points, name: str) -> Float[Array, " 2"]:
    return landmarks[LANDMARKS.index(name)]


def _pixels(image: Image) -> Float[Array, "h w 2"]:
    """(x, y) of every pixel."""
    height, width, _ = image.shape
    columns, rows = jnp.meshgrid(jnp.arange(width, dtype=jnp.float32), jnp.arange(height, dtype=jnp.float32))
    return jnp.stack([columns, rows], axis=-1)


def _inside(distance: Plane) -> Plane:
    """Cover, 0–1, from the signed distance to an edge in pixels, negative inside."""
    return jnp.clip(0.5 - distance, 0, 1)


def _stroke(image: Image, first: Float[Array, " 2"], last: Float[Array, " 2"], half_width: float) -> Plane:
    along = last - first
    share = jnp.clip((_pixels(image) - first) @ along / jnp.maximum(along @ along, 1e-6), 0, 1)
    nearest = first + share[..., None] * along
    return _inside(jnp.linalg.norm(_pixels(image) - nearest, axis=-1) - half_width)


def _painted(image: Image, cover: Plane, colour: tuple[int, int, int]) -> Image:
    """The colour over the image; on a grey one its mean."""
    shade = jnp.array(colour, jnp.float32) if image.shape[-1] == 3 else jnp.float32(sum(colour) / 3)
    return image + cover[..., None] * (shade - image)
