"""I-BAU: find the one perturbation that misleads the net on all images, and unlearn it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int32, Num, PRNGKeyArray

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.net import Net
from jaxdefend.nets.training import losses, mean_and_gradient
from jaxdefend.repairs import Ibau
from jaxdefend.repairs.base import Repair, Run, split
from jaxdefend.repairs.tuning import Tuning, tuned_repair

# Images of a batch that look for the perturbation; of 128, a quarter takes a quarter of the time.
_SEEKING = 32
_STEPS = 5
_FIXED_POINT_STEPS = 5
# On images in 0–1: how far a step goes in search of the perturbation, and C_δ, the largest norm that it may have.
_ASCENT = 10.0
RADIUS = 3.0

Perturbation = Float[Array, "h w c"]


def repair(settings: Ibau, net: Net, clean: ImageSet, run: Run) -> Repair:
    """Training on clean images under the worst perturbation that all of them share.

    Source: Zeng et al. 2022 (I-BAU), algorithm 1, with a perturbation for every batch instead of one for every round.
    """
    tuning = Tuning(net, Partial(hypergradient))
    return tuned_repair(settings, tuning, net, split(settings, clean, run.seed), run)


def hypergradient(
    net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"], key: PRNGKeyArray, step: Int32[Array, ""]
) -> tuple[Float[Array, ""], Any]:
    """Loss of the images, half of them under the worst perturbation δ*(θ), and its whole gradient by θ.

    H(δ*(θ), θ) changes with θ by ∂H/∂θ and, as δ* follows θ, by (∂δ*/∂θ)ᵀ ∂H/∂δ. With δ* a fixed point of one step
    of projected gradient ascent φ(δ, θ) = Π(δ + r ∂H/∂δ), the second part is r ∂²H/∂θ∂δ Πᵀ v, where
    v = (∂φ/∂δ)ᵀ v + ∂H/∂δ. Π, the projection onto ‖δ‖ ≤ C_δ, belongs to it: without, the step expands, and v with it.
    For it, H is the mean over the images that look for δ, all of them under δ. At a δ* that is found exactly the second
    part is 0; it speaks for what the few steps of the search have not found yet.
    Source: Zeng et al. 2022 (I-BAU), equations 4–6; Grazzi et al. 2020 for the fixed point.
    """
    images = pixels / jnp.float32(255)
    few = images[:_SEEKING], labels[:_SEEKING]
    perturbation = worst_perturbation(net, *few)
    noise = jnp.where(jnp.arange(len(images))[:, None, None, None] % 2 == 0, perturbation, 0)
    loss, direct = mean_and_gradient(losses, net, 255 * (images + noise), labels)

    _, outer = mean_and_gradient(_losses_under, perturbation, *few, net)
    _, back_through = jax.vjp(_projected, perturbation + _ASCENT * outer)

    def refined(_: Array, vector: Array) -> Array:
        (projected,) = back_through(vector)

        _, curved = mean_and_gradient(_slopes_under, perturbation, *few, net, projected)
        return projected + _ASCENT * curved + outer

    (last,) = back_through(lax.fori_loop(0, _FIXED_POINT_STEPS, refined, outer))

    def mixed(net: Net, images: Array, labels: Array, perturbation: Perturbation, last: Perturbation) -> Array:
        return _slopes_under(perturbation, images, labels, net, last)

    _, through = mean_and_gradient(mixed, net, *few, perturbation, last)
    return loss, jax.tree.map(lambda direct, through: direct + _ASCENT * through, direct, through)


def worst_perturbation(net: Net, images: Float[Array, "n h w c"], labels: Int32[Array, " n"]) -> Perturbation:
    """What, added to every image in 0–1, raises their mean loss most, as far as its norm is at most `RADIUS`."""

    def ascend(_: Array, perturbation: Array) -> Array:
        _, slope = mean_and_gradient(_losses_under, perturbation, images, labels, net)
        return _projected(perturbation + _ASCENT * slope)

    return lax.fori_loop(0, _STEPS, ascend, jnp.zeros(images.shape[1:]))


def _projected(perturbation: Perturbation) -> Perturbation:
    """The nearest one whose norm is at most `RADIUS`."""
    return perturbation * jnp.minimum(1, RADIUS / optax.safe_norm(perturbation, 1e-12))


def _losses_under(perturbation: Perturbation, images: Array, labels: Array, net: Net) -> Float[Array, " n"]:
    return losses(net, 255 * (images + perturbation), labels)


def _slopes_under(
    perturbation: Perturbation, images: Array, labels: Array, net: Net, along: Perturbation
) -> Float[Array, " n"]:
    """How the losses change as the perturbation goes that way."""
    return jax.jvp(lambda d: _losses_under(d, images, labels, net), (perturbation,), (along,))[1]
