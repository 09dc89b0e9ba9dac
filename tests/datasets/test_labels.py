"""Labels in arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxdefend import InputError
from jaxdefend.datasets.images import Numbered
from jaxdefend.datasets.labels import check_labels, whole_labels


def told(values, n, classes=None):
    return whole_labels(np.asarray(values), n, "labels", Numbered("image ", n), classes)


@given(labels=st.lists(st.integers(0, 1000), min_size=1, max_size=30), kind=st.sampled_from("iuf"))
def test_every_form_tells_the_same(labels, kind):
    values = np.asarray(labels).astype(f"{kind}8")
    n = len(labels)
    for form in (values, values[:, None], values[None]):
        found, note = told(form, n)
        assert found.tolist() == labels and found.dtype == np.int32 and note is None
    found, note = told(np.eye(1001)[values.astype(int)], n)
    assert found.tolist() == labels and note is not None and "one-hot" in note


@given(values=arrays.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4))), n=st.integers(1, 4))
def test_two_axes_are_labels_or_an_input_error(values, n):
    try:
        found, _ = told(values, n)
    except InputError as error:
        assert str(error).isprintable()
        return
    assert found.shape == (n,) and (found >= 0).all()


@pytest.mark.parametrize(
    "values, says",
    [
        ([0, 1], r"\(2,\), expected \(3,\)"),
        ([0, 1, np.nan], "image 2: label is nan"),
        ([0, 1.5, 2], "image 1: label is 1.5"),
        ([-1, 0, 1], "image 0: label is -1"),
        ([0, 1, 11], "expected a whole number in 0…10"),
        ([[0.5, 0.5]] * 3, r"\(3, 2\)"),
        ([[1, 1, 0]] * 3, r"\(3, 3\)"),
        (5, r"\(\)"),
        (["a", "b", "c"], "expected whole numbers"),
    ],
)
def test_what_is_no_label_is_an_input_error(values, says):
    with pytest.raises(InputError, match=says):
        told(values, 3, classes=11)


def test_enormous_labels_are_input_errors():
    with pytest.raises(InputError, match="label is"):
        check_labels([2**63], ["target"], None)
