"""Axes, values and other shapes of pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxdefend import InputError
from jaxdefend.datasets.pixels import checked, fitted, layout


@pytest.mark.parametrize(
    "shape, images, axes",
    [
        ((9, 3, 55, 47), (55, 47, 3), "nchw"),
        ((9, 1, 28, 28), (28, 28, 1), "nchw"),
        ((9, 55, 47, 3), (55, 47, 3), "nhwc"),
        ((9, 28, 28, 1), (28, 28, 1), "nhwc"),
        ((9, 28, 28), (28, 28, 1), "nhw"),
        ((9, 3, 55, 3), (55, 3, 3), "nchw"),
    ],
)
def test_the_axes_of_an_array(shape, images, axes):
    found = layout(shape, "a")
    assert (found.n, found.shape, found.axes) == (9, images, axes)
    assert found.images(np.zeros(shape, np.uint8)).shape == (9, *images)


@pytest.mark.parametrize(
    "shape", [(), (9,), (9, 784), (9, 4, 5, 5), (0, 3, 5, 5), (9, 3, 0, 5), (9, 3, 70_000, 1), (2,) * 40]
)
def test_what_is_no_array_of_images_is_an_input_error(shape):
    with pytest.raises(InputError, match=r"^a") as raised:
        layout(shape, "a")
    assert len(str(raised.value)) < 300


@given(st.lists(st.floats(0, 255), min_size=1, max_size=8))
def test_whole_numbers_become_bytes_and_others_float32(values):
    array = np.asarray(values).reshape(-1, 1, 1, 1)
    whole = (array == np.floor(array)).all()
    if array.max() <= 1 and (array.max() == 1 or not whole):
        with pytest.raises(InputError, match="multiply by 255"):
            checked(array, range(len(array)), "a")
        return
    pixels = checked(array, range(len(array)), "a")
    assert pixels.dtype == (np.uint8 if whole else np.float32)
    np.testing.assert_array_equal(pixels, array.astype(np.float32))


@settings(deadline=None)
@given(
    height=st.integers(3, 40),
    width=st.integers(3, 40),
    channels=st.sampled_from([1, 3]),
    shape=st.tuples(st.integers(3, 40), st.integers(3, 40), st.sampled_from([1, 3])),
    seed=st.integers(0, 99),
)
def test_another_shape_is_what_pillow_makes(height, width, channels, shape, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (2, height, width, channels), dtype=np.uint8)
    expected = []
    for image in pixels:
        picture = Image.fromarray(image if channels == 3 else image[..., 0]).convert("RGB" if shape[2] == 3 else "L")
        expected.append(np.asarray(picture.resize(shape[1::-1], Image.Resampling.BILINEAR)).reshape(shape))
    np.testing.assert_array_equal(fitted(pixels, shape), np.stack(expected))
    np.testing.assert_array_equal(fitted(pixels.astype(np.float32), shape), np.stack(expected))
    assert fitted(pixels[:0], shape).shape == (0, *shape)


def test_grey_as_rgb_and_back_is_the_same():
    grey = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(fitted(fitted(grey, (16, 16, 3)), (16, 16, 1)), grey)
