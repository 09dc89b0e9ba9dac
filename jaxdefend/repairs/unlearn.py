"""Unlearning: the net learns that an inverted trigger says nothing about the class."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int32, Num, PRNGKeyArray

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet
from jaxdefend.datasets.inverted import InvertedTrigger
from jaxdefend.nets.net import Net
from jaxdefend.nets.training import Mean, losses, mean_and_gradient
from jaxdefend.repairs import Unlearn
from jaxdefend.repairs.base import Repair, Run, split
from jaxdefend.repairs.tuning import Tuning, tuned_repair


def repair(settings: Unlearn, net: Net, clean: ImageSet, run: Run) -> Repair:
    """Training on the clean images, a share of each step's under a trigger, all under their true labels.

    Raises: InputError if no trigger is given, or one does not fit the images.
    Source: Wang et al. 2019 (Neural Cleanse), section VI.C. They train for one epoch, on a tenth of the training
    images, a fifth of them with the trigger.
    """
    if not settings.trigger:
        raise InputError("trigger: none given; expected the file of an inverted trigger, as the audit writes it")
    inverted = [
        each if isinstance(each, InvertedTrigger) else InvertedTrigger.load(each, net.image_shape)
        for each in settings.trigger
    ]
    for each in inverted:
        if each.pattern.shape != net.image_shape:
            raise InputError(f"trigger {each}: expected one of the size of the images, {net.image_shape}")
    masks = np.stack([each.mask for each in inverted])
    patterns = np.stack([each.pattern for each in inverted])
    parts = split(settings, clean, run.seed)
    gradient = Partial(of_images_with_triggers, np.float32(settings.share), masks, patterns)
    amount = {"share": settings.share, "triggers": [repr(each) for each in inverted]}
    return tuned_repair(settings, Tuning(net, gradient, is_shared=True), net, parts, run, amount)


def of_images_with_triggers(
    share: Float[Array | np.ndarray, ""] | np.float32,
    masks: Float[Array | np.ndarray, "t h w"],
    patterns: Float[Array | np.ndarray, "t h w c"],
    net: Net,
    pixels: Num[Array, "n h w c"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    step: Int32[Array, ""],
    mean: Mean = mean_and_gradient,
) -> tuple[Float[Array, ""], Any]:
    """Loss and gradient of the images, `share` of them under one of the triggers: a `nets.training.Gradient`."""
    n = len(pixels)
    chosen = jax.random.randint(key, (n,), 0, len(masks))
    cover = jnp.asarray(masks)[chosen][..., None]
    covered = jnp.rint(pixels * (1 - cover) + cover * jnp.asarray(patterns)[chosen])
    # At least one image of each step; they are in random order.
    rows = jnp.arange(n)[:, None, None, None]
    return mean(losses, net, jnp.where(rows < jnp.maximum(jnp.rint(share * n), 1), covered, pixels), labels)
