"""Fine-pruning: prune the channels that clean images leave asleep, then train on clean images."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxdefend.nets.deepid import DeepID, with_channels_zeroed
from jaxdefend.nets.training import Labels, Pixels, Schedule, fit, started


def fine_pruned(
    net: DeepID,
    layer: str,
    channels: Int[np.ndarray, " z"],
    pixels: Pixels,
    labels: Labels,
    schedule: Schedule,
    key: PRNGKeyArray,
) -> Iterator[tuple[DeepID, Float[Array, ""]]]:
    """The net with these channels pruned, after each step of training on clean images, and the step's loss.

    The pruned channels stay zero: no gradient comes to them.
    Source: Liu et al. 2018 (Fine-Pruning), section "Fine-Pruning Defense".
    """
    for state, loss in fit(
        started(with_channels_zeroed(net, layer, channels), schedule), pixels, labels, schedule, key
    ):
        yield state.net, loss
