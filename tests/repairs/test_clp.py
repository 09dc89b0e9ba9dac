"""Channel Lipschitz pruning: the bounds, and which channels stand out."""

import numpy as np
from helpers import random_net
from small import small_images, small_net, zero_channels

from jaxdefend.repairs import Clp, clp


def test_channel_bounds_are_spectral_norms():
    kernel = random_net().weights["conv_2"]["kernel"]
    bounds = clp.channel_bounds(random_net(), "conv_2")
    for channel in (0, 17):
        np.testing.assert_allclose(
            bounds[channel], np.linalg.svd(kernel[..., channel].reshape(-1, 20))[1].max(), rtol=1e-5
        )


def test_a_channel_that_stands_out_is_pruned():
    net = random_net()
    loud = net.weights["conv_3"]["kernel"].copy()
    loud[..., 7] *= 10
    net = net.with_weights(net.weights | {"conv_3": net.weights["conv_3"] | {"kernel": loud}})
    pixels = np.zeros((1, *net.image_shape), np.uint8)
    found = Clp()(net, (pixels, np.zeros(1, int)))
    assert list(found.chosen["channels"]["conv_3"]) == [7] and zero_channels(found.net, "conv_3") == {7}
    assert not zero_channels(found.net, "conv_2")


def test_images_do_not_matter():
    one, other = (Clp()(small_net(), small_images(seed=seed)).net for seed in (0, 1))
    np.testing.assert_array_equal(one.weights["last"]["kernel"], other.weights["last"]["kernel"])
