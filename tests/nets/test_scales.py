import numpy as np
import pytest

from jaxdefend import InputError
from jaxdefend.nets.scales import NAMED, check_scale, scaled

PIXELS = np.arange(2 * 3 * 2 * 3, dtype=np.uint8).reshape(2, 3, 2, 3) * 7


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("raw", lambda x: x),
        ("unit", lambda x: x / 255),
        ("symmetric", lambda x: x / 127.5 - 1),
        ("127.5/127.5", lambda x: x / 127.5 - 1),
        ("0.5/0.5", lambda x: x / 127.5 - 1),
        ("103.9,116.8,123.7/1", lambda x: x - np.array([103.9, 116.8, 123.7])),
        ("0.4,0.5,0.6/0.2,0.3,0.4", lambda x: (x / 255 - np.array([0.4, 0.5, 0.6])) / np.array([0.2, 0.3, 0.4])),
    ],
)
def test_pixels_on_every_scale(scale, expected):
    assert check_scale(scale, 3) == scale
    found = scaled(PIXELS, scale)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(PIXELS.astype(float)), rtol=1e-4, atol=1e-5)


def test_the_named_scales():
    assert NAMED == ("raw", "unit", "symmetric")


@pytest.mark.parametrize(
    "scale", ["cm", "", "1,2", "1/2/3", "a/b", "1/0", "1/-2", "nan/1", "1/inf", "1,2/1,2", "9" * 5000]
)
def test_scales_that_are_none(scale):
    with pytest.raises(InputError, match="input scale") as error:
        check_scale(scale, 3)
    assert len(str(error.value)) < 300


def test_an_unknown_scale_is_an_error_not_a_guess():
    with pytest.raises(InputError, match="not known: choose raw"):
        scaled(PIXELS, None)
