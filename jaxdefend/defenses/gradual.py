"""Pruning while training: more is zero at every step, and what is left learns to do without."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Int32, Num, PRNGKeyArray

from jaxdefend.defenses.finetuning import Tuning
from jaxdefend.nets.deepid import DeepID, from_weights, to_weights
from jaxdefend.nets.training import losses, mean_and_gradient

# The share of each kernel that is zero in the first step and in the end.
FIRST_SPARSITY, LAST_SPARSITY = 0.5, 0.7

# The share of the steps after which everything is pruned.
COMPLETE = 0.75


def iterative(net: DeepID, layer: str, channels: Int[np.ndarray, " z"], steps: int) -> Tuning:
    """One channel pruned after another in this order, with training after each.

    Source: vbabushkin/ECE_GY_9163 on GitHub (published course work), after Liu et al. 2018.
    """
    turns = {
        name: {key: np.full_like(array, np.inf) for key, array in arrays.items()}
        for name, arrays in to_weights(net).items()
    }
    for array in turns[layer].values():
        array[..., channels] = np.linspace(0, COMPLETE * steps, len(channels), endpoint=False)
    return _gradually(net, Partial(in_turn, from_weights(turns, net.input_scale)))


def by_magnitude(net: DeepID, steps: int) -> Tuning:
    """The smallest weights of every kernel zeroed, half of them at once, then up to 70 %, ever more slowly.

    Source: Zhu & Gupta 2017 ("To prune, or not to prune"), section 3; the shares are yanbing617's, on GitHub.
    """
    return _gradually(net, Partial(smallest_zeroed, jnp.float32(COMPLETE * steps)))


def in_turn(turns: DeepID, net: DeepID, step: Int32[Array, ""]) -> DeepID:
    """The net without the weights whose turn has come: `turns` holds a step for each, or infinity."""
    return jax.tree.map(lambda turn, weight: jnp.where(turn <= step, 0, weight), turns, net)


def zhu_gupta(
    first: Float[Array, "..."] | float, last: Float[Array, "..."] | float, done: Float[Array, ""]
) -> Float[Array, "..."]:
    """The share that is zero after a part `done` of the run: s = s₁ + (s₀ − s₁)(1 − done)³, their equation 1."""
    return last + (first - last) * (1 - jnp.minimum(done, 1)) ** 3


def smallest_zeroed(end: Float[Array, ""], net: DeepID, step: Int32[Array, ""]) -> DeepID:
    """The net without the smallest weights of each kernel: as many as `zhu_gupta` says after `end` steps."""
    sparsity = zhu_gupta(FIRST_SPARSITY, LAST_SPARSITY, step / end)

    def zeroed(weights: Array) -> Array:
        if weights.ndim == 1:
            return weights
        return jnp.where(jnp.abs(weights) < jnp.quantile(jnp.abs(weights), sparsity), 0, weights)

    return jax.tree.map(zeroed, net)


def _gradually(net: DeepID, pruned: Partial) -> Tuning:
    def repaired(net: DeepID, step: int) -> DeepID:
        return _pruned(pruned, net, jnp.int32(step))

    return Tuning(net, Partial(_of_pruned, pruned), repaired, COMPLETE)


@jax.jit
def _pruned(pruned: Partial, net: DeepID, step: Int32[Array, ""]) -> DeepID:
    return pruned(net, step)


def _of_pruned(
    pruned: Partial,
    net: DeepID,
    pixels: Num[Array, "n 55 47 3"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    step: Int32[Array, ""],
) -> tuple[Float[Array, ""], Any]:
    """Loss and gradient of the pruned net; no gradient where it is zero."""
    rest, back = jax.vjp(lambda net: pruned(net, step), net)
    loss, slope = mean_and_gradient(losses, rest, pixels, labels)
    return loss, back(slope)[0]
