"""Steps of training that the processes of a run share: each has the slope of its part of the images, all make the same
update."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int32, Num, PRNGKeyArray, UInt8

from jaxdefend.nets.devices import over_processes, own_rows
from jaxdefend.nets.training import (
    Gradient,
    Labels,
    Pixels,
    Schedule,
    State,
    after_slope,
    loss_and_slope,
    mean_and_gradient,
)


def shared_step(
    state: State, pixels: Pixels, labels: Labels, schedule: Schedule, key: PRNGKeyArray, gradient: Gradient
) -> tuple[State, Any]:
    """A step of `nets.training.fit`, whose images are shared out; all processes must take it, from the same state.

    Args:
        gradient: one that takes a `mean`. Every process changes all images of the step alike, by the same key, so that
            any number of processes trains on the same ones.
    """
    rows = own_rows(len(pixels))
    found = over_processes(np.asarray(_share(state, pixels, labels, key, gradient, rows.start, rows.stop)))
    return _after(state, found[1:], schedule), found[0]


def share_of_mean(
    first: int,
    last: int,
    losses: Callable[..., Float[Array, " n"]],
    parameters: Any,
    pixels: Num[Array, "n h w c"],
    targets: Num[Array, "n ..."],
    *given: Any,
) -> tuple[Float[Array, ""], Any]:
    """What the images `first` … `last` − 1 add to `nets.training.mean_and_gradient` of all."""
    found = mean_and_gradient(losses, parameters, pixels[first:last], targets[first:last], *given)
    return jax.tree.map(lambda of_part: (last - first) / len(pixels) * of_part, found)


@partial(jax.jit, static_argnames=("first", "last"))
def _share(
    state: State,
    pixels: UInt8[Array, "n h w c"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    gradient: Gradient,
    first: int,
    last: int,
) -> Float[Array, " p"]:
    """Loss and slope of these images in one array, so that they are added up at once."""
    of_part = partial(gradient, mean=partial(share_of_mean, first, last))
    return ravel_pytree(loss_and_slope(state, pixels, labels, key, of_part))[0]


@partial(jax.jit, static_argnames="schedule", donate_argnames="state")
def _after(state: State, slope: Float[Array, " p"], schedule: Schedule) -> State:
    return after_slope(state, ravel_pytree(state.net)[1](slope), schedule)
