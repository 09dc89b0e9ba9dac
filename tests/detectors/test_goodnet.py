"""The GoodNet's rule as a score."""

import jax
import numpy as np
import pytest
from small import small_images, small_net, small_pixels

import jaxdefend as jd
from jaxdefend import InputError
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.detectors import GoodNet, calibrate, goodnet
from jaxdefend.nets.batches import padded
from jaxdefend.nets.inference import predictions


def batches(pixels, size=8):
    return padded(ArrayImages(pixels), size)


def test_disagreement_is_the_surprise_of_the_repaired_net():
    badnet, repaired, pixels = small_net(1), small_net(2), small_pixels(9)
    shares = jax.nn.softmax(repaired.features(pixels, ("logits",))["logits"])
    labels = predictions(badnet, batches(pixels))[0]
    expected = -np.log2(np.asarray(shares)[np.arange(9), labels])
    np.testing.assert_allclose(goodnet.disagreements(badnet, repaired, batches(pixels)), expected, rtol=1e-3)


def test_the_guard_asks_its_repaired_net():
    guard = calibrate([GoodNet()], small_net(1), small_images(), frr=0.1, repaired=small_net(2))
    pixels = small_pixels(9)
    expected = goodnet.disagreements(small_net(1), small_net(2), batches(pixels))
    np.testing.assert_allclose(guard(pixels).scores, expected, rtol=1e-5)


def test_without_a_repaired_net_there_is_nothing_to_ask():
    with pytest.raises(InputError, match="the detector goodnet asks a repaired net: give it one"):
        jd.detectors.GoodNet().calibrate(small_net(), small_images(), frr=0.1)
