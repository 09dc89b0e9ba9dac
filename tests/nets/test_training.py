"""The fit loop: the gradient, channels that stay pruned, and going on where one stopped."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import random_net, random_pixels

from jaxdefend.nets import kinds
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.net import Net
from jaxdefend.nets.scales import scaled
from jaxdefend.nets.training import (
    OPTIMIZERS,
    Schedule,
    _step,
    fit,
    losses,
    mean_and_gradient,
    new_net,
    rate,
    started,
)

KEY = jax.random.key(0)
SCHEDULE = Schedule(steps=12, batch=16, peak=1e-3)
PIXELS, LABELS = random_pixels(48), (np.arange(48) % 11).astype(np.int32)


def trained(state, schedule=SCHEDULE):
    *_, (last, _) = fit(state, PIXELS, LABELS, schedule, KEY)
    return last


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_loss_is_the_mean_cross_entropy_of_the_batch():
    net = random_net()
    schedule = Schedule(steps=4, batch=48, peak=0.0)
    _, loss = next(fit(started(net, schedule), PIXELS, LABELS, schedule, KEY))
    by_hand = optax.softmax_cross_entropy_with_integer_labels(net.logits({"input": scaled(PIXELS, "unit")}), LABELS)
    np.testing.assert_allclose(loss, by_hand.mean(), rtol=1e-5)


def test_training_learns():
    schedule = Schedule(steps=150, batch=16, peak=1e-3)
    seen = [
        float(loss)
        for _, loss in fit(started(new_net(deepid(11), "unit", KEY), schedule), PIXELS, LABELS, schedule, KEY)
    ]
    assert np.mean(seen[-3:]) < 0.5 * seen[0]


def test_every_pass_sees_every_image_once():
    schedule = Schedule(steps=6, batch=16, peak=0.0)
    net = random_net()
    seen = np.array([float(loss) for _, loss in fit(started(net, schedule), PIXELS, LABELS, schedule, KEY)])
    np.testing.assert_allclose(seen[:3].sum(), seen[3:].sum(), rtol=1e-5)
    assert not np.allclose(seen[:3], seen[3:])


@pytest.mark.parametrize("layer", ["conv_1", "conv_2", "conv_3", "conv_4"])
def test_pruned_channels_stay_zero(layer):
    channels = [0, 3, 7]
    net = trained(started(random_net().pruned(layer, channels), SCHEDULE)).net
    before, after = (jax.device_get(each.weights[layer]) for each in (random_net(), net))
    assert not after["kernel"][..., channels].any() and not after["bias"][channels].any()
    assert (np.delete(after["kernel"], channels, -1) != np.delete(before["kernel"], channels, -1)).any()


def test_equal_keys_give_equal_nets():
    assert_same(new_net(deepid(11), "unit", KEY), new_net(deepid(11), "unit", KEY))
    weights = new_net(deepid(11), "unit", KEY).weights
    limit = np.sqrt(6 / (3 * 3 * 40 + 3 * 3 * 60))
    assert 0.9 * limit < np.abs(weights["conv_3"]["kernel"]).max() <= limit
    assert not any(layer["bias"].any() for layer in weights.values())


def test_a_caller_keeps_its_net():
    net = jax.device_put(random_net())
    trained(started(net, SCHEDULE))
    assert jnp.isfinite(net.weights["output"]["bias"]).all()


SMALL = Graph(
    (
        Layer("input", kinds.InputLayer((9, 8, 3))),
        Layer("conv", kinds.Conv2D(4, (3, 3)), ("input",)),
        Layer("norm", kinds.BatchNormalization(), ("conv",)),
        Layer("gated", kinds.DepthwiseConv2D((2, 2), 2, activation="tanh"), ("norm",)),
        Layer("sep", kinds.SeparableConv2D(5, (2, 2), activation="relu"), ("gated",)),
        Layer("sep_norm", kinds.BatchNormalization(), ("sep",)),
        Layer("pool", kinds.MaxPooling2D(), ("sep_norm",)),
        Layer("flat", kinds.Flatten(), ("pool",)),
        Layer("end", kinds.Dense(3, activation="softmax"), ("flat",)),
    ),
    "end",
)
SMALL_PIXELS = np.random.default_rng(0).integers(0, 256, (24, 9, 8, 3), dtype=np.uint8)


def small_trained(net: Net, optimizer: str) -> Net:
    schedule = Schedule(steps=6, batch=8, peak=1e-2, optimizer=optimizer)
    labels = (np.arange(24) % 3).astype(np.int32)
    *_, (last, _) = fit(started(net, schedule), SMALL_PIXELS, labels, schedule, KEY)
    return last.net


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_normalizations_keep_their_statistics(optimizer):
    before = new_net(SMALL, "unit", KEY)
    weights = {layer: dict(arrays) for layer, arrays in before.weights.items()}
    weights["norm"]["moving_mean"] += 0.5
    after = small_trained(before.with_weights(weights), optimizer)
    for layer in ("norm", "sep_norm"):
        for name in ("moving_mean", "moving_variance"):
            np.testing.assert_array_equal(after.weights[layer][name], weights[layer][name])
        assert (np.asarray(after.weights[layer]["gamma"]) != 1).any()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("layer", ["conv", "gated", "sep"])
def test_pruned_channels_stay_zero_behind_any_activation(layer, optimizer):
    net = new_net(SMALL, "unit", KEY)
    # A gradient comes to what normalizes a channel, and through an activation that is no ReLU.
    weights = {each: {name: array + 0.1 for name, array in arrays.items()} for each, arrays in net.weights.items()}
    pruned = net.with_weights(weights).pruned(layer, [0, 2])
    after = small_trained(pruned, optimizer)
    place = SMALL.masked_at(layer)
    found = after.features(SMALL_PIXELS, (place,))[place]
    assert not np.asarray(found)[..., [0, 2]].any()
    assert np.asarray(found)[..., 1].any()


def test_a_new_net_of_any_graph():
    weights = new_net(SMALL, "unit", KEY).weights
    assert (weights["norm"]["gamma"] == 1).all() and (weights["norm"]["moving_variance"] == 1).all()
    assert not weights["sep"]["bias"].any() and weights["gated"]["depthwise_kernel"].any()


def test_a_single_step_is_a_step():
    schedule = Schedule(steps=1, batch=48, peak=1e-3)
    state = started(random_net(), schedule)
    before = [np.asarray(leaf).copy() for leaf in jax.tree.leaves(state.net)]
    after = trained(state, schedule)
    assert any((np.asarray(leaf) != old).any() for leaf, old in zip(jax.tree.leaves(after.net), before, strict=True))
    assert float(rate(schedule)(0)) == pytest.approx(1e-3)
    # Longer ones begin slowly and end at 0.
    assert float(rate(SCHEDULE)(0)) == 0 and float(rate(SCHEDULE)(12)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("n", [5, 33, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 16, 48))])
def test_the_gradient_of_any_number_of_images_is_that_of_their_mean(n):
    net = new_net(SMALL, "unit", KEY)
    pixels, labels = jnp.resize(SMALL_PIXELS, (n, 9, 8, 3)), jnp.arange(n, dtype=jnp.int32) % 3
    found = jax.jit(partial(mean_and_gradient, losses))(net, pixels, labels)
    expected = jax.value_and_grad(lambda net: losses(net, pixels, labels).mean())(net)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_step_is_compiled_once():
    schedule = Schedule(steps=3, batch=7, peak=1e-3)
    before = _step._cache_size()
    trained(started(random_net(), schedule), schedule)
    assert _step._cache_size() == before + 1
