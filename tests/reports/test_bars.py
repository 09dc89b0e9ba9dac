"""Bars at the drops: the counts are those of the curve."""

import dataclasses

import pytest

from jaxdefend import InputError
from jaxdefend.reports import drops_figure, rates_at_drops
from jaxdefend.results.rates import Rate


def test_rates_are_the_counts_of_the_curve(made):
    rates = rates_at_drops(made.sweep.record())
    test, attacked = made.sweep.test, made.sweep.poisoned["<b>glasses</b>"]
    assert rates["BadNet"] == {
        "clean accuracy": Rate(int(test.correct[0]), 32),
        "ASR, <b>glasses</b>": Rate(int(attacked.correct[0]), 30),
    }
    for drop in made.sweep.repaired:
        k = drop.pruned
        assert rates[f"B′\ndrop {drop.points}"]["clean accuracy"] == Rate(int(test.correct[k]), 32)
        goodnet = rates[f"GoodNet\ndrop {drop.points}"]
        assert goodnet["ASR, <b>glasses</b>"] == Rate(int(attacked.agreed_correct[k]), 30)


def test_figure(made):
    assert drops_figure(made.sweep).axes[0].get_title("left")
    with pytest.raises(InputError, match="none of the drops"):
        drops_figure(dataclasses.replace(made.sweep, drops=()))
