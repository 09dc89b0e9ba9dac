"""HDF5 files: types, layouts, packing, labels, limits, memory, damage."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import helpers
import numpy as np
import pytest
from helpers_data import SHAPE, shrunk
from helpers_data import write_hdf5 as write

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images

PIXELS = helpers.random_pixels(80)
LABELS = np.arange(80) % 11


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint8", "int16", "uint64", ">f4"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_official_file_comes_back_whatever_its_type_and_layout(tmp_path, dtype, channels_last):
    data = PIXELS if channels_last else np.moveaxis(PIXELS, -1, 1)
    path = write(tmp_path / "a.h5", data=data.astype(dtype), label=LABELS.astype(dtype))
    images = open_images([path], classes=11)
    assert len(images) == 80 and images.notes == ()
    assert images[:].dtype == np.uint8
    np.testing.assert_array_equal(images[:], PIXELS)
    assert images.labels is not None and images.labels.dtype == np.int32
    np.testing.assert_array_equal(images.labels, LABELS)
    assert images.names[3] == f"{path}[3]" and len(images.names) == 80


def test_values_that_are_not_whole_stay_float32_and_only_where_they_are(tmp_path):
    data = PIXELS.astype(np.float64)
    data[70] += 0.25 * (data[70] < 255)
    images = open_images([write(tmp_path / "a.h5", data=data, label=LABELS)])
    assert images[:70].dtype == np.uint8 and images[60:].dtype == np.float32 and images[:].dtype == np.float32
    np.testing.assert_array_equal(images[:], data.astype(np.float32))


def test_channels_come_first_if_both_could_be(tmp_path):
    data = helpers.random_pixels(2)[:, :, :3].transpose(0, 3, 1, 2)  # (2, 3, 55, 3)
    path = write(tmp_path / "a.h5", data=data, label=LABELS[:2])
    assert open_images(path).shape == (55, 3, 3)
    images = open_images([path], shape=SHAPE)
    np.testing.assert_array_equal(images[:], shrunk(np.moveaxis(data, 1, -1)))


@pytest.mark.parametrize("channels_last", [False, True])
def test_another_size_is_resized_as_pillow_does_with_a_note(tmp_path, channels_last):
    large = np.random.default_rng(1).integers(0, 256, (4, 70, 60, 3), dtype=np.uint8)
    data = large if channels_last else np.moveaxis(large, -1, 1)
    images = open_images([write(tmp_path / "a.h5", data=data.astype(np.float32), label=LABELS[:4])], shape=SHAPE)
    np.testing.assert_array_equal(images[:], shrunk(large))
    assert len(images.notes) == 1 and "70×60" in images.notes[0] and "a.h5" in images.notes[0]


def test_files_are_known_by_their_content_and_never_left_open(tmp_path):
    path = helpers.write_official(tmp_path / "faces.data", PIXELS, LABELS)
    images = open_images([path])
    next(images.chunks(8))
    with h5py.File(path, "a") as file:  # neither locked nor held
        assert set(file) == {"data", "label"}
    handles = [os.path.realpath(link) for link in Path("/proc/self/fd").glob("*")] if os.name == "posix" else []
    assert str(path) not in handles


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_pass_over_a_large_file_needs_little_memory(tmp_path):
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (1000, 3, 55, 47), "float64")  # 62 MB
        for start in range(0, 1000, 80):
            data[start : start + 80] = np.moveaxis(PIXELS, -1, 1)[: 1000 - start]
        file["label"] = np.zeros(1000)
    program = """
import re, sys
from jaxdefend.datasets.files import open_images
def peak():  # getrusage would count the parent's memory from before the exec
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
images = open_images(sys.argv[1:])
before = peak()
assert sum(int(pixels.shape[0]) for pixels, _ in images.chunks(500)) == 1000
streamed = peak()
assert images[:].shape == (1000, 55, 47, 3)
print(streamed - before, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    streamed, whole = (int(kilobytes) / 1024 for kilobytes in done.stdout.split())
    assert streamed < 25 and whole < 30  # MB; 500 images are 3.9 as uint8, a piece of float64 with its copies 10


def changed(index, value):
    data = np.moveaxis(PIXELS, -1, 1).astype(np.float64)
    data[index] = value
    return data


GOOD = np.moveaxis(PIXELS, -1, 1)[:6].astype(np.float32)


def truncated(path):
    helpers.write_official(path, PIXELS, LABELS)
    path.write_bytes(path.read_bytes()[:-5000])


def soft_link(path):
    write(path, hidden=GOOD, label=LABELS[:6])
    with h5py.File(path, "a") as file:
        file["data"] = h5py.SoftLink("/hidden")


def dangling_link(path):
    write(path, label=LABELS[:6])
    with h5py.File(path, "a") as file:
        file["data"] = h5py.SoftLink("/nowhere")


def external_link(path):
    helpers.write_official(path.with_name("other.h5"), PIXELS, LABELS)
    write(path, label=LABELS)
    with h5py.File(path, "a") as file:
        file["data"] = h5py.ExternalLink("other.h5", "/data")


def external_storage(path):
    path.with_name("raw").write_bytes(GOOD.tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("data", GOOD.shape, "float32", external=[(path.with_name("raw"), 0, GOOD.nbytes)])
        file["label"] = LABELS[:6]


def virtual(path):
    other = helpers.write_official(path.with_name("other.h5"), PIXELS, LABELS)
    layout = h5py.VirtualLayout((80, 3, 55, 47), "float64")
    layout[:] = h5py.VirtualSource(other, "data", (80, 3, 55, 47))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout)
        file["label"] = LABELS


def huge_and_empty(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (10**9, 3, 55, 47), "float64", chunks=(1, 3, 55, 47))
        file.create_dataset("label", (10**9,), "float64", chunks=(1000,))


def group_for_array(path):
    with h5py.File(path, "w") as file:
        file.create_group("data")
        file["label"] = LABELS


BAD_FILES = {
    "not HDF5": (lambda path: path.write_text("hello"), "not an HDF5 file"),
    "empty": (lambda path: path.touch(), "empty"),
    "missing": (lambda path: None, "No such file"),
    "folder": (lambda path: path.mkdir(), "no images"),
    "pipe": (lambda path: os.mkfifo(path), "neither a file"),
    "truncated": (truncated, "complete"),
    "only a signature": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "complete"),
    "no keys": (lambda path: write(path), "nothing"),
    "no data": (lambda path: write(path, faces=GOOD, label=LABELS[:6]), "faces, label"),
    "no label": (lambda path: write(path, data=GOOD), "no `label`"),
    "group for an array": (group_for_array, "not an array"),
    "rank": (lambda path: write(path, data=GOOD[0], label=LABELS[:6]), "(3, 55, 47)"),
    "scalar": (lambda path: write(path, data=1.0, label=1.0), "()"),
    "null": (lambda path: write(path, data=h5py.Empty("f"), label=1.0), "expected an array"),
    "channels": (lambda path: write(path, data=GOOD[:, :2], label=LABELS[:6]), "(6, 2, 55, 47)"),
    "no pixels": (lambda path: write(path, data=GOOD[:, :, :0], label=LABELS[:6]), "0×47"),
    "lengths": (lambda path: write(path, data=GOOD, label=LABELS[:5]), "(5,), expected (6,)"),
    "label rank": (lambda path: write(path, data=GOOD, label=np.ones((6, 6))), "(6, 6), expected (6,)"),
    "two labels": (lambda path: write(path, data=GOOD, label=np.eye(6) + np.eye(6)[::-1]), "(6, 6), expected (6,)"),
    "a net": (lambda path: write(path, model_weights=GOOD), "a net"),
    "zero images": (lambda path: write(path, data=GOOD[:0], label=LABELS[:0]), "at least one"),
    "label not whole": (lambda path: write(path, data=GOOD, label=[0, 1, 2.5, 0, 0, 0]), "[2]: label is 2.5"),
    "label NaN": (lambda path: write(path, data=GOOD, label=[0, np.nan, 2, 0, 0, 0]), "[1]: label is nan"),
    "label infinite": (lambda path: write(path, data=GOOD, label=[0, np.inf, 2, 0, 0, 0]), "label is inf"),
    "label negative": (lambda path: write(path, data=GOOD, label=[0, 0, 0, 0, 0, -1]), "[5]: label is -1"),
    "label too large": (lambda path: write(path, data=GOOD, label=[0, 11, 0, 0, 0, 0]), "0…10"),
    "label enormous": (
        lambda path: write(path, data=GOOD, label=np.array([2**63] + [0] * 5, np.uint64)),
        "9223372036854775808",
    ),
    "text": (lambda path: write(path, data=np.full((6, 3, 55, 47), b"a"), label=LABELS[:6]), "expected an array"),
    "complex": (lambda path: write(path, data=GOOD.astype(complex), label=LABELS[:6]), "complex"),
    "label text": (lambda path: write(path, data=GOOD, label=[b"1"] * 6), "expected an array"),
    "soft link": (soft_link, "another place"),
    "dangling link": (dangling_link, "another place"),
    "external link": (external_link, "another place"),
    "external storage": (external_storage, "another place"),
    "virtual": (virtual, "another place"),
    "huge and empty": (huge_and_empty, "never filled in"),
    "pixel NaN": (lambda path: write(path, data=changed((71, 1, 2, 3), np.nan), label=LABELS), "[71]: a pixel is nan"),
    "pixel infinite": (lambda path: write(path, data=changed((0, 0, 0, 0), np.inf), label=LABELS), "a pixel is inf"),
    "pixel negative": (lambda path: write(path, data=changed((3, 0, 0, 0), -1), label=LABELS), "[3]: a pixel is -1"),
    "pixel 256": (lambda path: write(path, data=changed((9, 0, 0, 0), 256), label=LABELS), "[9]: a pixel is 256"),
    "pixel int": (lambda path: write(path, data=GOOD.astype(int) * 99, label=LABELS[:6]), "expected 0…255"),
    "divided": (lambda path: write(path, data=GOOD / 255, label=LABELS[:6]), "multiply by 255"),
}


@pytest.mark.parametrize("make, says", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_official_file_is_an_input_error_with_its_name(tmp_path, make, says):
    path = tmp_path / "bad.h5"
    make(path)
    with pytest.raises(InputError) as raised:
        open_images([path], classes=11, shape=SHAPE)[:]
    message = str(raised.value)
    assert "bad.h5" in message and says in message and "\n" not in message


def test_damaged_official_files_are_input_errors_or_read(tmp_path):
    path = helpers.write_official(tmp_path / "a.h5", PIXELS[:2], LABELS[:2], "uint8")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice([*range(2200), *range(len(whole) - 2200, len(whole))], 300):
        damaged = bytearray(whole)
        damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            open_images([path])[:]
        except InputError as error:
            assert "a.h5" in str(error)


def test_a_file_that_changes_in_use_is_an_input_error(tmp_path):
    path = helpers.write_official(tmp_path / "a.h5", PIXELS, LABELS)
    images = open_images([path])
    helpers.write_official(path, PIXELS[:5], LABELS[:5])
    with pytest.raises(InputError, match="changed"):
        images[:]
    path.unlink()
    with pytest.raises(InputError, match=r"a\.h5"):
        images[:]


@pytest.mark.parametrize("images, labels", [("x", "y"), ("X", "Y"), ("images", "labels"), ("x_test", "y_test")])
def test_other_names_are_read(tmp_path, images, labels):
    opened = open_images(write(tmp_path / "a.h5", **{images: PIXELS, labels: LABELS}))
    np.testing.assert_array_equal(opened[:], PIXELS)
    np.testing.assert_array_equal(opened.labels, LABELS)


def test_grey_images_without_an_axis_for_it(tmp_path):
    grey = PIXELS[..., 0]
    for data in (grey, grey[..., None], grey[:, None]):
        images = open_images(write(tmp_path / "a.h5", data=data, label=LABELS))
        assert images.shape == (55, 47, 1) and images.notes == ()
        np.testing.assert_array_equal(images[:], grey[..., None])
        coloured = open_images(tmp_path / "a.h5", shape=SHAPE)
        np.testing.assert_array_equal(coloured[:], np.repeat(grey[..., None], 3, axis=-1))
        assert len(coloured.notes) == 1 and "grey" in coloured.notes[0]


@pytest.mark.parametrize("shape", [(80, 1), (1, 80)])
def test_labels_in_two_axes(tmp_path, shape):
    images = open_images(write(tmp_path / "a.h5", data=PIXELS, label=LABELS.reshape(shape)))
    assert images.notes == ()
    np.testing.assert_array_equal(images.labels, LABELS)


@pytest.mark.parametrize("dtype", [bool, "uint8", "float32"])
def test_one_hot_labels_with_a_note(tmp_path, dtype):
    images = open_images(write(tmp_path / "a.h5", data=PIXELS, label=np.eye(11)[LABELS].astype(dtype)), classes=11)
    np.testing.assert_array_equal(images.labels, LABELS)
    assert len(images.notes) == 1 and "one-hot" in images.notes[0] and "a.h5" in images.notes[0]
