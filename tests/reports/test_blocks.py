"""Cells and pictures of a page."""

import base64
import io

import numpy as np
from PIL import Image

from jaxdefend.reports.blocks import Cell, Table, cell, rows, uri
from jaxdefend.results.rates import Rate


def test_cells():
    assert cell(None) == Cell("–")
    assert cell(1234) == Cell("1,234", 1234.0)
    assert cell(True).text == "yes"
    assert cell(float("nan")).sort is None
    assert cell("a\x1b[31m").text == "a\\x1b[31m"
    found = cell(Rate(1, 2))
    assert found.sort == 0.5 and "1 of 2" in found.tip


def test_columns_of_numbers():
    assert Table("", ["a", "b"], rows([["x", None], ["y", 2]])).numeric == [False, True]


def read(text):
    head, _, data = text.partition(",")
    return head, Image.open(io.BytesIO(base64.b64decode(data)))


def test_pictures_keep_their_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    head, image = read(uri(pixels))
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(image), pixels)
    np.testing.assert_array_equal(np.asarray(read(uri(pixels[..., :1]))[1]), pixels[..., 0])


def test_large_photos_become_small():
    pixels = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
    head, image = read(uri(pixels))
    assert head == "data:image/jpeg;base64" and max(image.size) == 160
    assert read(uri(pixels, is_photo=False))[1].size == (300, 400)
