"""Wilson's interval against scipy, and what a defense is worth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from jaxdefend.results import rates
from jaxdefend.results.rates import Rate


@given(st.integers(1, 20_000), st.data())
def test_wilson_equals_scipy(n, data):
    count = data.draw(st.integers(0, n))
    expected = binomtest(count, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(Rate(count, n).interval, [expected.low, expected.high], atol=1e-12)


def test_wilson_of_many_counts_is_wilson_of_each():
    counts = np.array([0, 3, 50])
    np.testing.assert_allclose(rates.wilson(counts, 50), [Rate(int(count), 50).interval for count in counts])


def test_the_interval_holds_the_share_and_stays_within_0_and_1():
    for n in (1, 2, 50):
        for count in range(n + 1):
            low, high = Rate(count, n).interval
            assert 0 <= low <= count / n <= high <= 1


def test_a_rate_in_words():
    assert Rate(49, 50).share == 0.98
    assert str(Rate(49, 50)) == "98.00 % [89.5, 99.6]"


def test_the_keys_of_the_json_files():
    rate = Rate(3, 4)
    assert rates.clean_rate(rate) == {"n": 4, "correct": 3, "accuracy": 0.75, "interval": rate.interval}
    assert rates.poisoned_rate(rate) == {"n": 4, "hits": 3, "attack_success": 0.75, "interval": rate.interval}
    named = {"flagged": 0.75, "flagged_count": 3, "flagged_interval": rate.interval}
    assert rates.named_rate("flagged", rate) == named


def test_defense_effectiveness():
    def of(accuracy, success):
        return Rate(accuracy, 100), {"a": Rate(success, 10)}

    before = of(98, 10)
    assert rates.defense_effectiveness(before, of(98, 0)) == {"a": 1.0}
    assert rates.defense_effectiveness(before, before) == {"a": 0.5}
    assert rates.defense_effectiveness(before, of(48, 10))["a"] == pytest.approx(0.25)
    assert rates.defense_effectiveness(of(90, 2), of(100, 9)) == {"a": 0.5}
