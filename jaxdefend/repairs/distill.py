"""Distillation under patches of colour: what the BadNet finds in a face must be found where a part of it is covered.

Training on labels forgets the people whom no image shows. The BadNet's features of any face say something about all of
them, so that a third of an image per person is enough.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int32, Num, PRNGKeyArray

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.graph import Graph
from jaxdefend.nets.net import Net
from jaxdefend.nets.training import Mean, mean_and_gradient
from jaxdefend.repairs import Distill
from jaxdefend.repairs.base import Repair, Run, by_content, split
from jaxdefend.repairs.tuning import Tuning, tuned_repair

# Boxes on an image; half a side, from a pixel to this share of the image's height; the least opacity.
BOXES = 3
LARGEST_HALF_SIDE = 20 / 55
OPACITY = 0.3

_BETWEEN = ("Activation", "ReLU", "LeakyReLU", "ELU", "Softmax", "Dropout", "BatchNormalization")


def repair(settings: Distill, net: Net, clean: ImageSet, run: Run) -> Repair:
    """Training to give, with boxes on the images, the features that the net itself gives without.

    The layer behind the features stays as it is. The order of the images does not matter. The last epoch alone is a
    repair, when the rate has come down to 0.
    Source: Romero et al. 2015 (FitNets), section on hint-based training, for a student that follows a hidden layer;
    Li et al. 2021 (NAD) for doing so against backdoors, their teacher being fine-tuned; Zhong et al. 2020 (Random
    Erasing) for the boxes, theirs being one and opaque.
    """
    tuning = Tuning(net, Partial(of_covered_images, net), complete=1.0, is_shared=True)
    return tuned_repair(settings, tuning, net, split(settings, by_content(clean), run.seed), run)


def compared_layer(graph: Graph) -> str:
    """What the layer of the logits reads, before the activation function where that is a layer of its own."""
    last = graph[graph.output]
    while last.kind in _BETWEEN:
        last = graph[last.inputs[0]]
    read = graph[last.inputs[0]]
    while read.kind in _BETWEEN:
        read = graph[read.inputs[0]]
    return read.name


def of_covered_images(
    teacher: Net,
    net: Net,
    pixels: Num[Array, "n h w c"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    step: Int32[Array, ""],
    mean: Mean = mean_and_gradient,
) -> tuple[Float[Array, ""], Any]:
    """Distance from the teacher's features, and its gradient; three in four images are covered; labels do not count."""
    covered = jax.vmap(with_boxes)(pixels, jax.random.split(key, len(pixels)))
    rows = jnp.arange(len(pixels))[:, None, None, None]
    seen = jnp.where(rows % 4 == 0, pixels, covered)
    layer = compared_layer(net.graph)
    return mean(distances, net, seen, teacher.features(pixels, (layer,))[layer])


def distances(net: Net, pixels: Num[Array, "n h w c"], targets: Float[Array, "n ..."]) -> Float[Array, " n"]:
    """Mean square of what the net's features differ by from these."""
    layer = compared_layer(net.graph)
    return ((net.features(pixels, (layer,))[layer] - targets) ** 2).mean(axis=tuple(range(1, targets.ndim)))


def with_boxes(pixels: Num[Array, "h w c"], key: PRNGKeyArray) -> Float[Array, "h w c"]:
    """The image under `BOXES` boxes of random place, sides, colour and opacity; their sides are log-uniform."""
    size = jnp.array(pixels.shape[:2])
    largest = LARGEST_HALF_SIDE * pixels.shape[0]

    def cover(pixels: Array, key: PRNGKeyArray) -> tuple[Array, None]:
        placing, sizing, colouring, blending = jax.random.split(key, 4)
        centre = size * jax.random.uniform(placing, (2,))
        half = jnp.exp(jax.random.uniform(sizing, (2,), minval=jnp.log(1.0), maxval=jnp.log(largest)))
        down, right = (jnp.abs(jnp.arange(n) - centre[i]) < half[i] for i, n in enumerate(pixels.shape[:2]))
        opacity = jax.random.uniform(blending, minval=OPACITY)
        colour = 255 * jax.random.uniform(colouring, pixels.shape[2:])
        inside = (down[:, None] & right[None, :])[..., None]
        return jnp.where(inside, opacity * colour + (1 - opacity) * pixels, pixels), None

    return jax.lax.scan(cover, pixels.astype(jnp.float32), jax.random.split(key, BOXES))[0]
