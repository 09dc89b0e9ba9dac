"""The GoodNet's rule."""

import numpy as np
import pytest

from jaxdefend.nets.goodnet import RULES, goodnet_labels


def test_most_repaired_nets_decide():
    badnet = np.array([1, 1, 1, 1])
    repaired = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(goodnet_labels(badnet, repaired, 9), [1, 1, 9, 9])
    np.testing.assert_array_equal(goodnet_labels(badnet, repaired[:2], 9), [1, 9, 9, 9])
    np.testing.assert_array_equal(goodnet_labels(badnet, repaired[0], 9, "anti"), [9, 9, 1, 1])


@pytest.mark.parametrize("rule", RULES)
def test_a_tie_is_backdoored(rule):
    badnet, repaired = np.array([3]), np.array([[3], [4]])
    np.testing.assert_array_equal(goodnet_labels(badnet, repaired, 9, rule), [9])
