"""What processes say to each other comes back as it was, and is never code."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxdefend.nets.messages import packed, unpacked

NUMBERS = arrays.arrays(st.sampled_from([np.float32, np.int32, np.uint8, np.float64]), arrays.array_shapes(max_side=4))
SAID = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text() | st.floats(allow_nan=False) | NUMBERS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)


def same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            same(*pair)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other and type(one) is type(other)


@given(SAID)
def test_it_comes_back_as_it_was(value):
    same(value, unpacked(packed(value)))


def test_tuples_and_numbers():
    found = unpacked(packed((1, {"a": np.int32(3)}, np.array(2.5))))
    assert found == [1, {"a": 3}, 2.5] and found[1]["a"].dtype == np.int32


def test_code_is_neither_said_nor_heard():
    for code in (print, np.array([print], object)):
        with pytest.raises(TypeError, match="processes say JSON and arrays of numbers"):
            packed([code])
    with pytest.raises(TypeError, match=r"a key \$array"):
        packed([{"$array": 1}])
    with pytest.raises(ValueError):
        unpacked(pickle.dumps([1]))
