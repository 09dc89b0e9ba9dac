"""A grid trained at once is its cells trained one by one."""

import jax
import numpy as np
import pytest
from helpers import random_net, random_pixels

from jaxdefend.defenses import grid
from jaxdefend.defenses.finetuning import fine_pruning
from jaxdefend.nets.deepid import to_weights
from jaxdefend.nets.training import Schedule, fit, started

CELLS = [grid.Cell("fine-prune", 0.5, 1e-3), grid.Cell("magnitude", 0.6, 3e-3), grid.Cell("fine-prune", 0.0, 5e-4)]
STEPS, BATCH = 6, 8


@pytest.fixture(scope="module")
def world():
    return random_net(3), random_pixels(24), np.arange(24, dtype=np.int32) % 11, jax.random.key(5)


@pytest.fixture(scope="module")
def trained(world):
    net, pixels, labels, key = world
    state = grid.begun(net, CELLS, "conv_3", np.arange(60)[::-1])
    for after, losses in grid.trained(state, CELLS, pixels, labels, Schedule(STEPS, BATCH, 1.0), key):
        state = after
        assert losses.shape == (3,)
    return grid.nets(state, CELLS)


@pytest.mark.parametrize(("cell", "channels"), [(0, np.arange(30, 60)), (2, np.arange(0))])
def test_a_cell_is_the_fine_tuning_of_its_own(world, trained, cell, channels):
    net, pixels, labels, key = world
    schedule = Schedule(STEPS, BATCH, CELLS[cell].learning_rate)
    tuning = fine_pruning(net, "conv_3", channels)
    (*_, (alone, _)) = fit(started(tuning.start, schedule), pixels, labels, schedule, key)
    for layer, arrays in to_weights(alone.net).items():
        for name, array in arrays.items():
            np.testing.assert_allclose(to_weights(trained[cell])[layer][name], array, atol=3e-4)


def test_pruned_weights_stay_zero(trained):
    assert not to_weights(trained[0])["conv_3"]["kernel"][..., 30:].any()
    for layer, arrays in to_weights(trained[1]).items():
        # Looked for once, at the first step of six: the schedule begins 20 points below the last share.
        share = (arrays["kernel"] == 0).mean()
        assert 0.39 <= share <= 0.61, layer
