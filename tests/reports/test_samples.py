"""Samples of each set."""

import numpy as np
import pytest

from jaxdefend.reports import sample
from jaxdefend.reports.samples import plain, spread_rows


def test_samples_are_spread_over_each_set(made):
    found = sample(made.net, made.test, made.poisoned, n=4)
    np.testing.assert_array_equal(found.pixels["clean"], made.test[0][[0, 8, 16, 24]])
    np.testing.assert_array_equal(found.labels["clean"], made.test[1][[0, 8, 16, 24]])
    assert found.n == {"clean": 32, "<b>glasses</b>": 30}
    assert found.figure().get_suptitle() and "clean" in repr(found)


def test_images_without_labels(made):
    found = sample(made.net, made.test[0], n=2)
    assert found.labels["clean"] is None
    assert found.figure()


@pytest.mark.parametrize(("total", "n", "rows"), [(10, 3, [0, 3, 6]), (2, 5, [0, 1]), (1, 1, [0])])
def test_rows(total, n, rows):
    assert spread_rows(total, n) == rows


def test_plain_pixels():
    assert plain(np.array([[[[-3.0], [254.6], [300.0]]]])).ravel().tolist() == [0, 255, 255]
