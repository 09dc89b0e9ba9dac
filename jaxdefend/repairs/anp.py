"""Adversarial Neuron Pruning: the channels that must go for the net to withstand disturbance are the backdoor's."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int32, PRNGKeyArray, UInt8

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.net import Net
from jaxdefend.nets.resuming import latest, save
from jaxdefend.nets.training import Labels, Pixels, losses, mean_and_gradient
from jaxdefend.repairs import Anp
from jaxdefend.repairs.base import DROP, Repair, Run, recognised, split, without_channels
from jaxdefend.repairs.curve import number, points, prunable
from jaxdefend.repairs.tuning import epochs_of, held_out_accuracy, logged, say, training_settings

# How far kernels and biases are disturbed, and the weight of the undisturbed loss.
BUDGET, CLEAN_WEIGHT = 0.4, 0.2
THRESHOLDS = tuple(number / 20 for number in range(20))

# A number for each channel, by layer.
Masks = Mapping[str, Float[Array | np.ndarray, " c"]]
Disturbance = Mapping[str, Masks]


class Search(NamedTuple):
    """Masks in 0–1 on their way to those under which the net withstands disturbance."""

    masks: Masks
    optimizer: optax.OptState
    step: Int32[Array, ""]


def repair(settings: Anp, net: Net, clean: ImageSet, run: Run) -> Repair:
    """Pruned at the highest threshold that gives up less than `drop` points of the held-out images.

    Source: Wu & Wang 2021 (ANP), equation 5 and algorithm 1.
    """
    parts = split(settings, clean, run.seed)
    drop = points(DROP if settings.drop is None else settings.drop)
    kept = latest(run.saved, logged(settings, begun(net)))
    steps = settings.epochs * parts.passes
    states = search(kept.state, net, parts.pixels, parts.labels, steps, parts.batch, settings.learning_rate, parts.key)
    for found, epoch, loss in epochs_of(settings, states, int(kept.step), parts.passes, run.report):
        kept = kept.after(epoch, found, loss)
        save(run.saved, kept)
        say(run.report, settings, epoch, parts.passes, f"loss {loss:.4f}")
    masks = kept.state.masks
    n, before = len(parts.held_out), recognised(net, parts.held_out)

    def is_cheap(threshold: float) -> bool:
        lost = before - recognised(pruned_below(net, masks, threshold)[0], parts.held_out)
        return 100 * lost < drop * n

    threshold = next(threshold for threshold in (*reversed(THRESHOLDS), -1.0) if is_cheap(threshold))
    pruned, by_layer = pruned_below(net, masks, threshold)
    notes = ()
    if not any(map(len, by_layer.values())):
        why = (
            f"every threshold gives up {number(drop)} points of accuracy or more"
            if threshold < 0
            else f"no channel's mask fell to {threshold:g}; give it more epochs or a higher rate"
        )
        notes = (f"anp prunes nothing: {why}",)
    chosen = {"drop": number(drop), "threshold": threshold, "channels": by_layer}
    chosen |= held_out_accuracy(recognised(pruned, parts.held_out), n) | training_settings(settings)
    return Repair("anp", settings, pruned, chosen, history=kept.history, notes=notes)


def begun(net: Net) -> Search:
    """All masks at 1."""
    masks = {layer: jnp.ones(net.graph.channels(layer)) for layer in prunable(net)}
    return Search(masks, _optimizer(0.0).init(masks), jnp.int32(0))


def search(
    state: Search,
    net: Net,
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


def disturbed(net: Net, masks: Masks, by: Disturbance) -> Net:
    """The net with kernels (m + δ) w and biases m (1 + ξ) b, where `by` is {"kernel": δ, "bias": ξ}.

    Where a batch normalization comes behind the convolution, its γ and β stand for kernel and bias, as in the paper.
    The paper's masks leave biases alone; a pruned channel of ours has none.
    """
    where = {}
    for layer in masks:
        kernel, bias = scaling_arrays(net, layer)
        where |= {kernel: ("kernel", layer)} | ({} if bias is None else {bias: ("bias", layer)})

    def of_leaf(path: tuple, leaf: Array) -> Array | np.ndarray:
        kind, layer = where.get((path[-2].key, path[-1].key), (None, ""))
        if kind is None:
            return leaf
        mask = masks[layer]
        factor = mask + by["kernel"][layer] if kind == "kernel" else mask * (1 + by["bias"][layer])
        # The channels of a depthwise kernel are its last two axes.
        return (factor.reshape(leaf.shape[2:]) if path[-1].key == "depthwise_kernel" else factor) * leaf

    return jax.tree_util.tree_map_with_path(of_leaf, net)


def scaling_arrays(net: Net, layer: str) -> tuple[tuple[str, str], tuple[str, str] | None]:
    """(layer, array) of what scales the channels of a convolution, and of what is added to them."""
    for name in net.graph.behind(layer):
        if net.graph[name].kind == "BatchNormalization" and "gamma" in net.weights[name]:
            return (name, "gamma"), (name, "beta") if "beta" in net.weights[name] else None
    kernel = next(name for name in ("pointwise_kernel", "kernel", "depthwise_kernel") if name in net.weights[layer])
    return (layer, kernel), (layer, "bias") if "bias" in net.weights[layer] else None


def pruned_below(net: Net, masks: Masks, threshold: float) -> tuple[Net, dict[str, np.ndarray]]:
    """The net without the channels whose mask is at most the threshold, and their numbers by layer."""
    channels = {layer: np.flatnonzero(np.asarray(mask) <= threshold) for layer, mask in masks.items()}
    return without_channels(net, channels), channels


@jax.jit
def _step(
    state: Search,
    net: Net,
    pixels: UInt8[Array, "n h w c"],
    labels: Int32[Array, " n"],
    rate: Float[Array, ""],
    key: PRNGKeyArray,
) -> tuple[Search, Float[Array, ""]]:
    begin = _drawn(state.masks, key)

    def under(by: Disturbance, pixels: Array, labels: Array, net: Net, masks: Masks) -> Array:
        return losses(disturbed(net, masks, by), pixels, labels)

    _, slope = mean_and_gradient(under, begin, pixels, labels, net, state.masks)
    worst = jax.tree.map(lambda x, up: jnp.clip(x + BUDGET * jnp.sign(up), -BUDGET, BUDGET), begin, slope)
    nothing = jax.tree.map(jnp.zeros_like, worst)

    def both(masks: Masks, pixels: Array, labels: Array, net: Net, nothing: Disturbance, worst: Disturbance) -> Array:
        undisturbed = losses(disturbed(net, masks, nothing), pixels, labels)
        at_worst = losses(disturbed(net, masks, worst), pixels, labels)
        return CLEAN_WEIGHT * undisturbed + (1 - CLEAN_WEIGHT) * at_worst

    loss, slope = mean_and_gradient(both, state.masks, pixels, labels, net, nothing, worst)
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
