"""Images in memory, and whatever is taken where images are expected."""

import helpers
import numpy as np
import pytest
from helpers_data import SHAPE, shrunk
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images
from jaxdefend.datasets.images import ArrayImages, ImageSet, Numbered, as_images, cut, labelled

PIXELS = helpers.random_pixels(10)
LABELS = np.arange(10, dtype=np.int32) % 3


@settings(deadline=None)
@given(size=st.integers(1, 12), rows=st.tuples(st.integers(0, 10), st.integers(0, 12)))
def test_chunks_are_the_rows_in_order(size, rows):
    chosen = slice(*rows)
    chunks = list(ArrayImages(PIXELS, LABELS).chunks(size, chosen))
    assert all(len(pixels) == size for pixels, _ in chunks[:-1])
    np.testing.assert_array_equal(np.concatenate([PIXELS[:0], *(pixels for pixels, _ in chunks)]), PIXELS[chosen])
    np.testing.assert_array_equal(np.concatenate([LABELS[:0], *(labels for _, labels in chunks)]), LABELS[chosen])


@given(n=st.integers(0, 50), size=st.integers(1, 60), first=st.integers(-60, 60), last=st.integers(-60, 60))
def test_cut_covers_the_rows_once(n, size, first, last):
    pieces = cut(n, size, slice(first, last))
    assert [row for piece in pieces for row in range(n)[piece]] == list(range(n)[first:last])
    assert all(0 < piece.stop - piece.start <= size for piece in pieces)


def test_an_array_is_read_like_a_file(tmp_path):
    images = ArrayImages(PIXELS, LABELS)
    assert isinstance(images, ImageSet) and images.shape == SHAPE and len(images) == 10
    assert isinstance(open_images(helpers.write_official(tmp_path / "a.h5", PIXELS, LABELS)), ImageSet)
    np.testing.assert_array_equal(images[3], PIXELS[3])
    np.testing.assert_array_equal(images[-2:], PIXELS[-2:])
    for _ in range(2):
        np.testing.assert_array_equal(np.stack(list(images)), PIXELS)
    assert list(images.names) == [f"image {row}" for row in range(10)]
    assert repr(images) == "<ArrayImages: 10 images, 55×47×3, labels 0…2 (3 classes)>"
    assert repr(ArrayImages(PIXELS[:1])) == "<ArrayImages: 1 image, 55×47×3, unlabelled>"
    assert [labels for _, labels in ArrayImages(PIXELS).chunks(4)] == [None] * 3


def test_names_are_made_when_asked_for():
    names = Numbered("a[", 10**9, "]")
    assert len(names) == 10**9 and names[-1] == "a[999999999]" and names[3:5] == ["a[3]", "a[4]"]
    with pytest.raises(IndexError):
        names[10**9]


SAME = {
    "array": lambda: PIXELS,
    "floats": lambda: PIXELS.astype(np.float64),
    "list": lambda: list(PIXELS),
    "channels first": lambda: np.moveaxis(PIXELS, -1, 1),
    "pair": lambda: (PIXELS, LABELS),
    "pair with a list": lambda: (PIXELS, LABELS.tolist()),
    "pair without labels": lambda: (PIXELS, None),
    "pair of one column": lambda: (PIXELS, LABELS[:, None]),
    "one-hot": lambda: (PIXELS, np.eye(3)[LABELS]),
    "set": lambda: ArrayImages(PIXELS, LABELS),
    "set and labels": lambda: (ArrayImages(PIXELS), LABELS),
}


@pytest.mark.parametrize("make", SAME.values(), ids=SAME.keys())
@pytest.mark.parametrize("shape", [None, SHAPE])
def test_what_is_taken_as_images(make, shape):
    images = as_images(make(), shape)
    assert images.shape == SHAPE and images[:].dtype == np.uint8
    np.testing.assert_array_equal(images[:], PIXELS)
    if images.labels is not None:
        np.testing.assert_array_equal(images.labels, LABELS)
        assert labelled(images) is images


def test_a_set_of_images_is_taken_as_it_is(tmp_path):
    images = open_images(helpers.write_official(tmp_path / "a.h5", PIXELS, LABELS))
    assert as_images(images) is images and as_images(images, SHAPE) is images
    assert as_images(images, (28, 28, 1)).shape == (28, 28, 1)


def test_one_image_and_grey_images():
    np.testing.assert_array_equal(as_images(PIXELS[0])[:], PIXELS[:1])
    grey = PIXELS[..., 0]
    for shape in (None, (55, 47, 1)):
        np.testing.assert_array_equal(as_images(grey, shape)[:], grey[..., None])
    np.testing.assert_array_equal(as_images(grey, SHAPE)[:], np.repeat(grey[..., None], 3, axis=-1))
    narrow = grey[:, :, :3]  # looks like one image of three channels, unless the net says otherwise
    np.testing.assert_array_equal(as_images(narrow, (55, 3, 1))[:], narrow[..., None])
    assert len(as_images(narrow)) == 1


def test_other_shapes_are_fitted_as_files_are():
    large = np.random.default_rng(1).integers(0, 256, (4, 70, 60, 3), dtype=np.uint8)
    images = as_images((large, [1, 2, 3, 4]), SHAPE)
    np.testing.assert_array_equal(images[:], shrunk(large))
    np.testing.assert_array_equal(images.labels, [1, 2, 3, 4])


def test_values_that_are_not_whole_stay_float32():
    values = PIXELS / np.float64(2)
    assert as_images(values)[:].dtype == np.float32
    np.testing.assert_array_equal(as_images(values)[:], values.astype(np.float32))


BAD = {
    "empty": (lambda: PIXELS[:0], "no images"),
    "empty list": (lambda: [], "no|expected"),
    "empty set": (lambda: ArrayImages(PIXELS[:0]), "no images"),
    "generator": (lambda: (image for image in PIXELS), "read once only"),
    "iterator": (lambda: iter([PIXELS]), "read once only"),
    "map": (lambda: map(np.asarray, PIXELS), "read once only"),
    "path": (lambda: "clean.h5", "open_images"),
    "not a number": (lambda: np.where(PIXELS[4, 3, 2, 1] == PIXELS, np.nan, PIXELS), r"images\[\d\]: a pixel is nan"),
    "negative": (lambda: PIXELS.astype(int) - 300, "expected 0…255"),
    "too large": (lambda: PIXELS.astype(int) + 300, "expected 0…255"),
    "divided": (lambda: PIXELS / 255, "multiply by 255"),
    "text": (lambda: np.array(["a"]), "expected numbers"),
    "objects": (lambda: np.array([None]), "array of numbers"),
    "several shapes": (lambda: [PIXELS[0], PIXELS[0, 1:]], "one shape"),
    "two axes": (lambda: PIXELS[0, ..., 0], r"\(55, 47\)"),
    "four channels": (lambda: np.zeros((2, 5, 5, 4)), r"\(2, 5, 5, 4\)"),
    "labels of another length": (lambda: (PIXELS, LABELS[:9]), r"\(9,\), expected \(10,\)"),
    "labels not whole": (lambda: (PIXELS, LABELS + 0.5), "image 0: label is 0.5"),
    "labels negative": (lambda: (PIXELS, LABELS - 1), "label is -1"),
    "labels of text": (lambda: (PIXELS, ["a"] * 10), "expected whole numbers"),
    "a number": (lambda: 5, r"\(\)"),
    "too small": (lambda: PIXELS[:, :2, :2], "too small"),
}


@pytest.mark.parametrize("make, says", BAD.values(), ids=BAD.keys())
def test_what_is_not_taken_is_an_input_error(make, says):
    with pytest.raises(InputError, match=says) as raised:
        as_images(make(), SHAPE)
    assert "\n" not in str(raised.value) and len(str(raised.value)) <= 500


def test_labels_can_be_required():
    with pytest.raises(InputError, match="held-out images: no labels"):
        labelled(ArrayImages(PIXELS), "held-out images")
