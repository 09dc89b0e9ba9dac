"""Labels, confidences, and the input scale at which a net recognises images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import random_net, random_pixels
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets import kinds
from jaxdefend.nets.batches import padded
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.inference import (
    ScaleMeasurement,
    assumed_input_scale,
    entropy,
    labels_and_confidences,
    largest,
    logits_of,
    measured_input_scale,
    predictions,
)
from jaxdefend.nets.net import Net

PIXELS = random_pixels(21)


@given(st.lists(st.lists(st.sampled_from([-1.5, 0.0, 2.0, 2.5]), min_size=5, max_size=5), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_the_largest_is_the_first_one_on_a_tie(rows):
    logits = jnp.asarray(rows, jnp.float32)
    np.testing.assert_array_equal(largest(logits), np.argmax(rows, axis=-1))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_entropy_is_scipys(scale):
    logits = scale * np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    expected = scipy.stats.entropy(scipy.special.softmax(logits.astype(float), axis=-1), base=2, axis=-1)
    np.testing.assert_allclose(entropy(jnp.asarray(logits)), expected, atol=1e-4)


def test_labels_and_confidences():
    net = random_net()
    logits = np.asarray(net.features(PIXELS, ("logits",))["logits"], float)
    labels, confidences = labels_and_confidences(net, jnp.asarray(PIXELS))
    np.testing.assert_array_equal(labels, logits.argmax(1))
    np.testing.assert_allclose(confidences, scipy.special.softmax(logits, axis=1).max(1), atol=1e-4)


def test_predictions_leave_padding_out():
    net = random_net()
    labels, confidences = predictions(net, padded(ArrayImages(PIXELS, np.arange(21)), 8))
    expected, shares = labels_and_confidences(net, jnp.asarray(PIXELS))
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_allclose(confidences, shares, atol=1e-5)
    np.testing.assert_allclose(logits_of(net, PIXELS), net.features(PIXELS, ("logits",))["logits"], atol=1e-4)


@pytest.mark.parametrize("scale", ["raw", "unit", "symmetric"])
def test_the_scale_at_which_a_net_recognises_images(scale):
    net = random_net(input_scale=scale)
    labels = net(PIXELS).argmax(1)
    measured = measured_input_scale(random_net(input_scale=None), padded(ArrayImages(PIXELS, labels), 8))
    assert measured.correct[scale] == measured.n == 21
    assert measured.input_scale == scale


@pytest.mark.parametrize(
    ("correct", "best", "is_convincing"),
    [
        ((95, 80, 1), "raw", True),
        ((80, 95, 80), "unit", True),
        ((100, 100, 1), "unit", False),
        ((3, 2, 1), "raw", False),
        ((99, 100, 97), "unit", False),
    ],
)
def test_when_a_measurement_is_convincing(correct, best, is_convincing):
    measured = ScaleMeasurement(100, dict(zip(("raw", "unit", "symmetric"), correct, strict=True)))
    assert (measured.input_scale, measured.is_convincing) == (best, is_convincing)


def test_all_of_eight_against_five_is_convincing():
    assert ScaleMeasurement(8, {"raw": 8, "unit": 5, "symmetric": 0}).is_convincing


def normalized_net(scale):
    """Its first batch normalization has the statistics that images of this scale leave."""
    graph = Graph(
        (
            Layer("input", kinds.InputLayer((8, 8, 3))),
            Layer("conv", kinds.Conv2D(6, (3, 3)), ("input",)),
            Layer("norm", kinds.BatchNormalization(), ("conv",)),
            Layer("flat", kinds.Flatten(), ("norm",)),
            Layer("end", kinds.Dense(3, activation="softmax"), ("flat",)),
        ),
        "end",
    )
    net = random_net(graph=graph, input_scale=scale)
    pixels = np.random.default_rng(1).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    found = np.asarray(net.features(pixels, ("conv",))["conv"])
    norm = net.weights["norm"] | {"moving_mean": found.mean((0, 1, 2)), "moving_variance": found.var((0, 1, 2))}
    return Net(graph, net.weights | {"norm": norm}), np.random.default_rng(2).integers(
        0, 256, (16, 8, 8, 3), dtype=np.uint8
    )


@pytest.mark.parametrize("scale", ["raw", "unit", "symmetric"])
def test_a_batch_normalization_knows_its_scale(scale):
    found, why = assumed_input_scale(*normalized_net(scale))
    assert found == scale
    assert "first batch normalization" in why and "not sure" not in why


def test_without_one_the_spread_of_the_logits_decides():
    net = random_net()
    logits = net.with_input_scale("raw")(PIXELS)
    weights = jax.tree.map(lambda array: array, net.weights)
    for spread, scale in ((20, "raw"), (5000, "unit")):
        factor = np.float32(spread / logits.std(axis=1).mean())
        scaled = net.weights | {"output": {name: array * factor for name, array in weights["output"].items()}}
        found, why = assumed_input_scale(net.with_weights(scaled), PIXELS)
        assert found == scale and "standard deviation" in why and "not sure" not in why
