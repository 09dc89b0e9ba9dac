"""Adversarial neuron pruning: masks, disturbance, thresholds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_net
from small import small_images, small_net, zero_channels

from jaxdefend.repairs import Anp, anp

KEY = jax.random.key(0)


def test_undisturbed_a_net_is_itself():
    net = jax.tree.map(jnp.asarray, random_net())
    masks = anp.begun(net).masks
    nothing = jax.tree.map(jnp.zeros_like, {"kernel": masks, "bias": masks})
    leaves = zip(*map(jax.tree.leaves, (anp.disturbed(net, masks, nothing), net)), strict=True)
    assert all(np.array_equal(one, other) for one, other in leaves)


def test_kernels_and_biases_are_disturbed_by_channel():
    net = jax.tree.map(jnp.asarray, small_net())
    masks = anp.begun(net).masks
    by = {kind: {layer: jnp.full(len(mask), amount) for layer, mask in masks.items()} for kind, amount in
          (("kernel", 0.25), ("bias", -0.5))}  # fmt: skip
    found = anp.disturbed(net, jax.tree.map(lambda mask: 0.5 * mask, masks), by)
    for layer in net.convolutions:
        for name, factor in (("kernel", 0.75), ("bias", 0.25)):
            np.testing.assert_allclose(found.weights[layer][name], factor * net.weights[layer][name], rtol=1e-6)
    np.testing.assert_array_equal(found.weights["answer"]["kernel"], net.weights["answer"]["kernel"])


def test_masks_move_between_nought_and_one():
    states = [state for state, _ in anp.search(anp.begun(small_net()), small_net(), *small_images(), 2, 8, 0.2, KEY)]
    masks = np.concatenate(list(states[-1].masks.values()))
    assert len(states) == 2 and masks.min() >= 0 and masks.max() <= 1 and (masks < 1).any()


def test_channels_with_low_masks_are_pruned():
    masks = anp.begun(random_net()).masks
    masks["conv_3"] = masks["conv_3"].at[jnp.array([2, 9])].set(0.1)
    net, channels = anp.pruned_below(random_net(), masks, 0.1)
    assert zero_channels(net, "conv_3") == {2, 9} and not len(channels["conv_1"])


@pytest.mark.parametrize("drop", [100, 0.001])
def test_no_more_is_pruned_than_the_drop_allows(drop):
    found = Anp(drop=drop, epochs=2, batch=8)(small_net(), small_images(40))
    for layer, channels in found.chosen["channels"].items():
        assert zero_channels(found.net, layer) == set(channels)
    assert found.chosen["drop"] == drop and found.chosen["held_out_accuracy"] == found.chosen["held_back_accuracy"]
    nothing = not any(map(len, found.chosen["channels"].values()))
    assert nothing == bool(found.notes)
