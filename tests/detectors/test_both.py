"""Both: the more suspicious of entropy under masks and entropy under overlays."""

import numpy as np

from jaxdefend.detectors import Both, Masks, Strip, both
from jaxdefend.detectors.base import Measure, combined, fitted


def measures_of(masks, strip):
    return {"masks": Measure(np.array(masks), bits=True), "strip": Measure(np.array(strip), bits=True)}


def test_the_more_suspicious_measure_decides():
    clean = measures_of([1.0, 2.0, 4.0], [0.2, 0.4, 0.8])
    fits = {name: fitted(measure) for name, measure in clean.items()}
    found = both.score(measures_of([2.0, 0.01], [0.001, 0.4]), fits)
    assert (found > 2).all()
    assert both.score(measures_of([36.0], [7.2]), fits)[0] < 0
    np.testing.assert_array_equal(found, combined(measures_of([2.0, 0.01], [0.001, 0.4]), fits))


def test_its_parts_have_its_settings():
    settings = Both(masks=7, keep=0.3, overlays=9, blend="0.5+0.5")
    assert both.parts(settings) == (Masks(7, 0.3), Strip(9, "0.5+0.5"))
