from fractions import Fraction

import jax
import numpy as np
import pytest
from helpers import random_net, random_pixels
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend import InputError
from jaxdefend.datasets.batches import ArrayImages, padded
from jaxdefend.defenses import pruning
from jaxdefend.nets import deepid
from jaxdefend.nets.inference import predictions

CHANNELS = {"conv_1": 20, "conv_2": 40, "conv_3": 60, "conv_4": 80}


def images(n=20, seed=0, classes=11):
    """Pixels labelled with what the random net says of half of them, so that the curve has something to lose."""
    pixels = random_pixels(n, seed)
    labels, _ = predictions(random_net(), padded(ArrayImages(pixels)))
    labels[n // 2 :] = np.random.default_rng(seed).integers(0, classes, n - n // 2)
    return ArrayImages(pixels, labels)


@pytest.mark.parametrize("layer", deepid.CONVOLUTIONS)
def test_the_curve_equals_nets_whose_weights_are_zeroed(layer):
    net, data = random_net(), images()
    order = np.random.default_rng(1).permutation(CHANNELS[layer])
    found = pruning.curve(net, padded(data, 32), order, layer)
    badnet, _ = predictions(net, padded(data, 32))
    for k in range(0, CHANNELS[layer] + 1, 7):
        repaired, _ = predictions(deepid.with_channels_zeroed(net, layer, order[:k]), padded(data, 32))
        assert found.right[k] == (repaired == data.labels).sum()
        assert found.agreed[k] == (repaired == badnet).sum()
        assert found.agreed_right[k] == ((repaired == badnet) & (repaired == data.labels)).sum()


def with_rare_channels(net, pixels, images_of):
    """The net with channel c of conv_3 zero in all images but the `images_of[c]` most active ones, and loud there."""
    most = np.asarray(deepid.features(net, pixels, ("pool_3",))["pool_3"]).max(axis=(1, 2))
    falling = np.concatenate([np.sort(most, axis=0)[::-1], np.zeros_like(most[:1])])
    limits = falling[images_of, np.arange(60)] * np.float32(1.0001)
    loud = 3 / np.maximum(falling[0] - limits, 1e-3)
    weights = deepid.to_weights(net)
    kernel, bias = weights["conv_3"]["kernel"], weights["conv_3"]["bias"]
    weights["conv_3"] = {"kernel": kernel * loud, "bias": (bias - limits) * loud}
    return deepid.from_weights(weights, net.input_scale)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**16), images_of=st.lists(st.sampled_from([0, 1, 2, 3, 9, 32]), min_size=60, max_size=60))
def test_the_telescoped_curve_equals_the_plain_one(seed, images_of):
    """For every class: how many images are given it under each mask."""
    pixels = random_pixels(32, seed)
    net = with_rare_channels(random_net(seed), pixels, images_of)
    order = np.random.default_rng(seed).permutation(60)
    for label in range(net.classes):
        labels = np.full(32, label, np.int32)
        telescoped = pruning.nested_counts(net, pixels, labels, order)
        plain = pruning.masked_counts(net, pixels, labels, pruning.nested_masks(order), "conv_3")
        for name in pruning.Counts._fields:
            np.testing.assert_array_equal(getattr(telescoped, name), getattr(plain, name), err_msg=name)


def test_ties_go_to_the_first_class():
    """A net whose logits are all equal says 0, as argmax does, and is not right about everything."""
    net = deepid.from_weights(
        {
            layer: {name: np.zeros_like(array) for name, array in arrays.items()}
            for layer, arrays in deepid.to_weights(random_net()).items()
        },
        "unit",
    )
    data = ArrayImages(random_pixels(6), np.array([0, 0, 1, 2, 3, 10]))
    found = pruning.curve(net, padded(data, 8), np.arange(60), "conv_3")
    assert set(found.right) == {2}
    assert found.n == 6


@pytest.mark.parametrize("size", [1, 5, 20, 64])
def test_padding_counts_nothing(size):
    net, data, order = random_net(), images(), np.arange(60)
    found = pruning.curve(net, padded(data, size), order, "conv_3")
    reference = pruning.curve(net, padded(data, 20), order, "conv_3")
    assert found.n == 20
    np.testing.assert_array_equal(found.right, reference.right)
    np.testing.assert_array_equal(found.agreed, reference.agreed)
    means = [pruning.mean_activations(net, padded(data, batch), "conv_3") for batch in (size, 20)]
    np.testing.assert_allclose(*means, rtol=1e-4)


def test_one_shape_compiles_once():
    net, data = random_net(), images()
    pruning.nested_counts.clear_cache()
    for n in (3, 20, 31):
        pruning.curve(net, padded(ArrayImages(random_pixels(n), np.zeros(n, int)), 16), np.arange(60), "conv_3")
    pruning.curve(random_net(1), padded(data, 16), np.arange(60)[::-1].copy(), "conv_3")
    assert pruning.nested_counts._cache_size() == 1


def test_mean_activations_are_those_behind_the_pool():
    net, data = random_net(), images()
    for layer, pooled in deepid.POOLED.items():
        by_hand = deepid.features(net, data[:], (pooled,))[pooled].mean(axis=(0, 1, 2))
        np.testing.assert_allclose(pruning.mean_activations(net, padded(data, 8), layer), by_hand, rtol=1e-4)


@given(st.lists(st.floats(0, 3, width=16), min_size=1, max_size=60))
def test_ascending_breaks_ties_by_index(scores):
    order = pruning.ascending(np.array(scores))
    assert list(order) == sorted(range(len(scores)), key=lambda channel: (scores[channel], channel))


@given(st.permutations(range(12)))
def test_nested_masks_prune_one_channel_more_each_time(order):
    masks = pruning.nested_masks(np.array(order))
    assert masks.shape == (13, 12)
    for k, mask in enumerate(masks):
        assert set(np.flatnonzero(mask == 0)) == set(order[:k])


def test_filter_norms_are_sums_of_absolute_weights():
    net = random_net()
    kernel = deepid.to_weights(net)["conv_2"]["kernel"]
    by_hand = [np.abs(kernel[..., channel]).sum() for channel in range(40)]
    np.testing.assert_allclose(pruning.filter_norms(net, "conv_2"), by_hand, rtol=1e-6)


@pytest.mark.parametrize(
    ("order", "said"),
    [([0, 1, 1, 2], "repeated [1]"), ([0, 1, 2], "missing [3]"), ([0, 1, 2, 3, 4], "superfluous [4]")],
)
def test_an_order_names_every_channel_once(order, said):
    with pytest.raises(InputError, match=said.replace("[", r"\[")):
        pruning.checked_order(order, 4)


def curve_of(right, n):
    zeros = np.zeros(len(right), int)
    return pruning.Curve(n, np.array(right), zeros, zeros)


@pytest.mark.parametrize(
    ("drop", "pruned"),
    [("2", 2), ("2.000001", 3), ("4", 3), ("10", 4), ("100", 5), ("0.001", 2)],
)
def test_the_drop_is_compared_exactly(drop, pruned):
    """Of 50 images, one is 2 points: 50, 50, 49, 48, 45, 0 right."""
    assert pruning.first_drop(curve_of([50, 50, 49, 48, 45, 0], 50), Fraction(drop)) == pruned


def test_a_drop_that_is_never_reached():
    assert pruning.first_drop(curve_of([50, 49, 48], 50), Fraction(10)) is None


def test_random_order_is_the_same_for_the_same_seed():
    orders = [np.asarray(jax.random.permutation(jax.random.key(3), 60)) for _ in range(2)]
    np.testing.assert_array_equal(*orders)
