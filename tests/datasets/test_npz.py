"""NumPy's .npz files."""

import zipfile

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
NAMES = [("x", "y"), ("x_test", "y_test"), ("images", "labels"), ("data", "label"), ("arr_0", "arr_1"), ("X", "Y")]


@pytest.mark.parametrize("images, labels", NAMES)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_pair_of_names(tmp_path, images, labels, save):
    save(tmp_path / "a.npz", **{images: PIXELS, labels: LABELS})
    opened = open_images(tmp_path / "a.npz")
    np.testing.assert_array_equal(opened[:], PIXELS)
    np.testing.assert_array_equal(opened.labels, LABELS)
    assert opened.names[3] == f"{tmp_path / 'a.npz'}[3]" and opened.notes == ()


def test_test_images_are_taken_where_there_are_others(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=PIXELS[:3], y_train=LABELS[:3], x_test=PIXELS, y_test=LABELS)
    assert len(open_images(tmp_path / "a.npz")) == 12
    np.savez(tmp_path / "b.npz", x_train=PIXELS[:3], y_train=LABELS[:3])
    assert len(open_images(tmp_path / "b.npz")) == 3


@settings(max_examples=30, deadline=None)
@given(rows=st.slices(12), save=st.sampled_from([np.savez, np.savez_compressed]), grey=st.booleans())
def test_a_slice_is_the_slice_of_the_whole(tmp_path_factory, rows, save, grey):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    save(path, x=PIXELS[..., 0] if grey else np.moveaxis(PIXELS, -1, 1).astype(np.float32))
    expected = PIXELS[..., :1] if grey else PIXELS
    np.testing.assert_array_equal(open_images(path, labelled=False)[rows], expected[rows])


def test_one_hot_labels_with_a_note(tmp_path):
    np.savez(tmp_path / "a.npz", x=PIXELS, y=np.eye(5)[LABELS])
    images = open_images(tmp_path / "a.npz")
    np.testing.assert_array_equal(images.labels, LABELS)
    assert "one-hot" in images.notes[0]


def test_the_name_does_not_matter(tmp_path):
    np.savez(tmp_path / "a.npz", x=PIXELS)
    path = (tmp_path / "a.npz").rename(tmp_path / "a.h5")
    np.testing.assert_array_equal(open_images(path, target=0)[:], PIXELS)


def write(**arrays):
    return lambda path: np.savez(path, **arrays)


def cut_off(path):
    np.savez(path, x=PIXELS, y=LABELS)
    path.write_bytes(path.read_bytes()[:-300])


def damaged(path):
    np.savez_compressed(path, x=PIXELS, y=LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + bytes(2000) + whole[7000:])


def packed_otherwise(path):
    np.save(path.with_name("x.npy"), PIXELS)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.write(path.with_name("x.npy"), "x.npy")
        archive.write(path.with_name("x.npy"), "y.npy")


def not_numpy(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"hello, this is text")
        archive.writestr("y.npy", b"hello, this is text")


BAD = {
    "objects": (write(x=np.array([{}, 3], dtype=object), y=[1, 2]), "pickle"),
    "objects for labels": (write(x=PIXELS, y=np.array([None] * 12)), "pickle"),
    "other names": (write(a=PIXELS, b=LABELS), "the file holds a, b"),
    "no labels": (write(x=PIXELS, z=LABELS), "no `y`"),
    "lengths": (write(x=PIXELS, y=LABELS[:5]), "(5,), expected (12,)"),
    "shape": (write(x=PIXELS[0, 0], y=[0]), "(47, 3)"),
    "divided": (write(x=PIXELS / 255, y=LABELS), "multiply by 255"),
    "cut off": (cut_off, "complete"),
    "damaged": (damaged, "complete"),
    "packed otherwise": (packed_otherwise, "savez_compressed"),
    "not NumPy": (not_numpy, "not a NumPy array"),
}


@pytest.mark.parametrize("make, says", BAD.values(), ids=BAD.keys())
def test_bad_npz_is_an_input_error_with_its_name(tmp_path, make, says):
    make(tmp_path / "a.npz")
    with pytest.raises(InputError) as raised:
        open_images(tmp_path / "a.npz", shape=SHAPE)[:]
    message = str(raised.value)
    assert "a.npz" in message and says in message and message.isprintable()


def test_damaged_archives_are_input_errors_or_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=PIXELS[:2] // 64, y=LABELS[:2])
    whole = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice([*range(300), *range(len(whole) - 700, len(whole))], 300):
        changed = bytearray(whole)
        changed[place] = rng.integers(256)
        (tmp_path / "a.npz").write_bytes(changed)
        try:
            open_images(tmp_path / "a.npz")[:]
        except InputError as error:
            assert "a.npz" in str(error) and len(str(error)) <= 500
