"""Sets written and read again."""

import numpy as np
import pytest
from helpers import random_pixels

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images
from jaxdefend.datasets.official import Block, write_official, write_pictures

LABELS = np.array([3, 1, 4, 1, 5], np.int32)


def blocks(size=2):
    pixels, landmarks = random_pixels(5), np.zeros((5, 11, 2), np.float32)
    return [Block(pixels[i : i + size], LABELS[i : i + size], landmarks[i : i + size]) for i in range(0, 5, size)]


def test_official_files_are_read_back(tmp_path):
    write_official(tmp_path / "set.h5", 5, blocks())
    images = open_images([tmp_path / "set.h5"])
    np.testing.assert_array_equal(images[:], random_pixels(5))
    np.testing.assert_array_equal(images.labels, LABELS)


def test_pictures_are_read_back(tmp_path):
    write_pictures(tmp_path / "set", blocks())
    images = open_images([tmp_path / "set"])
    order = np.argsort([int(name.rsplit("_", 1)[1].split(".")[0]) for name in images.names])
    np.testing.assert_array_equal(images[:][order], random_pixels(5))
    np.testing.assert_array_equal(images.labels[order], LABELS)


@pytest.mark.parametrize(
    "write", [lambda path: write_official(path, 5, blocks()), lambda path: write_pictures(path, blocks())]
)
def test_a_place_that_cannot_be_written(tmp_path, write):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / "file" / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_other_shapes_are_written_too(tmp_path):
    grey = random_pixels(5)[:, :28, :28, :1]
    write_official(tmp_path / "set.h5", 5, [Block(grey, LABELS, np.zeros((5, 11, 2), np.float32))])
    images = open_images(tmp_path / "set.h5")
    assert images.shape == (28, 28, 1)
    np.testing.assert_array_equal(images[:], grey)
    write_pictures(tmp_path / "set", [Block(grey, LABELS, np.zeros((5, 11, 2), np.float32))])
    pictures = open_images(tmp_path / "set", shape=(28, 28, 1))
    assert sorted(map(bytes, pictures)) == sorted(map(bytes, grey)) and pictures.notes == ()
