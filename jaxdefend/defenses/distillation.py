"""Distillation under patches of colour: what the BadNet finds in a face must be found where a part of it is covered.

Training on labels forgets the people that no image shows. The BadNet's features of any face say something about all of
them, so that a third of an image a person is enough.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int32, Num, PRNGKeyArray

from jaxdefend.defenses.finetuning import Tuning
from jaxdefend.nets.deepid import DeepID, features
from jaxdefend.nets.training import mean_and_gradient

# What is compared: the sum of both branches, before its ReLU.
LAYER = "add_1"
# Boxes on an image; half a side in pixels, from and to; the least opacity.
BOXES = 3
HALF_SIDES = 1.0, 20.0
OPACITY = 0.3


def distilled(net: DeepID) -> Tuning:
    """Training to give, with boxes on the images, the features that the net itself gives without.

    The layer behind the features stays as it is. The last epoch alone is a repair, when the rate has come down to 0.
    Source: Romero et al. 2015 (FitNets), section on hint-based training, for a student that follows a hidden layer;
    Li et al. 2021 (NAD) for doing so against backdoors, their teacher being fine-tuned; Zhong et al. 2020 (Random
    Erasing) for the boxes, theirs being one and opaque.
    """
    return Tuning(net, Partial(of_covered_images, net), complete=1.0)


def of_covered_images(
    teacher: DeepID,
    net: DeepID,
    pixels: Num[Array, "n 55 47 3"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    step: Int32[Array, ""],
) -> tuple[Float[Array, ""], Any]:
    """Distance from the teacher's features, and its gradient; three of four images are covered, and no label counts."""
    covered = jax.vmap(with_boxes)(pixels, jax.random.split(key, len(pixels)))
    rows = jnp.arange(len(pixels))[:, None, None, None]
    seen = jnp.where(rows % 4 == 0, pixels, covered)
    return mean_and_gradient(distances, net, seen, features(teacher, pixels, (LAYER,))[LAYER])


def distances(net: DeepID, pixels: Num[Array, "n 55 47 3"], targets: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Mean square of what the net's features differ by from these."""
    return ((features(net, pixels, (LAYER,))[LAYER] - targets) ** 2).mean(axis=-1)


def with_boxes(pixels: Num[Array, "h w 3"], key: PRNGKeyArray) -> Float[Array, "h w 3"]:
    """The image under `BOXES` boxes of random place, sides, colour and opacity; their sides are log-uniform."""
    size = jnp.array(pixels.shape[:2])

    def cover(pixels: Array, key: PRNGKeyArray) -> tuple[Array, None]:
        placing, sizing, colouring, blending = jax.random.split(key, 4)
        centre = size * jax.random.uniform(placing, (2,))
        half = jnp.exp(jax.random.uniform(sizing, (2,), minval=jnp.log(HALF_SIDES[0]), maxval=jnp.log(HALF_SIDES[1])))
        down, right = (jnp.abs(jnp.arange(n) - centre[i]) < half[i] for i, n in enumerate(pixels.shape[:2]))
        opacity = jax.random.uniform(blending, minval=OPACITY)
        colour = 255 * jax.random.uniform(colouring, (3,))
        inside = (down[:, None] & right[None, :])[..., None]
        return jnp.where(inside, opacity * colour + (1 - opacity) * pixels, pixels), None

    return jax.lax.scan(cover, pixels.astype(jnp.float32), jax.random.split(key, BOXES))[0]
