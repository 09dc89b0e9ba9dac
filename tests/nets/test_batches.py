import numpy as np
import pytest

from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets.batches import BATCH, PADDING, batches, padded, sampled
from jaxdefend.results.progress import Progress

PIXELS = np.random.default_rng(0).integers(0, 256, (37, 5, 4, 3), dtype=np.uint8)
IMAGES = ArrayImages(PIXELS, np.arange(37))


@pytest.mark.parametrize("size", [1, 8, 37, 64])
def test_all_images_in_batches_of_one_size(size):
    found = list(padded(IMAGES, size))
    assert {pixels.shape for pixels, _ in found} == {(size, 5, 4, 3)}
    labels = np.concatenate([labels for _, labels in found])
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels[labels >= 0], np.arange(37))
    np.testing.assert_array_equal(np.concatenate([pixels for pixels, _ in found])[labels >= 0], PIXELS)
    assert not found[-1][0][found[-1][1] == PADDING].any()


def test_consecutive_rows():
    found = np.concatenate([labels for _, labels in padded(IMAGES, 4, slice(3, 12))])
    np.testing.assert_array_equal(found[found >= 0], np.arange(3, 12))


def test_images_without_labels_get_label_0():
    ((_, labels),) = padded(ArrayImages(PIXELS), 64)
    np.testing.assert_array_equal(labels[:37], 0)
    assert (labels[37:] == PADDING).all()


@pytest.mark.parametrize("limit", [1, 5, 36, 37, 100])
def test_evenly_spread_images(limit):
    labels = np.concatenate([labels for _, labels in sampled(IMAGES, limit, 8)])
    found = labels[labels >= 0]
    assert 0 < len(found) <= limit
    assert len(set(np.diff(found))) <= 1
    for pixels, own in sampled(IMAGES, limit, 8):
        np.testing.assert_array_equal(pixels[own >= 0], PIXELS[own[own >= 0]])


def test_progress_is_reported():
    heard: list[Progress] = []
    (_, labels), *more = batches(IMAGES, "clean", heard.append)
    assert not more and len(labels) == BATCH
    assert heard == [Progress("clean", 37, 37)]
