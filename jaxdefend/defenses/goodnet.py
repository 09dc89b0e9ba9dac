"""The GoodNet: what a BadNet and its repaired nets say together."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Num

from jaxdefend.nets.deepid import DeepID, features
from jaxdefend.nets.devices import each, on_devices
from jaxdefend.nets.inference import Batches, largest

Rule = Literal["goodnet", "anti"]
RULES: tuple[Rule, ...] = get_args(Rule)


def goodnet_labels(
    badnet: Int[np.ndarray, " n"], repaired: Int[np.ndarray, "*r n"], classes: int, rule: Rule = "goodnet"
) -> Int[np.ndarray, " n"]:
    """G(x) = B(x) where most repaired nets vote for it, else N = `classes`, "backdoored"; a tie is N.

    A repaired net B′ votes for B(x) where it says the same; under the rule "anti", where it says something else: an
    anti-repaired net keeps the backdoor and has lost the faces.

    Args:
        repaired: the labels of one repaired net, or a row for each.
    Source: the CSAW HackML 2020 competition's rule for a repaired net; Liu et al. 2018 for B′.
    """
    rows = np.atleast_2d(repaired)
    votes = rows == badnet if rule == "goodnet" else rows != badnet
    return np.where(2 * votes.sum(axis=0) > len(rows), badnet, classes)


def disagreements(badnet: DeepID, repaired: DeepID, batches: Batches) -> Float[np.ndarray, " n"]:
    """How much a repaired net contradicts the BadNet: −log₂ of the probability it gives the BadNet's label, in bits.

    The GoodNet's rule as a score; higher means backdoored.
    """
    found = on_devices(_disagreements, (badnet, repaired), batches)
    return np.concatenate([scores[labels >= 0] for scores, labels in found])


@jax.jit
def _disagreements(
    nets: tuple[DeepID, DeepID], pixels: Num[Array, "n 55 47 3"], labels: Int32[Array, " n"]
) -> Float[Array, " n"]:
    def of_part(nets: tuple[DeepID, DeepID], pixels: Num[Array, "n 55 47 3"]) -> Float[Array, " n"]:
        badnet, repaired = (features(net, pixels, ("logits",))["logits"] for net in nets)
        shares = jax.nn.log_softmax(repaired)
        return -jnp.take_along_axis(shares, largest(badnet)[:, None], axis=1)[:, 0] / jnp.log(2)

    return each(of_part, nets, (pixels,))
