import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from jaxdefend.results import rates


@given(st.integers(1, 20_000), st.data())
def test_wilson_equals_scipy(n, data):
    count = data.draw(st.integers(0, n))
    expected = binomtest(count, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(rates.interval(count, n), [expected.low, expected.high], atol=1e-12)


def test_wilson_of_many_counts_is_wilson_of_each():
    counts = np.array([0, 3, 50])
    np.testing.assert_allclose(rates.wilson(counts, 50), [rates.interval(int(count), 50) for count in counts])


def test_the_interval_holds_the_share_and_stays_within_0_and_1():
    for n in (1, 2, 50):
        for count in range(n + 1):
            low, high = rates.interval(count, n)
            assert 0 <= low <= count / n <= high <= 1


def test_defense_effectiveness():
    def block(accuracy, success):
        return {"clean": {"accuracy": accuracy}, "poisoned": {"a": {"attack_success": success}}}

    before = block(0.98, 1.0)
    assert rates.defense_effectiveness(before, block(0.98, 0.0)) == {"a": 1.0}
    assert rates.defense_effectiveness(before, before) == {"a": 0.5}
    assert rates.defense_effectiveness(before, block(0.48, 1.0))["a"] == pytest.approx(0.25)
    assert rates.defense_effectiveness(block(0.9, 0.2), block(1.0, 0.9)) == {"a": 0.5}
