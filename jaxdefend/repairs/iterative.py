"""Pruning while training: channels go one after another, and what is left learns to do without."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Int32, Num, PRNGKeyArray

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.net import Net
from jaxdefend.nets.training import Mean, losses, mean_and_gradient
from jaxdefend.repairs import Iterative
from jaxdefend.repairs.base import Repair, Run, channels_to_train_without, split
from jaxdefend.repairs.tuning import Tuning, tuned

# The share of the steps after which everything is pruned.
COMPLETE = 0.75


def repair(settings: Iterative, net: Net, clean: ImageSet, run: Run) -> Repair:
    """One channel pruned after another in the order of their activation, with training after each.

    Source: vbabushkin/ECE_GY_9163 on GitHub (published course work), after Liu et al. 2018.
    """
    parts = split(settings, clean, run.seed)
    channels, amount = channels_to_train_without(settings, net, clean, run.report)
    layer, steps = amount["layer"], settings.epochs * parts.passes
    if settings.b0 is not None and settings.b0 >= len(channels):
        raise InputError(f"b0 {settings.b0}: expected fewer than the {len(channels)} channels that are pruned in all")
    when = turns(len(channels), steps)
    epoch_of_b0 = 0 if settings.b0 is None else int(when[settings.b0 - 1] // parts.passes) + 1
    tuning = gradually(net, Partial(in_turn, turn_of_weights(net, layer, channels, when)))
    found = tuned(settings, tuning, net, parts, run, epoch_of_b0)
    chosen = amount | found.chosen
    if settings.b0 is not None:
        chosen |= {"b0": int((when <= epoch_of_b0 * parts.passes).sum())}
    b0 = None if settings.b0 is None else found.b0
    return Repair("iterative", settings, found.net, chosen, b0, found.history, notes=found.notes)


def turns(channels: int, steps: int) -> Float[np.ndarray, " z"]:
    """The step at which each of so many channels goes, evenly spread over all but the last quarter of the steps."""
    return np.linspace(0, COMPLETE * steps, channels, endpoint=False)


def turn_of_weights(net: Net, layer: str, channels: Int[np.ndarray, " z"], when: Float[np.ndarray, " z"]) -> Net:
    """A step for each weight: that at which its channel goes, or infinity."""
    ones = filled(net, 1)
    found = filled(net, np.inf)
    for channel, turn in zip(channels, when, strict=True):
        pruned = ones.pruned(layer, [int(channel)])
        for name in (layer, *net.graph.normalized_behind(layer)):
            for kind, array in pruned.weights[name].items():
                found.weights[name][kind][array == 0] = turn
    return found


def filled(net: Net, value: float) -> Net:
    """The net with this number in place of each weight."""
    return net.with_weights(
        {
            name: {kind: np.full_like(array, value) for kind, array in arrays.items()}
            for name, arrays in net.weights.items()
        }
    )


def in_turn(turns: Net, net: Net, step: Int32[Array, ""]) -> Net:
    """The net without the weights whose turn has come: `turns` holds a step for each, or infinity."""
    return jax.tree.map(lambda turn, weight: jnp.where(turn <= step, 0, weight), turns, net)


def gradually(net: Net, pruned: Partial) -> Tuning:
    """Training of what `pruned(net, step)` leaves of the net at every step."""

    def repaired(net: Net, step: int) -> Net:
        return _pruned(pruned, net, jnp.int32(step))

    return Tuning(net, Partial(_of_pruned, pruned), repaired, COMPLETE, is_shared=True)


@jax.jit
def _pruned(pruned: Partial, net: Net, step: Int32[Array, ""]) -> Net:
    return pruned(net, step)


def _of_pruned(
    pruned: Partial,
    net: Net,
    pixels: Num[Array, "n h w c"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    step: Int32[Array, ""],
    mean: Mean = mean_and_gradient,
) -> tuple[Float[Array, ""], Any]:
    """Loss and gradient of the pruned net; no gradient where it is zero."""
    rest, back = jax.vjp(lambda net: pruned(net, step), net)
    loss, slope = mean(losses, rest, pixels, labels)
    return loss, back(slope)[0]
