"""Clean images with an inverted trigger on: which of them, read how, and what is refused."""

import numpy as np
import pytest
from checked import unchecked
from hypothesis import given
from hypothesis import strategies as st

from jaxdefend import InputError
from jaxdefend.datasets.images import ArrayImages, ImageSet
from jaxdefend.datasets.inverted import InvertedTrigger
from jaxdefend.datasets.triggered import with_trigger

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (9, 6, 5, 3), dtype=np.uint8)
LABELS = np.array([3, 1, 3, 0, 2, 3, 1, 0, 3], np.int32)
CLEAN = ArrayImages(PIXELS, LABELS)
TRIGGER = InvertedTrigger(
    rng.uniform(0, 1, (6, 5)).astype(np.float32), rng.uniform(0, 255, (6, 5, 3)).astype(np.float32), 3
)


def test_the_images_of_other_classes():
    found = with_trigger(TRIGGER, CLEAN)
    assert isinstance(found, ImageSet)
    assert found.rows.tolist() == [1, 3, 4, 6, 7] and found.true_labels.tolist() == [1, 0, 2, 1, 0]
    assert found.labels.tolist() == [3] * 5
    np.testing.assert_array_equal(found[:], TRIGGER(PIXELS[LABELS != 3]))
    np.testing.assert_array_equal(found[-1], TRIGGER(PIXELS[7]))
    assert found.names[1] == "image 3 with the trigger"
    assert "5 images, 6×5×3, label 3" in repr(found)


@given(st.slices(5), st.integers(1, 6))
def test_slices_and_chunks_are_those_of_the_whole(rows, size):
    found = with_trigger(TRIGGER, CLEAN)
    np.testing.assert_array_equal(found[rows], found[:][rows])
    chunks = [pixels for pixels, _ in found.chunks(size)]
    np.testing.assert_array_equal(np.concatenate(chunks), found[:])


def test_another_target_and_no_labels():
    assert with_trigger(TRIGGER, CLEAN, target=0).rows.tolist() == [0, 1, 2, 4, 5, 6, 8]
    unlabelled = with_trigger(TRIGGER, ArrayImages(PIXELS))
    assert len(unlabelled) == 9 and unlabelled.true_labels is None


def test_what_is_refused():
    with pytest.raises(InputError, match="give the target"):
        with_trigger(InvertedTrigger(TRIGGER.mask, TRIGGER.pattern), CLEAN)
    with pytest.raises(InputError, match="all 4 images show the target 3"):
        with_trigger(TRIGGER, ArrayImages(PIXELS[LABELS == 3], LABELS[LABELS == 3]))
    for target in (1.0, "1", True, 2**31, -1):
        with pytest.raises(InputError, match="expected a class"):
            unchecked(with_trigger)(TRIGGER, CLEAN, target)
    with pytest.raises(InputError, match="expected an InvertedTrigger"):
        unchecked(with_trigger)("trigger.h5", CLEAN)


def test_images_in_any_form():
    expected = with_trigger(TRIGGER, CLEAN)[:]
    np.testing.assert_array_equal(with_trigger(TRIGGER, (PIXELS, LABELS))[:], expected)
    np.testing.assert_array_equal(with_trigger(TRIGGER, PIXELS)[:], TRIGGER(PIXELS))
    np.testing.assert_array_equal(with_trigger(TRIGGER, PIXELS[0])[:], TRIGGER(PIXELS[:1]))
    assert with_trigger(TRIGGER, PIXELS[:, :4])[:].shape == PIXELS.shape
