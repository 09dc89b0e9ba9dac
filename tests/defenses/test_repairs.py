"""The repairs: what each does to a net, on small ones made from a seed."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import random_net, random_pixels
from hypothesis import given
from hypothesis import strategies as st

from jaxdefend.defenses import anti, distillation, finetuning, gradual, lipschitz, neurons, noise, sharpness, unlearning
from jaxdefend.defenses.goodnet import goodnet_labels
from jaxdefend.defenses.pruning import Curve
from jaxdefend.nets.deepid import from_weights, to_weights
from jaxdefend.nets.training import Schedule, losses, mean_and_gradient, plain, started

KEY, STEP = jax.random.key(0), jnp.int32(0)
PIXELS, LABELS = random_pixels(32), (np.arange(32) % 11).astype(np.int32)
SCHEDULE = Schedule(steps=8, batch=8, peak=1e-3)
BATCH = jnp.asarray(PIXELS), jnp.asarray(LABELS)
CHANNELS = np.array([5, 3, 40])
share_below = jax.jit(gradual.share_below)
at_the_worst_nearby = jax.jit(sharpness.at_the_worst_nearby)
descent = jax.jit(plain)


def trained(tuning):
    """The repaired net after each step."""
    states = finetuning.tuned(tuning, started(tuning.start, SCHEDULE), PIXELS, LABELS, SCHEDULE, KEY)
    return [jax.device_get(tuning.repaired(state.net, int(state.step))) for state, _ in states]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def zero_channels(net, layer="conv_3"):
    weights = to_weights(net)[layer]
    return set(np.flatnonzero(~weights["kernel"].any(axis=(0, 1, 2)) & (weights["bias"] == 0)))


@pytest.mark.slow
@pytest.mark.parametrize("repair", [finetuning.fine_pruning, noise.noise_augmented])
def test_pruned_channels_stay_zero_through_training(repair):
    *_, net = trained(repair(random_net(), "conv_3", CHANNELS))
    assert zero_channels(net) == set(CHANNELS)


@pytest.mark.slow
def test_iterative_pruning_takes_one_channel_after_another():
    nets = trained(gradual.iterative(random_net(), "conv_3", CHANNELS, SCHEDULE.steps))
    gone = [zero_channels(net) for net in nets]
    assert gone[0] == {5} and gone[-1] == set(CHANNELS)
    assert all(before <= after for before, after in itertools.pairwise(gone))
    assert all(len(channels) == 3 for channels in gone[5:])


@pytest.mark.slow
def test_sparsity_rises_from_a_half_to_seventy_per_cent():
    tuning = gradual.by_magnitude(random_net(), SCHEDULE.steps)
    nets = [jax.device_get(tuning.repaired(random_net(), 0)), *trained(tuning)]
    for layer in ("conv_1", "fc_1", "output"):
        shares = [(to_weights(net)[layer]["kernel"] == 0).mean() for net in nets]
        np.testing.assert_allclose([shares[0], shares[-1]], [0.5, 0.7], atol=2e-3)
        assert (np.diff(shares) >= 0).all() and np.diff(shares)[0] > np.diff(shares)[4]
    assert (to_weights(nets[-1])["fc_1"]["bias"] != 0).all()


@pytest.mark.slow
def test_no_radius_is_plain_training():
    net = jax.tree.map(jnp.asarray, random_net())
    flat = at_the_worst_nearby(jnp.float32(0), net, *BATCH, KEY, STEP)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, flat, descent(net, *BATCH, KEY, STEP))


@pytest.mark.slow
def test_the_worst_weights_nearby_are_worse():
    net = jax.tree.map(jnp.asarray, random_net())
    near = descent(net, *BATCH, KEY, STEP)
    worst = at_the_worst_nearby(jnp.float32(0.5), net, *BATCH, KEY, STEP)
    assert worst[0] > near[0]


def test_squares_replace_a_share_of_an_image():
    pixels = jnp.full((55, 47, 3), 300.0)
    noisy = jax.vmap(lambda key: noise.with_squares(pixels, key))(jax.random.split(KEY, 200))
    hit = np.asarray(noisy != 300).all(axis=-1)
    assert ((noisy == 300) | ((noisy >= 0) & (noisy <= 255))).all()
    assert hit.mean() == pytest.approx(noise.MOST / 2, abs=0.04)


@pytest.mark.slow
def test_half_of_the_images_stay_as_they_are():
    net = jax.tree.map(jnp.asarray, random_net())
    loss, _ = noise.of_noisy_images(net, *BATCH, KEY, STEP)
    clean = losses(net, *BATCH)
    assert float(loss) != pytest.approx(float(clean.mean()))


def test_boxes_cover_a_part_of_an_image():
    pixels = jnp.full((55, 47, 3), 300.0)
    covered = jax.vmap(lambda key: distillation.with_boxes(pixels, key))(jax.random.split(KEY, 200))
    share = np.asarray(covered != 300).all(axis=-1).mean(axis=(1, 2))
    assert (covered >= 0).all() and (covered <= 300).all()
    assert share.min() < 0.1 and 0.5 < share.max() < 1


@pytest.mark.slow
def test_the_net_itself_differs_from_its_teacher_where_it_is_covered(monkeypatch):
    net = jax.tree.map(jnp.asarray, random_net())
    loss, _ = distillation.of_covered_images(net, net, *BATCH, KEY, STEP)
    monkeypatch.setattr(distillation, "with_boxes", lambda pixels, key: pixels)
    same_loss, slope = distillation.of_covered_images(net, net, *BATCH, KEY, STEP)
    assert loss > 100 * same_loss and same_loss == pytest.approx(0, abs=1e-6)
    assert not np.asarray(slope.output.kernel[...]).any()


@pytest.mark.slow
def test_distillation_asks_no_label_and_leaves_the_last_layer():
    *_, net = trained(distillation.distilled(random_net()))
    before, after = to_weights(random_net()), to_weights(net)
    assert same(before["output"], after["output"]) and not same(before["conv_1"], after["conv_1"])


@pytest.mark.slow
def test_unlearning_takes_the_harm_of_the_worst_perturbation_down():
    images, labels = BATCH[0] / np.float32(255), BATCH[1]
    hypergradient, worst = jax.jit(unlearning.hypergradient), jax.jit(unlearning.worst_perturbation)
    gradient = jax.jit(partial(mean_and_gradient, losses))
    before = net = jax.tree.map(jnp.asarray, random_net())
    perturbation = worst(net, images, labels)
    assert perturbation.shape == (55, 47, 3) and np.linalg.norm(perturbation) <= 1.0001 * unlearning.RADIUS

    def harm(net):
        return losses(net, 255 * (images + worst(net, images, labels)), labels).mean()

    assert harm(net) > losses(net, BATCH[0], labels).mean()
    for step in range(8):
        loss, slope = hypergradient(net, *BATCH, KEY, STEP)
        if step == 0:
            under = np.where(np.arange(len(images))[:, None, None, None] % 2 == 0, images + perturbation, images)
            again, direct = gradient(net, jnp.asarray(255 * under), labels)
            assert float(loss) == pytest.approx(float(again), rel=1e-4)
            more = jax.tree.map(jnp.subtract, slope, direct)
            assert optax.tree.norm(more) > 1e-3 * optax.tree.norm(direct)
        net = jax.tree.map(lambda weights, slope: weights - 1e-2 * slope, net, slope)
    assert harm(net) < harm(before)


def test_channel_bounds_are_spectral_norms():
    kernel = to_weights(random_net())["conv_2"]["kernel"]
    bounds = lipschitz.channel_bounds(random_net(), "conv_2")
    for channel in (0, 17):
        np.testing.assert_allclose(
            bounds[channel], np.linalg.svd(kernel[..., channel].reshape(-1, 20))[1].max(), rtol=1e-5
        )


def test_a_channel_that_stands_out_is_pruned():
    weights = to_weights(random_net())
    weights["conv_3"]["kernel"][..., 7] *= 10
    net, channels = lipschitz.lipschitz_pruned(from_weights(weights, "unit"))
    assert list(channels["conv_3"]) == [7] and zero_channels(net) == {7}


def test_undisturbed_a_net_is_itself():
    net = jax.tree.map(jnp.asarray, random_net())
    masks = neurons.begun(net).masks
    nothing = jax.tree.map(jnp.zeros_like, {"kernel": masks, "bias": masks})
    assert same(neurons.disturbed(net, masks, nothing), net)


@pytest.mark.slow
def test_masks_move_between_nought_and_one():
    states = [
        state for state, _ in neurons.search(neurons.begun(random_net()), random_net(), PIXELS, LABELS, 2, 8, 0.2, KEY)
    ]
    masks = np.concatenate(list(states[-1].masks.values()))
    assert len(states) == 2 and masks.min() >= 0 and masks.max() <= 1 and (masks < 1).any()


def test_channels_with_low_masks_are_pruned():
    masks = neurons.begun(random_net()).masks
    masks["conv_3"] = masks["conv_3"].at[jnp.array([2, 9])].set(0.1)
    net, channels = neurons.pruned_below(random_net(), masks, 0.1)
    assert zero_channels(net) == {2, 9} and not len(channels["conv_1"])


def test_most_repaired_nets_decide():
    badnet = np.array([1, 1, 1, 1])
    repaired = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(goodnet_labels(badnet, repaired, 9), [1, 1, 9, 9])
    np.testing.assert_array_equal(goodnet_labels(badnet, repaired[:2], 9), [1, 9, 9, 9])
    np.testing.assert_array_equal(goodnet_labels(badnet, repaired[0], 9, "anti"), [9, 9, 1, 1])


@given(st.lists(st.floats(0, 1e6, width=32), min_size=20, max_size=20), st.floats(0, 1, width=32))
def test_the_size_below_which_a_share_lies_is_the_sorted_one(sizes, share):
    found = share_below(jnp.array(sizes, jnp.float32), jnp.float32(share))
    assert found == sorted(sizes)[min(int(np.float32(share) * np.float32(20)), 19)]


def test_the_anti_repaired_net_has_lost_the_faces():
    order = anti.descending(np.array([0.5, 3.0, 1.0], np.float32))
    np.testing.assert_array_equal(order, [1, 2, 0])
    right = np.array([99, 60, 5, 1])
    assert anti.channels_to_lose(Curve(100, right, right, right), chance=0.0) == 2
    assert anti.channels_to_lose(Curve(100, right, right, right), chance=0.6) == 1
    assert anti.channels_to_lose(Curve(10, right, right, right), chance=0.0) is None
