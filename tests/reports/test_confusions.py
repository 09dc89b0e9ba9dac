"""What is called what, counted by hand."""

import numpy as np
import pytest

from jaxdefend import InputError
from jaxdefend.reports import confuse
from jaxdefend.results.rates import Rate

ANSWERS = {"clean": np.array([0, 1, 1, 2, 2, 2, 0]), "glasses": np.array([0, 0, 3, 0])}
LABELS = {"clean": np.array([0, 0, 0, 2, 1, 1, 1]), "glasses": np.array([0, 0, 0, 0])}


def test_counts():
    found = confuse("a net", ANSWERS, LABELS)
    assert found.n == {"clean": 7, "glasses": 4}
    first, second = found.mistaken
    assert (first.label, first.wrong, first.answers) == (1, Rate(3, 3), ((2, 2), (0, 1)))
    assert (second.label, second.wrong, second.answers) == (0, Rate(2, 3), ((1, 2),))
    assert found.wrong_answers == ((1, 2), (2, 2), (0, 1))
    assert found.attacked == {"glasses": ((0, 3), (3, 1))}
    assert found.targets == {"glasses": 0}


def test_record_columns_table_and_figure():
    found = confuse("a net", ANSWERS, LABELS)
    columns = found.columns()
    assert list(zip(*columns.values(), strict=True))[-1] == ("glasses", 0, 3, 1)
    assert {len(column) for column in columns.values()} == {5}
    assert found.record()["mistaken"][0] == {"label": 1, "n": 3, "wrong": 3, "answers": ((2, 2), (0, 1))}
    assert "75.00 %" in repr(found)
    assert "7 clean" in found.figure().get_suptitle()


def test_a_net_that_is_never_wrong():
    found = confuse("a net", {"clean": np.arange(3)}, {"clean": np.arange(3)})
    assert found.mistaken == () and found.columns()["label"] == ()
    assert found.figure() and found.table()


def test_several_targets_are_no_target():
    labels = LABELS | {"glasses": np.array([0, 1, 2, 3])}
    assert confuse("a net", ANSWERS, labels).targets == {"glasses": None}


@pytest.mark.parametrize("labels", [{"clean": LABELS["clean"]}, LABELS | {"glasses": np.zeros(3, int)}])
def test_what_does_not_fit_is_refused(labels):
    with pytest.raises(InputError):
        confuse("a net", ANSWERS, labels)
