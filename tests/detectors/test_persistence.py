"""Persistence: the more suspicious of two measures under masks that leave few channels."""

import numpy as np
import pytest
from helpers import real
from small import small_net, small_pixels

from jaxdefend.datasets.files import open_images
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.detectors import Persistence, persistence
from jaxdefend.detectors.base import Measure, Scene, combined, fitted, keys
from jaxdefend.detectors.masks import random_masks, under_masks
from jaxdefend.nets.batches import padded
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.keras_files import read_model
from jaxdefend.results.detection import auroc, conformal_threshold
from jaxdefend.results.progress import silent


def measures_of(entropy, changed):
    return {"few_entropy": Measure(np.array(entropy), bits=True), "few_changed": Measure(np.array(changed))}


def test_either_measure_alone_makes_an_image_suspicious():
    clean = measures_of([1.0, 2.0, 4.0], [0.8, 0.9, 1.0])
    fits = {name: fitted(measure) for name, measure in clean.items()}
    assert (persistence.score(measures_of([2.0, 0.01], [0.0, 0.9]), fits) > 2).all()
    assert persistence.score(measures_of([36.0], [1.0]), fits)[0] < 0


def test_shares_are_compared_as_they_are():
    changed = Measure(np.array([0.5, 0.7, 0.9]))
    fit = fitted(changed)
    assert fit == pytest.approx((0.7, changed.values.std()))
    scores = combined({"few_changed": Measure(np.array([0.7, 0.7 - fit.std]))}, {"few_changed": fit})
    np.testing.assert_allclose(scores, [0, 1], atol=1e-9)


def test_what_is_measured():
    net, pixels = small_net(), small_pixels(9)
    found = persistence.measure(Persistence(masks=20), net, ArrayImages(pixels), Scene(5, silent))
    expected = under_masks(net, padded(ArrayImages(pixels), 16), random_masks(keys(5)[0], net, 20, 0.2))
    np.testing.assert_allclose(found["few_entropy"].values, expected.entropy, rtol=1e-5)
    np.testing.assert_array_equal(found["few_changed"].values, expected.changed)
    assert found["few_entropy"].bits and not found["few_changed"].bits


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
def test_persistence_finds_the_real_triggers(name):
    file, scale, sets = NETS[name]
    net = read_model(real(f"weights/{file}")).net.with_input_scale(scale)

    def measures(pixels):
        return persistence.measure(Persistence(), net, ArrayImages(pixels), Scene(0, silent))

    calibration = measures(real_pixels("clean_more"))
    fits = {name: fitted(measure) for name, measure in calibration.items()}
    clean = persistence.score(measures(real_pixels("clean")), fits)
    threshold = conformal_threshold(persistence.score(calibration, fits), 0.05)
    for poisoned in sets:
        pixels = real_pixels(poisoned)
        labels = predictions(net, padded(ArrayImages(pixels), 64))[0]
        found = persistence.score(measures(pixels[labels == np.bincount(labels).argmax()]), fits)
        assert auroc(clean, found) >= 0.995
        assert (found <= threshold).mean() <= 0.02
