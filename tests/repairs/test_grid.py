"""A grid trained at once is its cells trained one by one."""

import jax
import numpy as np
import pytest
from small import CHANNELS, small_images, small_net

from jaxdefend.nets.training import Schedule, fit, started
from jaxdefend.repairs import Grid, grid

CELLS = [grid.Cell("fine-prune", 0.5, 1e-3), grid.Cell("magnitude", 0.6, 3e-3), grid.Cell("fine-prune", 0.0, 5e-4)]
STEPS, BATCH = 6, 8


@pytest.fixture(scope="module")
def lab():
    return small_net(3), *small_images(24, 3, net_seed=3), jax.random.key(5)


@pytest.fixture(scope="module")
def trained(lab):
    net, pixels, labels, key = lab
    state = grid.begun(net, CELLS, "last", np.arange(CHANNELS)[::-1])
    for after, losses in grid.trained(state, CELLS, pixels, labels, Schedule(STEPS, BATCH, 1.0), key):
        state = after
        assert losses.shape == (3,)
    return grid.nets(state, CELLS)


@pytest.mark.parametrize(("cell", "channels"), [(0, np.arange(3, 6)), (2, np.arange(0))])
def test_a_cell_is_the_fine_tuning_of_its_own(lab, trained, cell, channels):
    net, pixels, labels, key = lab
    schedule = Schedule(STEPS, BATCH, CELLS[cell].learning_rate)
    (*_, (alone, _)) = fit(started(net.pruned("last", channels), schedule), pixels, labels, schedule, key)
    for layer, arrays in alone.net.weights.items():
        for name, array in arrays.items():
            np.testing.assert_allclose(trained[cell].weights[layer][name], array, atol=3e-4)


def test_pruned_weights_stay_zero(trained):
    assert not trained[0].weights["last"]["kernel"][..., 3:].any()
    for layer, arrays in trained[1].weights.items():
        # Looked for once, at the first step of six: the schedule begins 20 points below the last share.
        share = (arrays["kernel"] == 0).mean()
        assert 0.39 <= share <= 0.61, layer


def test_the_cell_that_recognises_most_of_the_held_out_images_is_chosen():
    settings = Grid(learning_rates=(1e-3, 1e-1), fractions=(0.5,), epochs=2, batch=8)
    found = settings(small_net(), small_images(60))
    assert [cell[:3] for cell in found.cells] == [
        (method, 0.5, rate) for method in ("fine-prune", "magnitude") for rate in (1e-3, 1e-1)
    ]
    held_out = [cell.held_out for cell in found.cells]
    chosen = found.chosen["chosen"]
    assert held_out[chosen] == max(held_out) and held_out.index(max(held_out)) == chosen
    assert found.net is found.cells[chosen].net
    assert found.chosen["layer"] == "last" and found.chosen["epochs"] == 2


def test_one_cell_may_diverge_as_long_as_another_does_not(monkeypatch):
    steps = grid.trained

    def one_diverges(*arguments):
        for state, losses in steps(*arguments):
            yield state, losses.at[0].set(np.nan)

    monkeypatch.setattr(grid, "trained", one_diverges)
    found = Grid(learning_rates=(1e-3, 1e-1), fractions=(0.5,), epochs=2, batch=8)(small_net(), small_images(60))
    assert np.isfinite([epoch.loss for epoch in found.history]).all()
