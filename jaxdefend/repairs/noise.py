"""Fine-pruning on noise-augmented images: what the net answers must not depend on any patch of colour."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int32, Num, PRNGKeyArray

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.net import Net
from jaxdefend.nets.training import Mean, losses, mean_and_gradient
from jaxdefend.repairs import Noise
from jaxdefend.repairs.base import Repair, Run, channels_to_train_without, split
from jaxdefend.repairs.tuning import Tuning, held_at_zero, tuned_repair

# Sides of the squares, in pixels, as far as they are not larger than a part of the image's shorter side; and the
# largest share of an image that they replace.
SIDES = (1, 2, 4, 8, 16)
LARGEST_SIDE = 0.35
LARGEST_SHARE = 0.35


def repair(settings: Noise, net: Net, clean: ImageSet, run: Run) -> Repair:
    """These channels pruned, then training on clean images of which half carry noise.

    Source: Veldanda et al. 2020 (NNoculation), pre-deployment stage. Their noise has one side, a quarter of the image,
    and one share, the largest that costs little; ours draws both for every image.
    """
    parts = split(settings, clean, run.seed)
    channels, amount = channels_to_train_without(settings, net, clean, run.report)
    gradient = held_at_zero(net, amount["layer"], channels, Partial(of_noisy_images))
    tuning = Tuning(net.pruned(amount["layer"], channels), gradient, is_shared=True)
    return tuned_repair(settings, tuning, net, parts, run, amount)


def of_noisy_images(
    net: Net,
    pixels: Num[Array, "n h w c"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    step: Int32[Array, ""],
    mean: Mean = mean_and_gradient,
) -> tuple[Float[Array, ""], Any]:
    """Loss and gradient of the images, half of them with noise: a `nets.training.Gradient`."""
    noisy = jax.vmap(with_squares)(pixels, jax.random.split(key, len(pixels)))
    rows = jnp.arange(len(pixels))[:, None, None, None]
    return mean(losses, net, jnp.where(rows % 2 == 0, noisy, pixels), labels)


def with_squares(pixels: Num[Array, "h w c"], key: PRNGKeyArray) -> Float[Array, "h w c"]:
    """The image with squares of random colours in place of a random share of it, on a random grid."""
    height, width, depth = pixels.shape
    siding, shifting, colouring, sharing, hitting = jax.random.split(key, 5)
    sides = [side for side in SIDES if side <= max(1, LARGEST_SIDE * min(height, width))]
    side = jax.random.choice(siding, jnp.array(sides))
    down, right = jax.random.randint(shifting, (2,), 0, side)
    square = jnp.ix_((jnp.arange(height) + down) // side, (jnp.arange(width) + right) // side)
    colours = 255 * jax.random.uniform(colouring, (height + 1, width + 1, depth))
    share = LARGEST_SHARE * jax.random.uniform(sharing)
    hit = jax.random.bernoulli(hitting, share, (height + 1, width + 1, 1))
    return jnp.where(hit[square], colours[square], pixels)
