"""The anti-repaired net: how many channels go."""

import numpy as np
import pytest
from helpers import random_net
from small import CLASSES, small_images, small_net, small_pixels

from jaxdefend import InputError
from jaxdefend.detectors import Strip, default_detector
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.kinds import Dense, Flatten, InputLayer
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
    pixels, labels = small_images(40)
    found = Anti()(small_net(), (pixels, labels))
    assert found.rule == "anti" and found.record()["rule"] == "anti"
    assert found.chosen["layer"] == "last"
    channels = found.chosen["channels"]
    assert not found.net.weights["last"]["kernel"][..., channels].any()
    commonest = np.bincount(labels).max() / len(labels)
    assert (found.net(pixels).argmax(axis=1) == labels).mean() <= anti.LEFT + commonest


def test_what_the_net_does_not_recognise_cannot_be_lost():
    pixels, labels = small_images(40)
    with pytest.raises(InputError, match="there is nothing to take from it; check the images, their labels"):
        Anti()(small_net(), (pixels, (labels + 1) % CLASSES))


def test_it_cannot_be_made_where_the_net_needs_no_channel(monkeypatch):
    monkeypatch.setattr(anti, "channels_to_lose", lambda curve, chance: None)
    with pytest.raises(InputError, match="without any channel of last the net still gives more than"):
        Anti()(small_net(), (small_pixels(2), np.arange(2)))


def test_a_net_without_convolutions_is_refused():
    graph = Graph(
        (
            Layer("images", InputLayer((4, 4, 1))),
            Layer("flat", Flatten(), ("images",)),
            Layer("answer", Dense(CLASSES), ("flat",)),
        ),
        "answer",
    )
    pixels = np.zeros((20, 4, 4, 1), np.uint8)
    with pytest.raises(InputError, match="no convolution whose channels could be pruned"):
        Anti()(random_net(graph=graph), (pixels, np.arange(20) % CLASSES))
    # Nothing to mask: overlays alone can disturb such an image.
    assert default_detector(random_net(graph=graph), pixels) == Strip()
