"""The pruning curve: against nets whose weights are zeroed."""

from fractions import Fraction

import jax
import numpy as np
import pytest
from checked import unchecked
from helpers import random_net, random_pixels
from hypothesis import given, settings
from hypothesis import strategies as st
from small import CHANNELS, small_images, small_net, small_pixels

from jaxdefend import InputError
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets import kinds
from jaxdefend.nets.batches import padded
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.inference import predictions
from jaxdefend.repairs import curve as pruning


def images(n=20, seed=0, classes=11):
    """Pixels labelled with what the random net says of half of them, so that the curve has something to lose."""
    pixels = random_pixels(n, seed)
    labels, _ = predictions(random_net(), padded(ArrayImages(pixels)))
    labels[n // 2 :] = np.random.default_rng(seed).integers(0, classes, n - n // 2)
    return ArrayImages(pixels, labels)


def assert_equals_zeroed_nets(net, data, layer, step):
    channels = net.graph.channels(layer)
    order = np.random.default_rng(1).permutation(channels)
    found = pruning.curve(net, padded(data, 32), order, layer)
    badnet, _ = predictions(net, padded(data, 32))
    for k in range(0, channels + 1, step):
        repaired, _ = predictions(net.pruned(layer, order[:k]), padded(data, 32))
        assert found.correct[k] == (repaired == data.labels).sum()
        assert found.agreed[k] == (repaired == badnet).sum()
        assert found.agreed_correct[k] == ((repaired == badnet) & (repaired == data.labels)).sum()
    np.testing.assert_array_equal(found.flagged, len(data) - found.agreed)


@pytest.mark.parametrize("layer", deepid(11).convolutions)
def test_the_curve_equals_nets_whose_weights_are_zeroed(layer):
    assert_equals_zeroed_nets(random_net(), images(), layer, 7)


def chain(*layers):
    """A net of one layer behind the other, on images of 9×8×3 and with 4 classes."""
    named = [Layer("images", kinds.InputLayer((9, 8, 3)))]
    for number, settings_ in enumerate((*layers, kinds.Dense(4, activation="softmax"))):
        named.append(Layer(f"layer {number}", settings_, (named[-1].name,)))
    return Graph(tuple(named), named[-1].name)


CONV = kinds.Conv2D(5, (3, 3), activation="relu")
NETS = {
    "flattened": chain(CONV, kinds.Flatten()),
    "averaged": chain(CONV, kinds.MaxPooling2D(), kinds.GlobalAveragePooling2D()),
    "averaged pools": chain(CONV, kinds.AveragePooling2D(), kinds.Dropout(), kinds.Flatten()),
    "normalized": chain(
        kinds.Conv2D(5, (3, 3), use_bias=False),
        kinds.BatchNormalization(),
        kinds.Activation("relu"),
        kinds.MaxPooling2D(),
        kinds.Flatten(),
    ),
    "strided": chain(CONV, kinds.Conv2D(4, (2, 2), strides=(2, 2), padding="same"), kinds.Flatten()),
    "grouped": chain(kinds.Conv2D(4, (3, 3)), kinds.Conv2D(4, (2, 2), groups=2, activation="relu"), kinds.Flatten()),
    "hidden": chain(CONV, kinds.Flatten(), kinds.Dense(6, activation="tanh")),
    "largest": chain(CONV, kinds.GlobalMaxPooling2D()),
}


@pytest.mark.parametrize("name", NETS)
def test_the_curve_of_other_nets_equals_nets_whose_weights_are_zeroed(name):
    net = random_net(3, graph=NETS[name])
    pixels = np.random.default_rng(3).integers(0, 256, (24, 9, 8, 3), dtype=np.uint8)
    labels = net(pixels).argmax(axis=1).astype(np.int32)
    labels[::3] = 0
    for layer in net.convolutions:
        assert_equals_zeroed_nets(net, ArrayImages(pixels, labels), layer, 1)


def with_rare_channels(net, pixels, images_of):
    """The net with channel c of conv_3 zero in all images but the `images_of[c]` most active ones, and loud there."""
    most = np.asarray(net.features(pixels, ("pool_3",))["pool_3"]).max(axis=(1, 2))
    falling = np.concatenate([np.sort(most, axis=0)[::-1], np.zeros_like(most[:1])])
    limits = falling[images_of, np.arange(60)] * np.float32(1.0001)
    loud = 3 / np.maximum(falling[0] - limits, 1e-3)
    kernel, bias = (np.asarray(net.weights["conv_3"][name]) for name in ("kernel", "bias"))
    return net.with_weights(net.weights | {"conv_3": {"kernel": kernel * loud, "bias": (bias - limits) * loud}})


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**16), images_of=st.lists(st.sampled_from([0, 1, 2, 3, 9, 32]), min_size=60, max_size=60))
def test_the_telescoped_curve_equals_the_plain_one(seed, images_of):
    """For every class: how many images are given it under each mask."""
    pixels = random_pixels(32, seed)
    net = with_rare_channels(random_net(seed), pixels, images_of)
    order = np.random.default_rng(seed).permutation(60)
    for label in range(net.classes):
        labels = np.full(32, label, np.int32)
        telescoped = pruning.nested_counts(net, pixels, labels, order, "conv_3")
        plain = pruning.masked_counts(net, pixels, labels, pruning.nested_masks(order), "conv_3")
        for name in pruning.Counts._fields:
            one, other = (np.sum(getattr(counts, name), axis=0) for counts in (telescoped, plain))
            np.testing.assert_array_equal(one, other, err_msg=name)


def test_ties_go_to_the_first_class():
    """A net whose logits are all equal says 0, as argmax does, and is not right about everything."""
    net = random_net()
    net = net.with_weights(
        {layer: {name: np.zeros_like(array) for name, array in arrays.items()} for layer, arrays in net.weights.items()}
    )
    data = ArrayImages(random_pixels(6), np.array([0, 0, 1, 2, 3, 10]))
    found = pruning.curve(net, padded(data, 8), np.arange(60), "conv_3")
    assert set(found.correct) == {2}
    assert found.n == 6


@pytest.mark.parametrize("size", [1, 5, 20, 64])
def test_padding_counts_nothing(size):
    net, data, order = small_net(), ArrayImages(*small_images(20)), np.arange(CHANNELS)
    found = pruning.curve(net, padded(data, size), order, "last")
    reference = pruning.curve(net, padded(data, 20), order, "last")
    assert found.n == 20
    np.testing.assert_array_equal(found.correct, reference.correct)
    np.testing.assert_array_equal(found.agreed, reference.agreed)
    means = [pruning.mean_activations(net, padded(data, batch), "last") for batch in (size, 20)]
    np.testing.assert_allclose(*means, rtol=1e-4)


def test_one_shape_compiles_once():
    data, order = ArrayImages(*small_images(20)), np.arange(CHANNELS)
    pruning.nested_counts.clear_cache()
    for n in (3, 20, 31):
        pruning.curve(small_net(), padded(ArrayImages(small_pixels(n), np.zeros(n, int)), 16), order, "last")
    pruning.curve(small_net(1), padded(data, 16), order[::-1].copy(), "last")
    assert pruning.nested_counts._cache_size() == 1


def test_mean_activations_are_those_behind_the_pool():
    net, data = random_net(), images()
    for layer, pooled in {"conv_1": "pool_1", "conv_2": "pool_2", "conv_3": "pool_3", "conv_4": "conv_4"}.items():
        by_hand = net.features(data[:], (pooled,))[pooled].mean(axis=(0, 1, 2))
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
    kernel = net.weights["conv_2"]["kernel"]
    by_hand = [np.abs(kernel[..., channel]).sum() for channel in range(40)]
    np.testing.assert_allclose(pruning.filter_norms(net, "conv_2"), by_hand, rtol=1e-6)


@pytest.mark.parametrize(
    ("order", "said"),
    [([0, 1, 1, 2], "repeated [1]"), ([0, 1, 2], "missing [3]"), ([0, 1, 2, 3, 4], "superfluous [4]")],
)
def test_an_order_names_every_channel_once(order, said):
    with pytest.raises(InputError, match=said.replace("[", r"\[")):
        pruning.checked_order(order, 4)


def curve_of(correct, n):
    zeros = np.zeros(len(correct), int)
    return pruning.Curve(n, np.array(correct), zeros, zeros)


@pytest.mark.parametrize(
    ("drop", "pruned"),
    [("2", 2), ("2.000001", 3), ("4", 3), ("10", 4), ("100", 5), ("0.001", 2)],
)
def test_the_drop_is_compared_exactly(drop, pruned):
    """Of 50 images, one is 2 points: 50, 50, 49, 48, 45, 0 correct."""
    assert pruning.first_drop(curve_of([50, 50, 49, 48, 45, 0], 50), Fraction(drop)) == pruned


def test_a_drop_that_is_never_reached():
    assert pruning.first_drop(curve_of([50, 49, 48], 50), Fraction(10)) is None


def test_random_order_is_the_same_for_the_same_seed():
    orders = [np.asarray(jax.random.permutation(jax.random.key(3), 60)) for _ in range(2)]
    np.testing.assert_array_equal(*orders)


@pytest.mark.parametrize(("points", "exact"), [(2, 2), (2.5, Fraction(5, 2)), ("0.1", Fraction(1, 10)), (0.1, "1/10")])
def test_points_are_exact(points, exact):
    assert pruning.points(points) == Fraction(exact)


@pytest.mark.parametrize("points", [0, -1, 100.5, "many", float("nan"), "1/0", "x" * 900, None])
def test_points_that_are_not(points):
    with pytest.raises(InputError, match=r"^drop .*: expected percentage points") as refused:
        unchecked(pruning.points)(points)
    assert len(str(refused.value)) < 200
