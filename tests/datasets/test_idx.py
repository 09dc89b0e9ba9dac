"""IDX files, as MNIST comes in."""

import gzip
import struct

import helpers
import numpy as np
import pytest
from helpers_data import write_idx
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
LABELS = np.arange(30) % 10
NAMES = [
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
    ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"),
    ("train-images.idx3-ubyte", "train-labels.idx1-ubyte.gz"),
    ("emnist-images", "emnist-labels"),
]


@pytest.mark.parametrize("images, labels", NAMES)
def test_images_are_read_with_the_labels_beside_them(tmp_path, images, labels):
    write_idx(tmp_path / images, PIXELS)
    write_idx(tmp_path / labels, LABELS)
    opened = open_images(tmp_path / images)
    assert opened.shape == (28, 28, 1) and opened.notes == ()
    np.testing.assert_array_equal(opened[:], PIXELS[..., None])
    np.testing.assert_array_equal(opened.labels, LABELS)
    assert len(open_images(sorted(tmp_path.iterdir()))) == 30


@settings(max_examples=40, deadline=None)
@given(rows=st.slices(30), packed=st.booleans())
def test_a_slice_is_the_slice_of_the_whole(tmp_path_factory, rows, packed):
    path = write_idx(tmp_path_factory.mktemp("idx") / ("a-images.gz" if packed else "a-images"), PIXELS)
    np.testing.assert_array_equal(open_images(path, labelled=False)[rows], PIXELS[rows, ..., None])


def test_colour_and_other_numbers(tmp_path):
    colour = np.stack([PIXELS] * 3, axis=-1)
    np.testing.assert_array_equal(open_images(write_idx(tmp_path / "a", colour), target=1)[:], colour)
    floats = struct.pack(">BBBBIII", 0, 0, 0x0D, 3, 2, 28, 28) + PIXELS[:2].astype(">f4").tobytes()
    (tmp_path / "b").write_bytes(floats)
    np.testing.assert_array_equal(open_images(tmp_path / "b", target=1)[:], PIXELS[:2, ..., None])


def test_what_is_no_set_of_images_is_an_input_error(tmp_path):
    labels = write_idx(tmp_path / "a-labels", LABELS)
    with pytest.raises(InputError, match="holds labels"):
        open_images(labels)
    images = write_idx(tmp_path / "b-images", PIXELS)
    with pytest.raises(InputError, match=r"b-images: no labels.*target="):
        open_images(images)
    write_idx(tmp_path / "b-labels", LABELS[:7])
    with pytest.raises(InputError, match=r"b-labels is \(7,\), expected \(30,\)"):
        open_images(images)
    (tmp_path / "b-labels").write_bytes(b"no labels")
    with pytest.raises(InputError, match="b-labels is not an IDX file"):
        open_images(images)
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"b-images.*complete"):
        open_images(images, target=0)
    images.write_bytes(images.read_bytes()[:9])
    with pytest.raises(InputError, match="b-images ends in its header"):
        open_images(images, target=0)


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_files_are_input_errors_or_read(tmp_path, packed):
    write_idx(tmp_path / "a-labels", LABELS[:4])
    content = write_idx(tmp_path / "a-images", PIXELS[:4]).read_bytes()
    whole = gzip.compress(content) if packed else content
    rng = np.random.default_rng(0)
    for place in rng.integers(0, 40, 200):
        damaged = bytearray(whole)
        damaged[place] = rng.integers(256)
        (tmp_path / "a-images").write_bytes(damaged)
        try:
            open_images(tmp_path / "a-images")[:]
        except InputError as error:
            assert "a-" in str(error) and len(str(error)) <= 500


@pytest.mark.real
def test_the_real_digits():
    images = open_images(helpers.real("other/mnist_t10k-images-idx3-ubyte.gz"), classes=10)
    assert len(images) == 10_000 and images.shape == (28, 28, 1) and images.labels is not None
    assert images.labels[:5].tolist() == [7, 2, 1, 0, 4] and abs(images[:].mean() - 33.79) < 0.01
