"""Fine-pruning on noise-augmented images: what the net answers must not hang on any patch of colour."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Int32, Num, PRNGKeyArray

from jaxdefend.defenses.finetuning import Tuning
from jaxdefend.nets.deepid import DeepID, with_channels_zeroed
from jaxdefend.nets.training import losses, mean_and_gradient

# Sides of the squares, in pixels; and the largest share of an image that they replace.
SIDES = (1, 2, 4, 8, 16)
MOST = 0.35


def noise_augmented(net: DeepID, layer: str, channels: Int[np.ndarray, " z"]) -> Tuning:
    """These channels pruned, then training on clean images of which half carry noise.

    Source: Veldanda et al. 2020 (NNoculation), pre-deployment stage. Their noise has one side, a quarter of the image,
    and one share, the largest that costs little; ours draws both for every image.
    """
    return Tuning(with_channels_zeroed(net, layer, channels), Partial(of_noisy_images))


def of_noisy_images(
    net: DeepID,
    pixels: Num[Array, "n 55 47 3"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    step: Int32[Array, ""],
) -> tuple[Float[Array, ""], Any]:
    """Loss and gradient of the images, half of them with noise."""
    noisy = jax.vmap(with_squares)(pixels, jax.random.split(key, len(pixels)))
    rows = jnp.arange(len(pixels))[:, None, None, None]
    return mean_and_gradient(losses, net, jnp.where(rows % 2 == 0, noisy, pixels), labels)


def with_squares(pixels: Num[Array, "h w 3"], key: PRNGKeyArray) -> Float[Array, "h w 3"]:
    """The image with squares of random colours in place of a random share of it, up to `MOST`, on a random grid."""
    height, width = pixels.shape[:2]
    siding, shifting, colouring, sharing, hitting = jax.random.split(key, 5)
    side = jax.random.choice(siding, jnp.array(SIDES))
    down, right = jax.random.randint(shifting, (2,), 0, side)
    square = jnp.ix_((jnp.arange(height) + down) // side, (jnp.arange(width) + right) // side)
    colours = 255 * jax.random.uniform(colouring, (height + 1, width + 1, 3))
    share = MOST * jax.random.uniform(sharing)
    hit = jax.random.bernoulli(hitting, share, (height + 1, width + 1, 1))
    return jnp.where(hit[square], colours[square], pixels)
