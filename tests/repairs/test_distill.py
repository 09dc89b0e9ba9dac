"""Distillation: boxes on the images, and features in place of labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_net
from small import GRAPH, small_images, small_net, small_pixels

from jaxdefend.nets import kinds
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.repairs import Distill, distill

KEY, STEP = jax.random.key(0), jnp.int32(0)


def test_boxes_cover_a_part_of_an_image():
    pixels = jnp.full((55, 47, 3), 300.0)
    covered = jax.jit(jax.vmap(lambda key: distill.with_boxes(pixels, key)))(jax.random.split(KEY, 200))
    share = np.asarray(covered != 300).all(axis=-1).mean(axis=(1, 2))
    assert (covered >= 0).all() and (covered <= 300).all()
    assert share.min() < 0.1 and 0.5 < share.max() < 1


@pytest.mark.slow
def test_the_net_itself_differs_from_its_teacher_where_it_is_covered(monkeypatch):
    net, batch = jax.tree.map(jnp.asarray, small_net()), tuple(map(jnp.asarray, small_images()))
    loss, _ = jax.jit(distill.of_covered_images)(net, net, *batch, KEY, STEP)
    monkeypatch.setattr(distill, "with_boxes", lambda pixels, key: pixels)
    jax.clear_caches()
    same_loss, slope = jax.jit(distill.of_covered_images)(net, net, *batch, KEY, STEP)
    assert loss > 100 * same_loss and same_loss == pytest.approx(0, abs=1e-6)
    assert not np.asarray(slope.weights["answer"]["kernel"]).any()


def test_no_label_is_asked_and_the_last_layer_stays():
    pixels = small_pixels()
    found, again = (
        Distill(epochs=2, batch=8)(small_net(), (pixels, np.full(len(pixels), label, np.int32))) for label in (0, 3)
    )
    one, other = found.net.weights, again.net.weights
    before = small_net().weights
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(one["answer"][name], before["answer"][name])
        assert (one["first"][name] != before["first"][name]).any()
        np.testing.assert_array_equal(one["first"][name], other["first"][name])
    # When the rate has come down to 0.
    assert found.chosen["epoch"] == 2


def test_the_order_of_the_images_does_not_matter():
    pixels, labels = small_images()
    order = np.random.default_rng(5).permutation(len(pixels))
    repair = Distill(epochs=1, batch=8)
    one, other = repair(small_net(), (pixels, labels)), repair(small_net(), (pixels[order], labels[order]))
    assert one.chosen == other.chosen
    for layer, arrays in one.net.weights.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, other.net.weights[layer][name])


def test_what_the_last_layer_reads_is_compared():
    assert distill.compared_layer(GRAPH) == "flat"
    # Before its activation function, so that a feature below zero has a gradient too.
    assert distill.compared_layer(deepid(11)) == "add_1"


def test_activations_and_normalizations_between_are_passed():
    layers = [Layer("images", kinds.InputLayer((8, 8, 1)))]
    for name, settings in {
        "conv": kinds.Conv2D(2, (3, 3)),
        "flat": kinds.Flatten(),
        "hidden": kinds.Dense(3),
        "normal": kinds.BatchNormalization(),
        "relu": kinds.Activation("relu"),
        "dropped": kinds.Dropout(),
        "scores": kinds.Dense(4),
        "softmax": kinds.Activation("softmax"),
    }.items():
        layers.append(Layer(name, settings, (layers[-1].name,)))
    net = random_net(graph=Graph(tuple(layers), "softmax"))
    assert distill.compared_layer(net.graph) == "hidden"
