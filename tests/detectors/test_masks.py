"""Entropy under channel masks against the plain way of computing it, and on real nets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_net, random_pixels, real
from small import CHANNELS, small_net, small_pixels

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.detectors import Masks, masks
from jaxdefend.detectors.base import OFFSET, Measure, keys
from jaxdefend.nets.batches import padded
from jaxdefend.nets.inference import entropy, predictions
from jaxdefend.nets.keras_files import read_model
from jaxdefend.results.detection import auroc

KEY = jax.random.key(3)


def batches(pixels, size=8):
    return padded(ArrayImages(pixels), size)


def test_entropy_in_bits():
    assert entropy(jnp.zeros(8)) == pytest.approx(3)
    assert entropy(jnp.array([1e4, 0.0, 0.0])) == 0
    assert np.isfinite(entropy(jnp.array([3e38, -3e38])))


def assert_is_plain(net, pixels, place, drawn):
    pooled = net.features(pixels, (place,))[place]
    each = jnp.stack([net.logits({place: pooled * mask}) for mask in drawn])
    plain = jnp.exp2(jnp.log2(entropy(each) + OFFSET).mean(axis=0)) - OFFSET
    found = masks.under_masks(net, batches(pixels), drawn)
    np.testing.assert_allclose(found.entropy, plain, rtol=2e-4, atol=2e-4)
    labels = predictions(net, batches(pixels))[0]
    np.testing.assert_allclose(found.changed, (each.argmax(axis=-1) != labels).mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(masks.entropies(net, batches(pixels), drawn), found.entropy)


@pytest.mark.parametrize("scale", ["unit", "raw"])
def test_masks_give_the_geometric_mean_of_the_entropies_and_the_share_of_changed_labels(scale):
    net = random_net(4, input_scale=scale)
    assert_is_plain(net, random_pixels(11, 6), "pool_3", masks.random_masks(KEY, net, 30))


def test_of_another_net():
    net = small_net(4)
    assert_is_plain(net, small_pixels(11, 6), "pooled", masks.random_masks(KEY, net, 30))


def test_masks_come_from_their_key():
    net = small_net()
    found = masks.random_masks(KEY, net, 2000, 0.4)
    assert found.shape == (2000, CHANNELS) and set(np.unique(found)) == {0, 1}
    assert abs(float(found.mean()) - 0.4) < 0.02
    np.testing.assert_array_equal(found, masks.random_masks(KEY, net, 2000, 0.4))
    with pytest.raises(InputError, match="0 masks"):
        masks.random_masks(KEY, net, 0)
    with pytest.raises(InputError, match="probability 1"):
        masks.random_masks(KEY, net, 10, 1.0)


def test_the_score_is_the_negative_of_the_entropy():
    np.testing.assert_array_equal(masks.score({"masks": Measure(np.array([2.0, 0.5]), bits=True)}, {}), [-2.0, -0.5])


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"masks": 0}, "masks 0: expected 1…10000"), ({"masks": 10**9}, "masks 1000000000"), ({"keep": 1.0}, "keep 1:")],
)
def test_settings_that_cannot_be_used(settings, said):
    with pytest.raises(InputError, match=said):
        Masks(**settings)


NETS = {
    "bd": ("bd_weights.h5", "raw", ["sunglasses_poisoned", "multi_sunglasses_poisoned"]),
    "sunglasses": ("sunglasses_bd_weights.h5", "unit", ["sunglasses_poisoned", "multi_sunglasses_poisoned"]),
    "multi": (
        "multi_trigger_multi_target_bd_weights.h5",
        "unit",
        ["multi_lipstick_poisoned", "multi_eyebrows_poisoned", "multi_sunglasses_poisoned"],
    ),
}


def real_pixels(name):
    return np.rint(open_images(real(f"data/{name}.h5"))[:]).astype(np.uint8)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_masks_find_the_real_triggers(name):
    file, scale, sets = NETS[name]
    net = read_model(real(f"weights/{file}")).net.with_input_scale(scale)
    drawn = masks.random_masks(keys(0)[0], net)

    def scores(pixels):
        return -masks.entropies(net, batches(pixels, 64), drawn)

    calibration, clean = scores(real_pixels("clean_more")), scores(real_pixels("clean"))
    threshold = np.sort(calibration)[::-1][int(0.05 * (len(calibration) + 1)) - 1]
    for poisoned in sets:
        pixels = real_pixels(poisoned)
        labels = predictions(net, batches(pixels, 64))[0]
        found = scores(pixels[labels == np.bincount(labels).argmax()])
        assert auroc(clean, found) >= 0.99
        assert (found <= threshold).mean() <= 0.05
