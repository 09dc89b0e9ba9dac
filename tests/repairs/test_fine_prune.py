"""Fine-pruning: pruned channels stay zero while the rest is trained."""

import numpy as np
import pytest
from small import small_images, small_net, zero_channels

from jaxdefend.repairs import FinePrune, Prune


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_pruned_channels_stay_zero_through_training(optimizer):
    settings = FinePrune(layer="first", epochs=3, batch=8, channels=2, learning_rate=1e-3, optimizer=optimizer)
    found = settings(small_net(), small_images())
    channels = Prune(layer="first", channels=2)(small_net(), small_images()).chosen["channels"]
    np.testing.assert_array_equal(found.chosen["channels"], channels)
    assert zero_channels(found.net, "first") == set(channels) and not zero_channels(found.net, "last")
    assert found.chosen["optimizer"] == optimizer and found.chosen["batch"] == 8
    for layer, arrays in found.net.weights.items():
        assert (arrays["kernel"] != small_net().weights[layer]["kernel"]).any()
