"""Which arrays of a file are its images and its labels."""

import pytest

from jaxdefend import InputError
from jaxdefend.datasets.parts import chosen


@pytest.mark.parametrize(
    "keys, found",
    [
        ("data label", ("data", "label")),
        ("x y data label", ("data", "label")),
        ("X y", ("X", "y")),
        ("x_train y_train x_test y_test", ("x_test", "y_test")),
        ("images labels names", ("images", "labels")),
        ("data x y", ("x", "y")),
    ],
)
def test_the_first_pair_is_taken(keys, found):
    assert chosen(set(keys.split()), "a", True) == found


def test_labels_are_not_looked_for_where_they_are_not_wanted():
    assert chosen({"data", "x", "y"}, "a", False) == ("data", None)
    with pytest.raises(InputError, match=r"a: no `label` for the images in `data`.*target="):
        chosen({"data", "other"}, "a", True)
    with pytest.raises(InputError, match=r"a: no `data`, expected .* holds nothing"):
        chosen(set(), "a", True)
    with pytest.raises(InputError) as raised:
        chosen({"k" * 100_000}, "a", True)
    assert len(str(raised.value)) < 300
