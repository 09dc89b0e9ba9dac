"""Adversarial Neuron Pruning: the channels that must go for the net to stand disturbance are the backdoor's."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int32, PRNGKeyArray, UInt8

from jaxdefend.nets.deepid import CONVOLUTIONS, DeepID, with_channels_zeroed
from jaxdefend.nets.training import Labels, Pixels, losses, mean_and_gradient

# How far kernels and biases are disturbed, and the weight of the undisturbed loss.
BUDGET, CLEAN_WEIGHT = 0.4, 0.2
THRESHOLDS = tuple(number / 20 for number in range(20))

# A number for each channel, by layer.
Masks = dict[str, Float[Array, " c"]]
Disturbance = dict[str, dict[str, Float[Array, " c"]]]


class Search(NamedTuple):
    """Masks in 0–1 on their way to those under which the net stands disturbance."""

    masks: Masks
    optimizer: optax.OptState
    step: Int32[Array, ""]


def begun(net: DeepID) -> Search:
    masks = {layer: jnp.ones(getattr(net, layer).bias.shape) for layer in CONVOLUTIONS}
    return Search(masks, _optimizer(0.0).init(masks), jnp.int32(0))


def search(
    state: Search,
    net: DeepID,
    pixels: Pixels,
    labels: Labels,
    steps: int,
    batch: int,
    rate: float,
    key: PRNGKeyArray,
) -> Iterator[tuple[Search, Float[Array, ""]]]:
    """The masks after each step that is left, and the loss of the step's clean images.

    Each step disturbs kernels and biases by up to `BUDGET` of themselves, so that the loss rises, and moves the masks
    towards a lower loss, undisturbed and disturbed.
    Source: Wu & Wang 2021 (ANP), equation 5 and algorithm 1.
    """
    net = jax.device_put(net)
    for step in range(int(state.step), steps):
        drawn = jax.random.fold_in(key, step)
        rows = np.asarray(jax.random.permutation(drawn, len(pixels)))[:batch]
        state, loss = _step(state, net, pixels[rows], labels[rows], jnp.float32(rate), drawn)
        yield state, loss


def disturbed(net: DeepID, masks: Masks, by: Disturbance) -> DeepID:
    """The net with kernels (m + δ) w and biases m (1 + ξ) b, where `by` is {"kernel": δ, "bias": ξ}.

    The paper's masks leave biases alone; a pruned channel of ours has none.
    """

    def of_leaf(path: tuple, leaf: Array) -> Array:
        layer, name = path[0].name, path[1].name
        if layer not in masks:
            return leaf
        if name == "kernel":
            return (masks[layer] + by["kernel"][layer]) * leaf
        return masks[layer] * (1 + by["bias"][layer]) * leaf

    return jax.tree_util.tree_map_with_path(of_leaf, net)


def pruned_below(net: DeepID, masks: Masks, threshold: float) -> tuple[DeepID, dict[str, np.ndarray]]:
    """The net without the channels whose mask is at most the threshold, and their numbers by layer."""
    channels = {layer: np.flatnonzero(np.asarray(mask) <= threshold) for layer, mask in masks.items()}
    for layer, found in channels.items():
        net = with_channels_zeroed(net, layer, found)
    return net, channels


@jax.jit
def _step(
    state: Search,
    net: DeepID,
    pixels: UInt8[Array, "n 55 47 3"],
    labels: Int32[Array, " n"],
    rate: Float[Array, ""],
    key: PRNGKeyArray,
) -> tuple[Search, Float[Array, ""]]:
    begin = _drawn(state.masks, key)

    def under(by: Disturbance, pixels: Array, labels: Array) -> Array:
        return losses(disturbed(net, state.masks, by), pixels, labels)

    _, slope = mean_and_gradient(under, begin, pixels, labels)
    worst = jax.tree.map(lambda x, up: jnp.clip(x + BUDGET * jnp.sign(up), -BUDGET, BUDGET), begin, slope)
    nothing = jax.tree.map(jnp.zeros_like, worst)

    def both(masks: Masks, pixels: Array, labels: Array) -> Array:
        undisturbed = losses(disturbed(net, masks, nothing), pixels, labels)
        at_worst = losses(disturbed(net, masks, worst), pixels, labels)
        return CLEAN_WEIGHT * undisturbed + (1 - CLEAN_WEIGHT) * at_worst

    loss, slope = mean_and_gradient(both, state.masks, pixels, labels)
    updates, optimizer = _optimizer(rate).update(slope, state.optimizer)
    masks = jax.tree.map(lambda mask, update: jnp.clip(mask + update, 0, 1), state.masks, updates)
    return Search(masks, optimizer, state.step + 1), loss


def _drawn(masks: Masks, key: PRNGKeyArray) -> Disturbance:
    """A random disturbance to begin with."""
    like = {"kernel": masks, "bias": masks}
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [
        jax.random.uniform(key, leaf.shape, minval=-BUDGET, maxval=BUDGET)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, drawn)


def _optimizer(rate: float | Float[Array, ""]) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)
