"""Statistics of batch normalizations, measured anew."""

import jax
import numpy as np
import pytest
from helpers import random_net

from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.kinds import Activation, BatchNormalization, Conv2D, Dense, Flatten, InputLayer
from jaxdefend.nets.normalizing import normalizations, with_statistics_of

GRAPH = Graph(
    (
        Layer("images", InputLayer((7, 6, 3))),
        Layer("conv", Conv2D(4, (3, 3)), ("images",)),
        Layer("norm", BatchNormalization(), ("conv",)),
        Layer("relu", Activation("relu"), ("norm",)),
        Layer("flat", Flatten(), ("relu",)),
        Layer("dense", Dense(5), ("flat",)),
        Layer("last norm", BatchNormalization(), ("dense",)),
        Layer("answer", Dense(3), ("last norm",)),
    ),
    "answer",
)
PIXELS = np.random.default_rng(0).integers(0, 256, (23, 7, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("scale", ["unit", "raw"])
def test_what_is_normalized_has_mean_0_and_variance_1(scale):
    net = random_net(graph=GRAPH).with_input_scale(scale)
    found = with_statistics_of(net, ArrayImages(PIXELS))
    assert normalizations(net) == ("norm", "last norm")
    for layer in normalizations(net):
        values = np.asarray(found.features(PIXELS, (layer,))[layer], np.float64)
        gamma, beta = (np.asarray(found.weights[layer][name]) for name in ("gamma", "beta"))
        axes = tuple(range(values.ndim - 1))
        variance = np.asarray(found.weights[layer]["moving_variance"])
        np.testing.assert_allclose(values.mean(axes), beta, atol=1e-4)
        np.testing.assert_allclose(values.var(axes), gamma**2 * variance / (variance + 1e-3), rtol=1e-3)
    for name in ("conv", "dense", "answer"):
        np.testing.assert_array_equal(found.weights[name]["kernel"], net.weights[name]["kernel"])


def test_a_pruned_channel_stays_at_zero():
    net = random_net(graph=GRAPH).pruned("conv", [1])
    found = with_statistics_of(net, ArrayImages(PIXELS))
    assert not np.asarray(found.features(PIXELS, ("norm",))["norm"])[..., 1].any()
    assert found.weights["norm"]["moving_variance"][1] == net.weights["norm"]["moving_variance"][1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_a_net_without_any_stays_as_it_is():
    plain = Graph((*GRAPH.layers[:2], Layer("flat", Flatten(), ("conv",))), "flat")
    net = random_net(graph=plain)
    assert normalizations(net) == () and with_statistics_of(net, ArrayImages(PIXELS)) is net
