"""Thresholds and ROC figures against scipy, against their guarantees, and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from jaxdefend import InputError
from jaxdefend.results import detection

SCORES = st.integers(2, 60).flatmap(lambda n: arrays(np.float64, n, elements=st.integers(-9, 9).map(float)))


@given(SCORES, SCORES)
def test_auroc_is_mann_whitney(clean, poisoned):
    expected = stats.mannwhitneyu(poisoned, clean).statistic / (len(clean) * len(poisoned))
    np.testing.assert_allclose(detection.auroc(clean, poisoned), expected)


@given(SCORES, SCORES)
def test_the_area_under_the_error_curve_is_one_less_the_auroc(clean, poisoned):
    frr, far = detection.error_curve(clean, poisoned)
    assert (frr[0], far[0]) == (0, 1) or frr[0] == 0
    assert frr[-1] == 1 and far[-1] == 0
    assert (np.diff(frr) >= 0).all() and (np.diff(far) <= 0).all()
    below = np.trapezoid(np.concatenate([[1], far]), np.concatenate([[0], frr]))
    np.testing.assert_allclose(below, 1 - detection.auroc(clean, poisoned), atol=1e-12)


@given(SCORES, st.floats(0.001, 0.999))
def test_no_more_clean_images_are_above_the_quantile_than_asked(clean, frr):
    threshold = detection.quantile_threshold(clean, frr)
    assert (clean > threshold).sum() <= frr * len(clean)
    lower = clean[clean < threshold]
    assert not len(lower) or (clean > lower.max()).sum() > frr * len(clean)


def test_normal_threshold_is_norm_ppf():
    clean = np.random.default_rng(0).normal(-0.26, 0.07, 3000)
    expected = stats.norm.ppf(0.95, clean.mean(), clean.std())
    np.testing.assert_allclose(detection.normal_threshold(clean, 0.05), expected)


@pytest.mark.parametrize(("n", "frr"), [(19, 0.05), (99, 0.01), (100, 0.05), (399, 0.05)])
def test_conformal_thresholds_keep_the_frr_in_expectation(n, frr):
    rng = np.random.default_rng(1)
    # Lognormal, so that no normal fit would do.
    above = [stats.lognorm.sf(detection.conformal_threshold(rng.lognormal(size=n), frr), 1) for _ in range(4000)]
    told = detection.conformal_confidence(n, frr)
    error = np.std(above) / np.sqrt(len(above))
    assert told["expected_frr"] <= frr
    assert abs(np.mean(above) - told["expected_frr"]) < 4 * error
    assert abs(np.mean(np.asarray(above) <= frr) - told["confidence"]) < 0.04
    assert abs(np.mean(np.asarray(above) <= told["frr_95"]) - 0.95) < 0.02


@pytest.mark.parametrize("frr", [0.0, 1.0, -0.1, 1.5])
def test_an_frr_is_a_share(frr):
    with pytest.raises(InputError, match=f"false rejection rate {frr:g}: expected a share"):
        detection.conformal_threshold(np.arange(50.0), frr)


def test_an_frr_finer_than_the_images_allow():
    assert detection.conformal_threshold(np.arange(99.0), 0.01) == 98
    with pytest.raises(InputError, match=r"98 clean images allow; expected 0\.01"):
        detection.conformal_threshold(np.arange(98.0), 0.01)


def test_one_image_fits_no_normal():
    with pytest.raises(InputError, match="1 clean image with one score"):
        detection.normal_threshold(np.zeros(1), 0.05)


def test_equal_error_rate_and_accepted():
    clean, poisoned = np.arange(100.0), np.arange(100.0) + 90
    assert detection.equal_error_rate(clean, poisoned) == pytest.approx(0.05)
    assert detection.accepted_at(clean, poisoned, 0.05) == 5
    low, high = detection.auroc_interval(detection.auroc(clean, poisoned), 100, 100)
    assert low < detection.auroc(clean, poisoned) < high <= 1


def test_separation_is_all_of_it_and_its_record():
    rng = np.random.default_rng(0)
    clean, poisoned = rng.normal(0, 1, 80), rng.normal(2, 1, 40)
    found = detection.separation(clean, poisoned, (0.05, 0.1))
    assert found.auroc == detection.auroc(clean, poisoned)
    assert found.auroc_interval == detection.auroc_interval(found.auroc, 80, 40)
    assert {frr: rate.count for frr, rate in found.far.items()} == {
        frr: detection.accepted_at(clean, poisoned, frr) for frr in (0.05, 0.1)
    }
    record = found.record("_where_it_fires")
    assert record["auroc_where_it_fires"] == found.auroc
    assert record["equal_error_rate_where_it_fires"] == detection.equal_error_rate(clean, poisoned)
    assert record["far_at_frr_where_it_fires"] == {f"{frr:g}": rate.share for frr, rate in found.far.items()}
    assert set(record["far_interval_at_frr_where_it_fires"]) == {"0.05", "0.1"}


def test_nothing_poisoned_has_nothing_to_separate():
    found = detection.separation(np.arange(5.0), np.zeros(0))
    assert found == detection.Separation()
    assert found.record() == {"auroc": None, "far_at_frr": None, "equal_error_rate": None}
