"""Repairs by training on clean images: what each begins with, which gradient it follows, and when it is complete."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxdefend.nets.deepid import DeepID, with_channels_zeroed
from jaxdefend.nets.training import PLAIN, Labels, Pixels, Schedule, State, fit


def _as_it_is(net: DeepID, step: int) -> DeepID:
    return net


class Tuning(NamedTuple):
    """A repair by training.

    Args:
        start: the net to begin with.
        gradient: what each step follows, a function like `nets.training.plain`.
        repaired: the repaired net, of the trained one and the number of steps.
        complete: the share of the steps after which `repaired` is a repair; before, the backdoor may be there still,
            and no clean image tells.
    """

    start: DeepID
    gradient: Partial = PLAIN
    repaired: Callable[[DeepID, int], DeepID] = _as_it_is
    complete: float = 0.5


def tuned(
    tuning: Tuning, state: State, pixels: Pixels, labels: Labels, schedule: Schedule, key: PRNGKeyArray
) -> Iterator[tuple[State, Float[Array, ""]]]:
    """The state after each step that is left, and the loss of the step's images, all of them clean."""
    yield from fit(state, pixels, labels, schedule, key, tuning.gradient)


def fine_pruning(net: DeepID, layer: str, channels: Int[np.ndarray, " z"]) -> Tuning:
    """These channels pruned, then training on clean images. They stay zero: no gradient comes to them.

    Source: Liu et al. 2018 (Fine-Pruning), section "Fine-Pruning Defense".
    """
    return Tuning(with_channels_zeroed(net, layer, channels))
