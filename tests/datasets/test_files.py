"""Sets of images out of files of every kind: slices, chunks, single images, other shapes, paths."""

import os

import h5py
import helpers
import numpy as np
import pytest
from helpers_data import SHAPE, fill, shrunk, write_hdf5
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images

PIXELS = helpers.random_pixels(80)
LABELS = np.arange(80) % 11


def labels_of(*paths, **options) -> list[int]:
    labels = open_images(paths, **options).labels
    assert labels is not None
    return labels.tolist()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """An official file of 80 rows (more than one piece), a folder of three pictures, and another official file."""
    folder = tmp_path_factory.mktemp("mixed")
    pictures = folder / "pictures"
    pictures.mkdir()
    for index in range(3):
        Image.fromarray(PIXELS[index]).save(pictures / f"test_{index}_{index}.png")
    paths = [
        helpers.write_official(folder / "a.h5", PIXELS, LABELS),
        pictures,
        helpers.write_official(folder / "b.h5", PIXELS[:5], LABELS[:5], "float32"),
    ]
    return paths, np.concatenate([PIXELS, PIXELS[:3], PIXELS[:5]]), np.concatenate([LABELS, LABELS[:3], LABELS[:5]])


@settings(max_examples=60, deadline=None)
@given(rows=st.slices(88))
def test_a_slice_is_the_slice_of_the_whole(mixed, rows):
    paths, pixels, _ = mixed
    np.testing.assert_array_equal(open_images(paths)[rows], pixels[rows])


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 100))
def test_chunks_are_the_whole_in_order(mixed, size):
    paths, pixels, labels = mixed
    images = open_images(paths)
    chunks = list(images.chunks(size))
    assert {len(chunk) for chunk, _ in chunks[:-1]} <= {size}
    np.testing.assert_array_equal(np.concatenate([chunk for chunk, _ in chunks]), pixels)
    np.testing.assert_array_equal(np.concatenate([chunk for _, chunk in chunks if chunk is not None]), labels)
    np.testing.assert_array_equal(images.labels, labels)


@settings(max_examples=20, deadline=None)
@given(order=st.lists(st.integers(0, 2), min_size=1, max_size=4))
def test_paths_are_concatenated_in_the_order_given(mixed, order):
    paths = [mixed[0][index] for index in order]
    images, parts = open_images(paths), [open_images([path]) for path in paths]
    np.testing.assert_array_equal(images[:], np.concatenate([part[:] for part in parts]))
    assert list(images.names) == [name for part in parts for name in part.names]


def test_target_and_unlabelled_look_at_no_label(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", data=PIXELS[:4])
    assert open_images([path], labelled=False).labels is None
    assert [labels for _, labels in open_images([path], labelled=False).chunks(3)] == [None, None]
    assert labels_of(path, target=7) == [7] * 4
    broken = write_hdf5(tmp_path / "b.h5", data=PIXELS[:4], label=np.full(4, np.nan))
    assert labels_of(path, broken, target=0) == [0] * 8


@pytest.mark.parametrize("path", ["", "\0", "x" * 5000, "nowhere/a.png", "\udcff.h5"])
def test_impossible_paths_are_input_errors(path):
    with pytest.raises(InputError) as raised:
        open_images([path])
    assert str(raised.value).isprintable()


def test_no_paths_unknown_sources_and_impossible_targets_are_input_errors(tmp_path):
    path = helpers.write_official(tmp_path / "a.h5", PIXELS[:2], LABELS[:2])
    with pytest.raises(InputError, match="no images given"):
        open_images([])
    for source in ["name", "names:0", "names:x", "names:", ""]:
        with pytest.raises(InputError, match="auto, csv, folders, names"):
            open_images([path], labels=source)
    for target in [-1, 11]:
        with pytest.raises(InputError, match=f"target: label is {target}, expected a whole number in 0…10"):
            open_images([path], target=target, classes=11)


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    [
        *["clean", "lab_clean", "lab_poisoned", "sunglasses_poisoned"],
        *[f"multi_{trigger}_poisoned" for trigger in ("eyebrows", "lipstick", "sunglasses")],
    ],
)
def test_real_pictures_are_rows_of_the_official_file(name):
    rows = open_images([helpers.real(f"data/{name}.h5")], classes=1283)
    pictures = open_images([helpers.real(f"images/{name}")], classes=1283)
    assert rows[:].dtype == np.uint8 and rows.notes == () and pictures.notes == ()
    assert rows.labels is not None and pictures.labels is not None
    known = {image.tobytes(): label for image, label in zip(rows[:], rows.labels.tolist(), strict=True)}
    assert [known.get(image.tobytes()) for image in pictures[:]] == pictures.labels.tolist()


@pytest.mark.parametrize("kind", [str, lambda path: path, lambda path: [str(path)], lambda path: (path,)])
def test_a_path_is_one_path_whatever_its_type(tmp_path, kind):
    images = open_images(kind(helpers.write_official(tmp_path / "a.h5", PIXELS, LABELS)))
    np.testing.assert_array_equal(images[:], PIXELS)


@settings(max_examples=30, deadline=None)
@given(row=st.integers(-100, 100))
def test_a_number_gives_one_image(mixed, row):
    paths, pixels, _ = mixed
    images = open_images(paths)
    if -len(pixels) <= row < len(pixels):
        np.testing.assert_array_equal(images[row], pixels[row])
    else:
        with pytest.raises(IndexError):
            images[row]


def test_images_are_gone_through_any_number_of_times(mixed):
    paths, pixels, _ = mixed
    images = open_images(paths)
    for _ in range(2):
        np.testing.assert_array_equal(np.stack(list(images)), pixels)
    assert len(images) == len(pixels) and images.shape == SHAPE


def test_what_a_notebook_shows(mixed):
    paths, _, _ = mixed
    assert repr(open_images(paths[0])) == f"<Images: 80 images, 55×47×3, labels 0…10 (11 classes), {paths[0]}>"
    assert repr(open_images(paths, labelled=False)).endswith(f"unlabelled, {paths[0]} and 2 more>")
    assert "label 4" in repr(open_images(paths, target=4))


def test_the_first_image_says_the_shape_and_others_are_fitted_to_it(tmp_path):
    small = np.random.default_rng(1).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    first = write_hdf5(tmp_path / "small.h5", data=small, label=[0, 1])
    second = helpers.write_official(tmp_path / "a.h5", PIXELS[:2], LABELS[:2])
    images = open_images([first, second])
    assert images.shape == (20, 30, 3)
    np.testing.assert_array_equal(images[:], np.concatenate([small, shrunk(PIXELS[:2], (20, 30))]))
    assert len(images.notes) == 1 and "a.h5" in images.notes[0] and "20×30" in images.notes[0]


@pytest.mark.parametrize("shape", [(55, 47, 3), (55, 47, 1), (28, 28, 1), (60, 50, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_fitted_images_are_read_again_at_the_other_shape(tmp_path, shape, channels):
    pixels = PIXELS[:3, ..., :channels]
    path = write_hdf5(tmp_path / "a.h5", data=pixels, label=[0, 1, 2])
    images = open_images(path)
    fitted = images.fitted(shape)
    assert fitted.shape == shape and images.shape == (55, 47, channels)
    expected = []
    for image in pixels:
        picture = Image.fromarray(image if channels == 3 else image[..., 0])
        picture = picture.convert("RGB" if shape[2] == 3 else "L").resize(shape[1::-1], Image.Resampling.BILINEAR)
        expected.append(np.asarray(picture).reshape(shape))
    np.testing.assert_array_equal(fitted[:], np.stack(expected))
    np.testing.assert_array_equal(fitted.labels, images.labels)
    np.testing.assert_array_equal(fitted.fitted(images.shape)[:], pixels)
    assert len(fitted.notes) == (shape[:2] != (55, 47)) + (shape[2] != channels)
    assert open_images(path, shape=shape).notes == fitted.notes


def test_pictures_are_read_in_grey_with_a_note(tmp_path):
    fill(tmp_path, PIXELS, "test_1_1.png", "test_1_2.png")
    Image.fromarray(PIXELS[2, ..., 0]).save(tmp_path / "test_1_3.png")
    images = open_images(tmp_path, shape=(55, 47, 1))
    grey = [np.asarray(Image.fromarray(image).convert("L")) for image in PIXELS[:2]]
    np.testing.assert_array_equal(images[:][..., 0], [*grey, PIXELS[2, ..., 0]])
    assert images.notes == (f"{tmp_path}: 2 of 3 images are in colour and will be converted to grey",)


def test_values_that_are_not_whole_stay_so_as_rgb(tmp_path):
    data = PIXELS[:2, ..., :1] / 2
    images = open_images(write_hdf5(tmp_path / "a.h5", data=data, label=[0, 0]), shape=SHAPE)
    np.testing.assert_array_equal(images[:], np.repeat(data, 3, axis=-1).astype(np.float32))


@pytest.mark.parametrize("shape", [(0, 47, 3), (55, -1, 3), (55, 47, 2), (70_000, 1, 3), (60_000, 60_000, 3)])
def test_impossible_shapes_are_input_errors(tmp_path, shape):
    path = helpers.write_official(tmp_path / "a.h5", PIXELS[:2], LABELS[:2])
    with pytest.raises(InputError, match="shape"):
        open_images(path, shape=shape)


def test_images_are_not_blown_up_to_nothing(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", data=np.zeros((2, 3, 2, 2), np.uint8), label=[0, 0])
    assert open_images(path).shape == (2, 2, 3)
    with pytest.raises(InputError, match=r"a\.h5: images are 2×2, too small for 55×47"):
        open_images(path).fitted(SHAPE)


def test_rows_and_columns_exchanged_are_noticed(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", data=PIXELS[:2].transpose(0, 2, 1, 3), label=[0, 0])
    assert "rows and columns" in open_images(path, shape=SHAPE).notes[0]


def test_patterns_are_expanded_in_order(tmp_path):
    fill(tmp_path, PIXELS, "test_1_2.png", "test_1_10.png", "test_1_9.png")
    images = open_images(str(tmp_path / "*.png"), target=0)
    assert [os.path.basename(name) for name in images.names] == ["test_1_2.png", "test_1_9.png", "test_1_10.png"]
    with pytest.raises(InputError, match=r"\*\.jpg: no file matches"):
        open_images(tmp_path / "*.jpg")
    fill(tmp_path, PIXELS, "[a]_3_1.png")
    assert labels_of(tmp_path / "[a]_3_1.png") == [3]  # a file that is called like a pattern


def test_names_are_a_sequence(mixed):
    paths, _, _ = mixed
    names = open_images(paths).names
    whole = list(names)
    assert len(whole) == len(names) == 88 and names[80:83] == whole[80:83] and names[-1] == whole[-1] == names[87]
    assert whole[0] == f"{paths[0]}[0]" and whole[80].endswith("test_0_0.png")


def test_a_target_of_many_digits_is_an_input_error(tmp_path):
    path = helpers.write_official(tmp_path / "a.h5", PIXELS[:2], LABELS[:2])
    for target in (2**40, 10**4000):
        with pytest.raises(InputError, match="target") as raised:
            open_images(path, target=target)
        assert len(str(raised.value)) <= 500


def test_messages_stay_short(tmp_path):
    long = tmp_path / ("d" * 200)
    long.mkdir()
    for name in ("e" * 200 + ".png", "f" * 240 + ".h5"):
        (long / name).write_text("hello")
        with pytest.raises(InputError) as raised:
            open_images(long / name)
        assert len(str(raised.value)) <= 500
    with h5py.File(long / "a.h5", "w") as file:
        file["k" * 5000] = [1]
    with pytest.raises(InputError) as raised:
        open_images(long / "a.h5")
    assert len(str(raised.value)) <= 500


def test_paths_may_come_one_by_one(tmp_path):
    fill(tmp_path, PIXELS, "test_1_1.png", "test_2_2.png")
    assert labels_of(*tmp_path.glob("*.png")) and len(open_images(tmp_path.glob("*.png"))) == 2
