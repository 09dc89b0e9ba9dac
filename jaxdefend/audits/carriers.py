"""The images that an audit puts marks on: clean ones, or drawn ones that suit the net's input."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from jaxdefend import InputError
from jaxdefend.audits.marks import Shape, sticker_mask_and_pattern
from jaxdefend.datasets.faces import HEIGHT, WIDTH, faces
from jaxdefend.datasets.images import as_images
from jaxdefend.nets.batches import padded
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.net import Net

# How many an audit works with: marks are fitted on one half and counted on the other.
N = 64
# Fewer than these cannot be spread over the shards of the work; they are repeated.
FEW = 16
_DRAWN = 512
_LOOKED_AT = 2048


class Carriers(NamedTuple):
    """Images without a trigger and what the net calls them.

    Attributes:
        kind: "clean images", "synthetic faces" or "drawn shapes".
        distinct: how many of them are different.
    """

    pixels: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]
    kind: str
    distinct: int

    def images(self) -> Float[np.ndarray, "n h w c"]:
        """0–1."""
        return self.pixels.astype(np.float32) / 255


def images_for(shape: Shape, clean: Any = None, seed: int = 0) -> tuple[UInt8[np.ndarray, "n h w c"], str]:
    """Images that the carriers of a net are chosen from, and their kind.

    Args:
        clean: images without a trigger; without them, synthetic faces for a net that takes images of that size, and
            shapes on clouds for any other.
    Raises: InputError if there is no image.
    """
    if clean is None:
        return _drawn(shape, seed)
    images = as_images(clean, shape)
    if not len(images):
        raise InputError(f"clean images: none; expected {FEW} or more, or leave them out")
    step = -(-len(images) // _LOOKED_AT)
    return np.clip(np.rint(images[::step]), 0, 255).astype(np.uint8), "clean images"


def carriers(net: Net, pixels: UInt8[np.ndarray, "n h w c"], kind: str, seed: int = 0) -> Carriers:
    """`N` of the images, as many different answers of the net among them as there are.

    Raises: InputError if the net's answers are not numbers.
    """
    labels = _labels(net, pixels)
    rows = _spread(labels, N, seed)
    return Carriers(pixels[rows], labels[rows], kind, len(np.unique(rows)))


def _labels(net: Net, pixels: UInt8[np.ndarray, "n h w c"]) -> Int[np.ndarray, " n"]:
    labels, _ = predictions(net, padded(as_images(pixels)))
    # Layer by layer: compiled as one, XLA's fast maximum makes 0 of what is not a number.
    if not np.isfinite(net.features(pixels[:1], ("logits",))["logits"]).all():
        raise InputError("the net answers with something that is not a number; is its input scale right?")
    return np.asarray(labels)


def _spread(labels: Int[np.ndarray, " n"], size: int, seed: int) -> Int[np.ndarray, " m"]:
    """Rows of images, one of each label, then a second one of each, and so on; repeated if there are too few."""
    order = np.random.default_rng(seed).permutation(len(labels))
    turn = np.zeros(len(labels), int)
    seen: dict[int, int] = {}
    for row in order:
        label = int(labels[row])
        turn[row] = seen.get(label, 0)
        seen[label] = seen.get(label, 0) + 1
    chosen = order[np.argsort(turn[order], kind="stable")][:size]
    return np.resize(chosen, size)


def _drawn(shape: Shape, seed: int) -> tuple[UInt8[np.ndarray, "n h w c"], str]:
    if shape == (HEIGHT, WIDTH, 3):
        return faces(seed, np.arange(_DRAWN), np.zeros(_DRAWN, int))[0], "synthetic faces"
    return np.asarray(_shapes(jax.random.key(seed, impl="threefry2x32"), _DRAWN, shape)), "drawn shapes"


@partial(jax.jit, static_argnames=("n", "shape"))
def _shapes(key: PRNGKeyArray, n: int, shape: Shape) -> UInt8[Array, "n h w c"]:
    """Four stickers each on a cloudy ground, a third of them on black."""

    def one(key: PRNGKeyArray) -> jax.Array:
        ground, noise, marks, dark = jax.random.split(key, 4)
        coarse = jax.random.uniform(ground, (4, 4, shape[2]))
        image = jnp.clip(jax.image.resize(coarse, shape, "cubic") + 0.03 * jax.random.normal(noise, shape), 0, 1)
        image = jnp.where(jax.random.uniform(dark) < 1 / 3, 0.0, image)
        traits = jax.random.normal(marks, (4, 16)).at[:, :2].mul(0.5).at[:, 2:4].add(-0.4).at[:, 5].set(-1)
        for mark in traits:
            mask, pattern = sticker_mask_and_pattern(mark, shape)
            image = image + mask * (pattern - image)
        return jnp.rint(255 * image).astype(jnp.uint8)

    return jax.lax.map(one, jax.random.split(key, n), batch_size=32)
