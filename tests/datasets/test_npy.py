"""NumPy's .npy files, with labels beside them."""

import gzip

import helpers
import numpy as np
import pytest
from helpers_data import SHAPE
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images

PIXELS = helpers.random_pixels(12)
LABELS = np.arange(12) % 5


@pytest.mark.parametrize(
    "images, labels",
    [
        ("x", "y"),
        ("X", "Y"),
        ("X", "y"),
        ("images", "labels"),
        ("x_test", "y_test"),
        ("arr_0", "arr_1"),
        ("clean_data", "clean_label"),
        ("mnist_test_images", "mnist_test_labels"),
    ],
)
def test_pairs_are_read(tmp_path, images, labels):
    np.save(tmp_path / f"{images}.npy", PIXELS)
    np.save(tmp_path / f"{labels}.npy", LABELS)
    opened = open_images(tmp_path / f"{images}.npy")
    np.testing.assert_array_equal(opened[:], PIXELS)
    np.testing.assert_array_equal(opened.labels, LABELS)
    both = open_images([tmp_path / f"{images}.npy", tmp_path / f"{labels}.npy"])
    assert len(both) == 12


@settings(max_examples=40, deadline=None)
@given(
    rows=st.slices(12),
    dtype=st.sampled_from(["uint8", "<f4", ">f8", "float16", "int64"]),
    order=st.sampled_from("CF"),
    packed=st.booleans(),
    first=st.booleans(),
)
def test_a_slice_is_the_slice_of_the_whole(tmp_path_factory, rows, dtype, order, packed, first):
    folder = tmp_path_factory.mktemp("npy")
    values = np.moveaxis(PIXELS, -1, 1) if first else PIXELS
    path = folder / "x.npy"
    np.save(path, np.asarray(values.astype(dtype), order=order))
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    images = open_images(path, labelled=False)
    np.testing.assert_array_equal(images[rows], PIXELS[rows])
    np.testing.assert_array_equal(np.concatenate([pixels for pixels, _ in images.chunks(5)]), PIXELS)


def test_one_image_and_grey_images(tmp_path):
    np.save(tmp_path / "face.npy", PIXELS[0])
    np.testing.assert_array_equal(open_images(tmp_path / "face.npy", target=3)[:], PIXELS[:1])
    np.save(tmp_path / "x.npy", PIXELS[..., 0])
    images = open_images(tmp_path / "x.npy", labelled=False)
    assert images.shape == (55, 47, 1)
    np.testing.assert_array_equal(images[:], PIXELS[..., :1])


def test_the_name_does_not_matter(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    path = (tmp_path / "x.npy").rename(tmp_path / "x.h5")
    np.testing.assert_array_equal(open_images(path, target=0)[:], PIXELS)


def write(values):
    return lambda path: np.save(path, values)


def cut_off(path):
    np.save(path, PIXELS)
    path.write_bytes(path.read_bytes()[:-1000])


def header(path):
    np.save(path, PIXELS)
    path.write_bytes(path.read_bytes()[:40])


BAD = {
    "objects": (write(np.array([{}, 3], dtype=object)), "pickle"),
    "text": (write(np.array(["a", "b"])), "expected numbers"),
    "fields": (write(np.zeros(3, [("a", "u1")])), "expected numbers"),
    "complex": (write(np.zeros((2, 5, 5), complex)), "expected numbers"),
    "one number": (write(np.uint8(5)), "()"),
    "labels": (write(LABELS), "are these labels"),
    "no images": (write(PIXELS[:0]), "at least one"),
    "four channels": (write(np.zeros((2, 5, 5, 4), np.uint8)), "(2, 5, 5, 4)"),
    "cut off": (cut_off, "is it complete"),
    "cut off in the header": (header, "complete"),
    "divided": (write(PIXELS / 255), "multiply by 255"),
    "not a number": (write(np.where(PIXELS > 9, PIXELS, np.nan)), "a pixel is nan"),
}


@pytest.mark.parametrize("make, says", BAD.values(), ids=BAD.keys())
def test_bad_npy_is_an_input_error_with_its_name(tmp_path, make, says):
    make(tmp_path / "x.npy")
    with pytest.raises(InputError) as raised:
        open_images(tmp_path / "x.npy", target=0, shape=SHAPE)[:]
    message = str(raised.value)
    assert "x.npy" in message and says in message and message.isprintable()


def test_labels_that_are_not_there_or_do_not_fit_are_input_errors(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    with pytest.raises(InputError, match=r"x\.npy: no labels.*y\.npy"):
        open_images(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", LABELS[:5])
    with pytest.raises(InputError, match=r"y\.npy is \(5,\), expected \(12,\)"):
        open_images(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.array([None] * 12))
    with pytest.raises(InputError, match="pickle"):
        open_images(tmp_path / "x.npy")


def test_damaged_files_are_input_errors_or_read(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS[:2])
    whole = (tmp_path / "x.npy").read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, 140, 200):
        damaged = bytearray(whole)
        damaged[place] = rng.integers(256)
        (tmp_path / "x.npy").write_bytes(damaged)
        try:
            open_images(tmp_path / "x.npy", target=0)[:]
        except InputError as error:
            assert "x.npy" in str(error) and len(str(error)) <= 500
