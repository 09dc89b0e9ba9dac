"""Pruning alone: what the sweep does, at one point."""

from fractions import Fraction

import numpy as np
import pytest
from small import CHANNELS, small_images, small_net

from jaxdefend import InputError
from jaxdefend.repairs import Prune
from jaxdefend.repairs.sweeping import sweep


@pytest.mark.parametrize("drop", [4, 10, Fraction(25, 2), 12.5])
def test_a_drop_is_that_of_the_sweep(drop):
    found = Prune(drop=drop)(small_net(), small_images())
    expected = sweep(small_net(), small_images()).drop(drop)
    np.testing.assert_array_equal(found.chosen["channels"], expected.channels)
    assert found.chosen["drop"] == drop and found.chosen["layer"] == "last"
    for layer, arrays in expected.net.weights.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(found.net.weights[layer][name], array)


def test_by_default_four_points():
    default, four = (Prune(drop=drop)(small_net(), small_images()).chosen for drop in (None, 4))
    np.testing.assert_array_equal(default["channels"], four["channels"])
    assert default["drop"] == 4


def test_so_many_channels_or_such_a_part():
    order = sweep(small_net(), small_images()).order
    for settings in (Prune(channels=3), Prune(fraction=0.5)):
        np.testing.assert_array_equal(settings(small_net(), small_images()).chosen["channels"], order[:3])
    assert not len(Prune(channels=0)(small_net(), small_images()).chosen["channels"])


def test_everything_pruned_is_a_net_that_says_one_thing():
    pixels, labels = small_images()
    found = Prune(fraction=1.0)(small_net(), (pixels, labels))
    assert len(found.chosen["channels"]) == CHANNELS
    assert len(set(found.net(pixels).argmax(axis=1))) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (Prune(channels=7), "channels 7: last has 6"),
        (Prune(drop=100), "drop 100: no point of the curve lies that far below the first; give up less"),
        (Prune(layer="conv_9"), "layer conv_9: not a convolution of this net; it has first, last"),
    ],
)
def test_what_the_net_does_not_have(settings, said):
    with pytest.raises(InputError) as refused:
        settings(small_net(), small_images())
    assert str(refused.value) == said
