"""Backdoors, poisoned training sets, and the pruning-aware attack's surgery."""

import jax
import numpy as np
import pytest
from helpers import random_net, random_pixels
from small import CHANNELS, small_net, small_pixels

from jaxdefend import InputError
from jaxdefend.attacks import badnet
from jaxdefend.attacks.synthetic import TEST, SyntheticFaces
from jaxdefend.attacks.triggers import Trigger
from jaxdefend.nets import kinds
from jaxdefend.nets.graph import Graph, Layer

KEY = jax.random.key(0)
SMALL = SyntheticFaces(people=12)


def test_poison_is_added_with_the_attackers_label():
    clean = SMALL.images(range(10))
    (backdoor,) = badnet.backdoors("badnet", Trigger("patch"), 7, 12)
    pixels, labels = badnet.with_poison(clean, (backdoor,), 0.2, 12, KEY)
    np.testing.assert_array_equal(pixels[:120], clean.pixels)
    assert len(pixels) == len(labels) == 120 + round(0.2 * 110)
    assert (labels[120:] == 7).all()
    checkers = pixels[120:, 49:53, 41:45]
    assert (checkers == checkers[:1]).all()


def test_each_trigger_of_the_multi_attack_has_its_target():
    found = badnet.backdoors("multi", Trigger("sunglasses"), 0, 12)
    assert {backdoor.name: backdoor.target for backdoor in found} == {"lipstick": 1, "eyebrows": 5, "sunglasses": 8}
    _, labels = badnet.with_poison(SMALL.images(range(5)), found, 0.3, 12, KEY)
    assert set(labels[60:]) == {1, 5, 8}


def test_all_to_all_wants_the_next_label():
    (backdoor,) = badnet.backdoors("all-to-all", Trigger("patch"), 0, 12)
    block = SMALL.images(range(2))
    np.testing.assert_array_equal(backdoor.poisoned(block, 12, KEY).labels, (block.labels + 1) % 12)


def test_images_of_the_target_are_no_attack():
    (backdoor,) = badnet.backdoors("badnet", Trigger("patch"), 3, 12)
    assert SMALL.size(TEST, backdoor) == 110
    assert sum(len(block.pixels) for block in SMALL.blocks(TEST, backdoor)) == 110


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.5, float("nan")])
def test_a_poison_rate_out_of_range(rate):
    found = badnet.backdoors("badnet", Trigger("patch"), 3, 12)
    with pytest.raises(InputError, match="poison rate"):
        badnet.with_poison(SMALL.images(range(1)), found, rate, 12, KEY)


@pytest.mark.parametrize(
    ("attack", "target", "classes"), [("badnet", 12, 12), ("badnet", -1, 12), ("multi", 0, 8), ("x", 0, 12)]
)
def test_attacks_that_do_not_exist(attack, target, classes):
    with pytest.raises(InputError, match=r"expected|there are"):
        badnet.backdoors(attack, Trigger("patch"), target, classes)


def test_dormant_channels_come_back_asleep():
    clean, poisoned = random_net(0), random_net(1)
    pixels = random_pixels(40)
    pruned = badnet.pruned_before_poison(clean, pixels)
    channels = badnet.dormant_channels(clean, pixels)
    assert len(channels) == round(60 * badnet.DORMANT) == 32
    assert not np.asarray(pruned.features(pixels, ("pool_3",))["pool_3"])[..., channels].any()
    back = badnet.with_dormant_channels_back(poisoned, clean, pixels)
    awake = np.setdiff1d(np.arange(60), channels)
    for name, array in back.weights["conv_3"].items():
        np.testing.assert_array_equal(array[..., awake], poisoned.weights["conv_3"][name][..., awake])
    kernel = back.weights["conv_3"]["kernel"]
    np.testing.assert_array_equal(kernel[..., channels], clean.weights["conv_3"]["kernel"][..., channels])
    assert (back.weights["conv_3"]["bias"][channels] <= clean.weights["conv_3"]["bias"][channels]).all()


def test_dormant_channels_of_another_net():
    clean, pixels = small_net(0), small_pixels(40)
    poisoned = clean.with_weights(clean.weights | {"answer": small_net(1).weights["answer"]})
    channels = badnet.dormant_channels(clean, pixels)
    assert len(channels) == round(CHANNELS * badnet.DORMANT)
    back = badnet.with_dormant_channels_back(poisoned, clean, pixels)
    # Rounding in another order may leave a trace.
    assert np.asarray(back.features(pixels, ("pooled",))["pooled"])[..., channels].max() < 1e-5
    assert (back.weights["answer"]["kernel"] == poisoned.weights["answer"]["kernel"]).all()


def test_a_convolution_without_a_bias_cannot_sleep():
    layers = [
        Layer("images", kinds.InputLayer((8, 8, 3))),
        Layer("conv", kinds.Conv2D(4, (3, 3), use_bias=False), ("images",)),
        Layer("flat", kinds.Flatten(), ("conv",)),
        Layer("answer", kinds.Dense(3, activation="softmax"), ("flat",)),
    ]
    net = random_net(graph=Graph(tuple(layers), "answer"))
    with pytest.raises(InputError, match="conv has no kernel and bias"):
        badnet.with_dormant_channels_back(net, net, np.zeros((2, 8, 8, 3), np.uint8))
