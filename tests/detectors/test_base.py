"""What detectors share: scales on which measures are compared, names and modules, keys."""

import jax
import numpy as np
import pytest
from small import small_net, small_pixels

from jaxdefend.datasets.images import ArrayImages
from jaxdefend.detectors import DETECTORS, Both, Masks, Strip, base
from jaxdefend.detectors.base import Fit, Measure, Scene, combined, fitted, level, measures
from jaxdefend.results.progress import silent


def test_entropies_are_compared_by_their_logarithm():
    measure = Measure(np.array([0.0, 0.99, 1.99]), bits=True)
    np.testing.assert_allclose(level(measure), np.log2([0.01, 1.0, 2.0]))
    np.testing.assert_array_equal(level(Measure(measure.values)), measure.values)


def test_one_value_everywhere_has_a_deviation_that_divides():
    assert fitted(Measure(np.full(5, 0.25))) == Fit(0.25, 1.0)


def test_scores_are_standard_deviations_below_clean():
    found = combined({"a": Measure(np.array([1.0, 3.0])), "b": Measure(np.array([0.0, 0.0]))},
                     {"a": Fit(3.0, 0.5), "b": Fit(1.0, 1.0)})  # fmt: skip
    np.testing.assert_array_equal(found, [4.0, 1.0])


@pytest.mark.parametrize("name", DETECTORS)
def test_names_lead_to_modules_and_back(name):
    detector = DETECTORS[name]()
    assert base.name_of(detector) == name
    module = base.module_of(detector)
    assert module.__name__ == f"jaxdefend.detectors.{name}"
    assert module.LABEL and callable(module.score)
    assert callable(getattr(module, "measure", None)) != bool(base.parts_of(detector))


def test_parts_measure_once():
    """What one detector has measured the others need not measure again."""
    titles, known = [], {}
    scene = Scene(0, lambda step: titles.append(step.title), small_pixels(5, 2))
    images = ArrayImages(small_pixels(6))
    small = Both(masks=5, overlays=4)
    for detector in (Masks(5), Strip(4), small):
        found = measures(detector, small_net(), images, scene, known)
    assert titles == ["masks", "strip"] and set(found) == {"masks", "strip"}


def test_the_keys_of_masks_and_overlays_are_those_of_the_seed():
    for one, other in zip(base.keys(3), jax.random.split(jax.random.key(3)), strict=True):
        np.testing.assert_array_equal(jax.random.key_data(one), jax.random.key_data(other))


def test_a_scene_names_its_batches():
    told = []
    scene = Scene(0, told.append, title="calibration")
    list(scene.batches(ArrayImages(small_pixels(3)), "masks"))
    assert told[0].title == "calibration, masks"
    assert Scene(0, silent).title == ""
