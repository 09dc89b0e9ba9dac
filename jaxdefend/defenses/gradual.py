"""Pruning while training: more is zero at every step, and what is left learns to do without."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
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
    by_weight = {
        name: {key: np.full_like(array, np.inf) for key, array in arrays.items()}
        for name, arrays in to_weights(net).items()
    }
    for array in by_weight[layer].values():
        array[..., channels] = turns(len(channels), steps)
    return _gradually(net, Partial(in_turn, from_weights(by_weight, net.input_scale)))


def turns(channels: int, steps: int) -> Float[np.ndarray, " z"]:
    """The step at which each of so many channels goes, evenly spread over all but the last quarter of the steps."""
    return np.linspace(0, COMPLETE * steps, channels, endpoint=False)


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
        return jnp.where(jnp.abs(weights) < share_below(jnp.abs(weights), sparsity), 0, weights)

    return jax.tree.map(zeroed, net)


def share_below(sizes: Float[Array, "*s"], share: Float[Array, ""]) -> Float[Array, ""]:
    """The size below which this share of them lies, none of them negative: one of them, or the largest.

    By bisection on their bits, which are in the order of the numbers: a tenth of the time that sorting takes.
    """
    bits = lax.bitcast_convert_type(sizes, jnp.int32)
    rank = jnp.minimum(jnp.floor(share * sizes.size).astype(jnp.int32), sizes.size - 1)

    def halve(_: Array, limits: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = limits
        middle = low + (high - low) // 2
        enough = (bits <= middle).sum() > rank
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    found, _ = lax.fori_loop(0, 31, halve, (jnp.int32(0), bits.max()))
    return lax.bitcast_convert_type(found, jnp.float32)


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
