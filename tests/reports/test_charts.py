"""Charts are XML, whatever names and numbers go into them."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from jaxdefend.reports import charts
from jaxdefend.results.rates import Rate

NAME = "<script>\"'&\n"
LINE = charts.Line(charts.Series(NAME, "valid"), [1.0, 0.5, 0.0], [0.9, 0.4, 0.0], [1.0, 0.6, 0.1])
RATES = {f"a\n{NAME}": {NAME: Rate(1, 2)}, "b": {NAME: Rate(0, 3)}}
SCORES = {NAME: np.linspace(-2, 0, 9), "poisoned": np.zeros(0)}
MADE = {
    "curve": lambda: charts.curve_chart([LINE], {NAME: 1, "2": 1}, NAME, NAME, id="a"),
    "bars": lambda: charts.bar_chart(RATES, {NAME: "test"}, NAME),
    "counts": lambda: charts.count_chart([(NAME, 3), ("1", 12_345)], "valid", NAME, NAME),
    "no counts": lambda: charts.count_chart([], "valid", NAME, NAME),
    "channels": lambda: charts.channel_chart([3.0, 1.0], [0.0, 9.0], [1, 0], "attack0", NAME),
    "zero": lambda: charts.channel_chart([0.0], None, [0], "valid", NAME),
    "scores": lambda: charts.score_chart(SCORES, {NAME: "valid", "poisoned": "attack0"}, -0.5, NAME, False, NAME),
    "entropies": lambda: charts.score_chart(SCORES, {NAME: "valid", "poisoned": "attack0"}, -0.5, NAME, True, NAME),
    "errors": lambda: charts.error_chart({NAME: (np.array([0.0, 1.0]), np.array([1.0, 0.0]))}, NAME),
    "history": lambda: charts.history_chart([3.0, float("nan"), 1.0], [None, 4.0, -1.0], NAME),
    "one epoch": lambda: charts.history_chart([3.0], [2.0], NAME),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_chart_is_xml_and_names_are_text(kind):
    chart = MADE[kind]()
    root = ET.fromstring(str(chart.svg))
    assert root.get("aria-label") == NAME.replace("\n", " ") or root.get("aria-label") == NAME
    assert not list(root.iter("script"))


def test_every_point_of_the_curve_can_be_read():
    root = ET.fromstring(str(MADE["curve"]().svg))
    titles = [hit.find("title").text for hit in root.iter("rect") if hit.get("class") == "hit"]
    assert [title.splitlines()[0] for title in titles] == ["0 pruned", "1 pruned", "2 pruned"]
    assert "50.00 % [40.0, 60.0]" in titles[1]


@pytest.mark.parametrize(("number", "colour"), [(0, "attack0"), (4, "attack4"), (5, "attack0")])
def test_colours_of_poisoned_sets(number, colour):
    assert charts.attack(number) == colour
