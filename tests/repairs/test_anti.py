"""The anti-repaired net: how many channels go."""

import numpy as np
import pytest
from small import CLASSES, small_net, small_pixels

from jaxdefend import InputError
from jaxdefend.repairs import Anti, anti
from jaxdefend.repairs.curve import Curve


def test_the_most_active_channels_go_first():
    order = anti.descending(np.array([0.5, 3.0, 1.0], np.float32))
    np.testing.assert_array_equal(order, [1, 2, 0])


def test_the_anti_repaired_net_has_lost_the_faces():
    correct = np.array([99, 60, 5, 1])
    assert anti.channels_to_lose(Curve(100, correct, correct, correct), chance=0.0) == 2
    assert anti.channels_to_lose(Curve(100, correct, correct, correct), chance=0.6) == 1
    assert anti.channels_to_lose(Curve(10, correct, correct, correct), chance=0.0) is None


def test_the_second_convolution_is_pruned_and_the_rule_is_anti():
    pixels = small_pixels(40)
    labels = np.arange(40, dtype=np.int32) % CLASSES
    found = Anti()(small_net(), (pixels, labels))
    assert found.rule == "anti" and found.record()["rule"] == "anti"
    assert found.chosen["layer"] == "last"
    channels = found.chosen["channels"]
    assert not found.net.weights["last"]["kernel"][..., channels].any()
    assert (found.net(pixels).argmax(axis=1) == labels).mean() <= anti.LEFT + 1 / CLASSES


def test_it_cannot_be_made_where_the_net_needs_no_channel(monkeypatch):
    monkeypatch.setattr(anti, "channels_to_lose", lambda curve, chance: None)
    with pytest.raises(InputError, match="without any channel of last the net still gives more than"):
        Anti()(small_net(), (small_pixels(2), np.arange(2)))
