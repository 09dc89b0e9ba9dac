"""Iterative pruning: one channel after another, and B0 on the way."""

import itertools

import numpy as np
import pytest
from helpers import random_net
from small import CLASSES, SHAPE, small_images, small_net, small_pixels, zero_channels

from jaxdefend import InputError
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.kinds import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Flatten,
    InputLayer,
    SeparableConv2D,
)
from jaxdefend.repairs import Grid, Iterative, iterative, tuning


@pytest.fixture(scope="module")
def repaired():
    """A repair, and the repaired net after each epoch, as it is held against the held-out images."""
    nets = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(tuning, "recognised", lambda net, images: nets.append(net) or 0)
        # One step per epoch.
        found = Iterative(epochs=8, batch=64, channels=3, b0=2)(small_net(), small_images())
    return found, nets


def test_channels_go_one_after_another(repaired):
    found, (*trained, _) = repaired
    first, *_ = channels = found.chosen["channels"]
    gone = [zero_channels(net) for net in trained]
    assert len(gone) == 8 and gone[0] == {first} and gone[-1] == set(channels)
    assert all(before <= after for before, after in itertools.pairwise(gone))
    assert all(len(channels) == 3 for channels in gone[5:])
    assert zero_channels(found.net) == set(channels)


def test_turns_are_spread_over_all_but_the_last_quarter():
    np.testing.assert_allclose(iterative.turns(3, 8), [0, 2, 4])
    np.testing.assert_allclose(iterative.turns(4, 16), [0, 3, 6, 9])


def test_b0_lacks_the_first_channels(repaired):
    found, _ = repaired
    order = found.chosen["channels"]
    gone = zero_channels(found.b0)
    assert gone == set(order[: len(gone)])
    assert 2 <= len(gone) == found.chosen["b0"] < 3
    # It has been trained, and is not the repaired net.
    assert (found.b0.weights["first"]["kernel"] != small_net().weights["first"]["kernel"]).any()
    assert zero_channels(found.net) == set(order)


def test_b0_must_come_before_the_end():
    with pytest.raises(InputError, match="b0 5: expected fewer than the 5 channels that are pruned in all"):
        Iterative(channels=5, b0=5)(small_net(), small_images())


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (Iterative(epochs=4, batch=16, channels=2), Conv2D(6, (3, 3))),
        (Iterative(epochs=4, batch=16, channels=2), DepthwiseConv2D((3, 3))),
        (Grid(epochs=1, batch=16, fractions=(0.5,), learning_rates=(0.001,)), SeparableConv2D(6, (3, 3))),
    ],
)
def test_pruned_channels_are_zero_behind_what_normalizes_them(settings, kind):
    """Whatever array makes the channels; others keep theirs."""
    graph = Graph(
        (
            Layer("images", InputLayer(SHAPE)),
            Layer("conv", kind, ("images",)),
            Layer("norm", BatchNormalization(), ("conv",)),
            Layer("relu", Activation("relu"), ("norm",)),
            Layer("flat", Flatten(), ("relu",)),
            Layer("answer", Dense(CLASSES), ("flat",)),
        ),
        "answer",
    )
    net = random_net(graph=graph)
    pixels = small_pixels(40)
    labels = net(pixels).argmax(axis=1)
    labels[:5] = np.arange(5)
    found = settings(net, (pixels, labels))
    nets = [cell.net for cell in found.cells if cell.method == "fine-prune"] or [found.net]
    for each in nets:
        behind = np.asarray(each.features(pixels, ["norm"])["norm"])
        still = ~behind.any(axis=(0, 1, 2))
        expected = len(found.chosen["channels"]) if "channels" in found.chosen else round(0.5 * behind.shape[-1])
        assert still.sum() == expected < behind.shape[-1]
        assert (np.asarray(each.weights["norm"]["moving_variance"]) > 0).all()
