"""Pruning by magnitude while training: ever more of the smallest weights are zeroed."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int32

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.net import Net
from jaxdefend.repairs import Magnitude
from jaxdefend.repairs.base import Repair, Run, split
from jaxdefend.repairs.iterative import COMPLETE, gradually
from jaxdefend.repairs.tuning import tuned_repair

# The share of each kernel that is zero in the first step and in the end.
FIRST_SPARSITY, LAST_SPARSITY = 0.5, 0.7


def repair(settings: Magnitude, net: Net, clean: ImageSet, run: Run) -> Repair:
    """The smallest weights of every kernel zeroed, half of them at once, then up to 70 %, ever more slowly.

    Source: Zhu & Gupta 2017 ("To prune, or not to prune"), section 3; the shares are yanbing617's, on GitHub.
    """
    parts = split(settings, clean, run.seed)
    end = jnp.float32(COMPLETE * settings.epochs * parts.passes)
    return tuned_repair(settings, gradually(net, Partial(smallest_zeroed, end)), net, parts, run)


def zhu_gupta(
    first: Float[Array, "..."] | float, last: Float[Array, "..."] | float, done: Float[Array, ""]
) -> Float[Array, "..."]:
    """The share that is zero after a part `done` of the run: s = s₁ + (s₀ − s₁)(1 − done)³, their equation 1."""
    return last + (first - last) * (1 - jnp.minimum(done, 1)) ** 3


def smallest_zeroed(end: Float[Array, ""], net: Net, step: Int32[Array, ""]) -> Net:
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
