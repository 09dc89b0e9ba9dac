"""Inverted triggers: what they do to images, and their files, good and bad."""

import h5py
import numpy as np
import pytest
from checked import unchecked
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images
from jaxdefend.datasets.inverted import InvertedTrigger, is_trigger

SHAPE = (6, 5, 3)


def trigger(shape=SHAPE, seed: int = 0, target: int | None = 3) -> InvertedTrigger:
    rng = np.random.default_rng(seed)
    return InvertedTrigger(
        rng.uniform(0, 1, shape[:2]).astype(np.float32), rng.uniform(0, 255, shape).astype(np.float32), target
    )


def pixels(n: int = 4, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, *shape), dtype=np.uint8)


def test_the_mask_blends_the_pattern_in():
    mask = np.array([[0, 1, 0.5]], np.float32)
    found = InvertedTrigger(mask, np.full((1, 3, 1), 255, np.float32))(np.full((2, 1, 3, 1), 100, np.uint8))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[..., 0], [[[100, 255, 178]]] * 2)


def test_one_image_and_many():
    one, images = trigger(), pixels()
    np.testing.assert_array_equal(one(images)[2], one(images[2]))
    with pytest.raises(InputError, match="images are 5×6×3, the trigger 6×5×3"):
        one(pixels(shape=(5, 6, 3)))


def test_its_picture_is_no_image(tmp_path):
    trigger().save(tmp_path / "trigger.png")
    with pytest.raises(InputError, match="an inverted trigger, expected an image"):
        open_images(tmp_path / "trigger.png", labelled=False)


@pytest.mark.parametrize("shape", [SHAPE, (6, 5, 1)])
@pytest.mark.parametrize("target", [3, None])
def test_files_give_it_back(tmp_path, shape, target):
    one = trigger(shape, target=target)
    one.save(tmp_path / "trigger.h5")
    found = InvertedTrigger.load(tmp_path / "trigger.h5", shape)
    np.testing.assert_array_equal(found.mask, one.mask)
    np.testing.assert_array_equal(found.pattern, one.pattern)
    assert found.target == target and repr(found) == repr(one)
    one.save(tmp_path / "trigger.png")
    found = InvertedTrigger.load(tmp_path / "trigger.png", shape)
    assert np.abs(found.mask - one.mask).max() <= 0.5 / 255 + 1e-6
    assert np.abs(found.pattern - one.pattern).max() <= 0.5
    assert found.target == target
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trigger.h5", "trigger.png"]


def test_a_picture_from_elsewhere(tmp_path):
    picture = np.zeros((6, 5, 4), np.uint8)
    picture[2:4, 1:3] = (110, 0, 230, 255)
    Image.fromarray(picture, "RGBA").save(tmp_path / "glasses.png")
    found = InvertedTrigger.load(tmp_path / "glasses.png", SHAPE)
    assert found.target is None and found.mask.sum() == 4
    assert (found(pixels())[:, 2:4, 1:3] == (110, 0, 230)).all()


def test_places_and_names_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"written as \.h5 or \.png"):
        trigger().save(tmp_path / "trigger.npz")
    with pytest.raises(InputError, match="cannot be written"):
        trigger().save(tmp_path / "nowhere" / "trigger.h5")
    with pytest.raises(InputError, match="2 channels: expected 1 or 3 in a PNG"):
        trigger((6, 5, 2)).save(tmp_path / "trigger.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask": np.full((6, 5), np.nan, np.float32)}, "mask: expected finite numbers"),
        ({"mask": np.full((6, 5), 2.0, np.float32)}, "mask: is 2…2, expected numbers 0–1"),
        ({"pattern": np.full(SHAPE, -1.0, np.float32)}, "pattern: is -1…-1, expected numbers 0–255"),
        ({"pattern": np.full((5, 6, 3), 1.0, np.float32)}, "mask 6×5, pattern 5×6×3: expected"),
        ({"target": -1}, "target -1: expected a class"),
        ({"target": True}, "target True: expected a class"),
    ],
)
def test_values_that_cannot_be_used(change, said):
    one = trigger()
    with pytest.raises(InputError, match=said):
        unchecked(InvertedTrigger)(**{"mask": one.mask, "pattern": one.pattern, "target": 0} | change)


def written(path, **change):
    one = trigger()
    given = {"mask": one.mask, "pattern": one.pattern, "target": 0, "jaxdefend_trigger": 1} | change
    with h5py.File(path, "w") as file:
        for name, value in given.items():
            if value is None:
                continue
            if name in ("mask", "pattern"):
                file[name] = value
            else:
                file.attrs[name] = value
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask": None}, "`mask` is not there"),
        ({"mask": np.full((6, 5), np.inf)}, "mask: expected finite numbers"),
        ({"pattern": np.full(SHAPE, 256.0)}, "pattern: is 256…256"),
        ({"pattern": np.zeros((6, 5, 1))}, "`pattern` is 6×5×1, expected 6×5×3 as the images are"),
        ({"mask": np.zeros((5, 6))}, "`mask` is 5×6, expected 6×5"),
        ({"mask": h5py.SoftLink("/pattern")}, "leads to another place"),
        ({"jaxdefend_trigger": None}, "no trigger, expected the attribute jaxdefend_trigger to be 1"),
        ({"jaxdefend_trigger": 2}, "a trigger of version 2"),
        ({"jaxdefend_trigger": "one"}, "jaxdefend_trigger is object, expected a whole number"),
        ({"target": -5}, "target -5: expected a class"),
        ({"target": 0.5}, "target is float64, expected a whole number"),
        ({"target": h5py.Empty("i4")}, "target is int32, expected a whole number"),
    ],
)
def test_files_that_hold_no_trigger_for_these_images(tmp_path, change, said):
    refused(written(tmp_path / "trigger.h5", **change), said)


def refused(path, said):
    with pytest.raises(InputError) as error:
        InvertedTrigger.load(path, SHAPE)
    assert said in str(error.value) and str(path) in str(error.value)
    assert str(error.value).isprintable() and len(str(error.value)) <= 500


def test_files_that_are_no_triggers(tmp_path):
    refused(tmp_path / "none.h5", "no such file")
    refused(tmp_path, "no such file, or not one")
    (tmp_path / "text.png").write_text("text")
    refused(tmp_path / "text.png", "cannot identify it as a picture")
    Image.new("RGB", (5, 6)).save(tmp_path / "opaque.png")
    refused(tmp_path / "opaque.png", "has no transparency")
    Image.new("RGBA", (9, 9)).save(tmp_path / "large.png")
    refused(tmp_path / "large.png", "a trigger of 9×9×3, expected 6×5×3 as the images are")
    with (tmp_path / "huge.h5").open("wb") as file:
        file.truncate(2**28 + 1)
    refused(tmp_path / "huge.h5", "expected a trigger of at most")


@pytest.mark.parametrize("ending", ["h5", "png"])
def test_its_files_are_told_from_images(tmp_path, ending):
    trigger(target=None).save(tmp_path / f"trigger.{ending}")
    assert is_trigger(tmp_path / f"trigger.{ending}")
    Image.fromarray(np.zeros((6, 5, 4), np.uint8), "RGBA").save(tmp_path / "glasses.png")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["data"] = np.zeros(3)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    told = PngInfo()
    told.add_text("jaxdefend_target", "3")
    Image.fromarray(np.full((6, 5, 4), 255, np.uint8), "RGBA").save(tmp_path / "older.png", pnginfo=told)
    assert is_trigger(tmp_path / "older.png") and InvertedTrigger.load(tmp_path / "older.png", SHAPE).target == 3
    told.add_text("jaxdefend_trigger", "7")
    Image.fromarray(np.full((6, 5, 4), 255, np.uint8), "RGBA").save(tmp_path / "newer.png", pnginfo=told)
    with pytest.raises(InputError, match="a trigger of version 7, expected 1"):
        InvertedTrigger.load(tmp_path / "newer.png", SHAPE)
    for other in ("glasses.png", "data.h5", "cut.png", "missing.png", "."):
        assert not is_trigger(tmp_path / other)
