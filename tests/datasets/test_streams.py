"""Arrays that lie one number after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend import InputError
from jaxdefend.datasets.streams import MAX_ARRAY_BYTES, Stream, beside

VALUES = np.arange(120, dtype=np.int16).reshape(10, 4, 3)


def stream(path, offset=7, order="C", shape=VALUES.shape):
    path.write_bytes(b"x" * offset + VALUES.tobytes(order=order))
    return Stream("it", lambda: open(path, "rb"), offset, VALUES.dtype, shape, order == "F")


@settings(max_examples=50, deadline=None)
@given(first=st.integers(0, 9), last=st.integers(1, 10), step=st.integers(1, 4), order=st.sampled_from("CF"))
def test_rows_are_rows_of_the_whole(tmp_path_factory, first, last, step, order):
    found = stream(tmp_path_factory.mktemp("stream") / "a", order=order)
    rows = range(first, max(first + 1, last), step)
    np.testing.assert_array_equal(found.whole(), VALUES)
    for given_rows, values in found.rows([rows, range(9, 10)]):
        np.testing.assert_array_equal(values, VALUES[given_rows.start : given_rows.stop : given_rows.step])


def test_what_ends_too_early_or_is_too_large_is_an_input_error(tmp_path):
    longer = stream(tmp_path / "a", shape=(11, 4, 3))
    with pytest.raises(InputError, match=r"it is .* ends too early"):
        longer.whole()
    with pytest.raises(InputError, match="ends too early"):
        list(longer.rows([range(11)]))
    with pytest.raises(InputError, match="ends after 240"):
        longer.check_size(247)
    with pytest.raises(InputError, match="at once"):
        stream(tmp_path / "a", shape=(MAX_ARRAY_BYTES, 4, 3)).whole()
    (tmp_path / "a").unlink()
    with pytest.raises(InputError, match="it cannot be read"):
        longer.whole()


def test_the_file_beside(tmp_path):
    for name in ("x_x.npy", "x_y.npy"):
        (tmp_path / name).touch()
    assert beside(tmp_path / "x_x.npy", [("z", "a"), ("x", "y")]) == tmp_path / "x_y.npy"
    assert beside(tmp_path / "x_y.npy", [("x", "z")]) is None
