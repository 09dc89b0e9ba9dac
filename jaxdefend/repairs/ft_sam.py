"""FT-SAM: training on clean images for a flat loss, which takes the few large weights of a backdoor down."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int32, Num, PRNGKeyArray

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.net import Net
from jaxdefend.nets.training import losses, mean_and_gradient
from jaxdefend.repairs import FtSam
from jaxdefend.repairs.base import Repair, Run, split
from jaxdefend.repairs.tuning import Tuning, tuned_repair

RADIUS = 2.0


def repair(settings: FtSam, net: Net, clean: ImageSet, run: Run) -> Repair:
    """Each step follows the gradient at the worst weights nearby, where a large weight may move further.

    Source: Zhu et al. 2023 (FT-SAM), section 3.3, with Adam for their SGD.
    """
    tuning = Tuning(net, Partial(at_the_worst_nearby, jnp.float32(RADIUS)))
    return tuned_repair(settings, tuning, net, split(settings, clean, run.seed), run)


def at_the_worst_nearby(
    radius: Float[Array, ""],
    net: Net,
    pixels: Num[Array, "n h w c"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    step: Int32[Array, ""],
) -> tuple[Float[Array, ""], Any]:
    """Loss and gradient at w + ε, where ε = radius · T² g / ‖T g‖ with T = |w| goes up the steepest way.

    Source: Zhu et al. 2023 (FT-SAM), equations 4 and 5; Kwon et al. 2021 (ASAM) for T.
    """
    _, slope = mean_and_gradient(losses, net, pixels, labels)
    scaled: Any = jax.tree.map(lambda weight, slope: jnp.abs(weight) * slope, net, slope)
    size = optax.tree.norm(scaled) + 1e-12
    worst = jax.tree.map(lambda weight, scaled: weight + radius * jnp.abs(weight) * scaled / size, net, scaled)
    return mean_and_gradient(losses, worst, pixels, labels)
