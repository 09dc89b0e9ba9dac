"""Which images of a folder are taken, in which order, with which labels, through open_images."""

import os
import tempfile
from pathlib import Path

import helpers
import numpy as np
import pytest
from helpers_data import fill as filled

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images

FACES = helpers.random_pixels(8)


def fill(folder: Path, *names: str) -> Path:
    return filled(folder, FACES, *names)


def labels_of(*paths, **options) -> list[int]:
    labels = open_images(paths, **options).labels
    assert labels is not None
    return labels.tolist()


def opened(folder: Path, **options):
    images = open_images([folder], **options)
    labels = None if images.labels is None else images.labels.tolist()
    return [os.path.relpath(name, folder) for name in images.names], labels, images


def test_labels_from_names_sorted_by_number(tmp_path):
    names, labels, images = opened(fill(tmp_path, "test_10_2.png", "test_9_10.png", "test_9_9.png", "test_9_09.png"))
    assert names == ["test_9_09.png", "test_9_9.png", "test_9_10.png", "test_10_2.png"]
    assert labels == [9, 9, 9, 10]
    np.testing.assert_array_equal(images[:], FACES[[3, 2, 1, 0]])


def test_labels_from_class_subfolders(tmp_path):
    fill(tmp_path, "10/a.png", "2/b.png", "2/a.JPG", ".hidden/5/c.png", "2/.c.png")
    for name in ("notes.txt", ".DS_Store", "2/Thumbs.db"):
        (tmp_path / name).write_text("no image")
    assert opened(tmp_path)[:2] == (["2/a.JPG", "2/b.png", "10/a.png"], [2, 2, 10])
    assert labels_of(tmp_path / "10" / "a.png", labels="folders") == [10]


def test_the_source_can_be_chosen_and_overridden(tmp_path):
    fill(tmp_path, "1/test_5_6.png", "2/test_7_8.png")
    (tmp_path / "labels.csv").write_text("2/test_7_8.png,9\n")
    assert opened(tmp_path)[1] == [9]
    assert opened(tmp_path, labels="csv")[1] == [9]
    assert opened(tmp_path, labels="folders")[1] == [1, 2]
    assert opened(tmp_path, labels="names")[1] == [5, 7]
    assert opened(tmp_path, labels="names:2")[1] == [6, 8]
    assert opened(tmp_path, target=4)[1] == [4, 4]
    assert opened(tmp_path, labelled=False)[1] is None and len(opened(tmp_path, labelled=False)[0]) == 2


def test_unlabelled_folders_need_no_labels(tmp_path):
    fill(tmp_path, "b.png", "a/deep/x.png", "a/c.png")
    assert opened(tmp_path, labelled=False)[:2] == (["a/c.png", "a/deep/x.png", "b.png"], None)
    assert opened(tmp_path, target=0)[1] == [0, 0, 0]


def test_links_to_files_are_followed(tmp_path):
    fill(tmp_path / "there", "face.png")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "test_6_1.png").symlink_to(tmp_path / "there" / "face.png")
    _, labels, images = opened(tmp_path / "here")
    assert labels == [6]
    np.testing.assert_array_equal(images[:], FACES[:1])


BAD_FOLDERS = {
    "no images": (lambda folder: (folder / "a.txt").touch(), "auto", "no images"),
    "only HEIC": (lambda folder: (folder / "a.heic").touch(), "auto", "1 HEIC); expected files ending in .bmp"),
    "data files": (lambda folder: [(folder / f"{name}.h5").touch() for name in "ba"], "auto", "a.h5, b.h5"),
    "mixed": (lambda folder: fill(folder, "1/a.png", "test_1_1.png"), "auto", "test_1_1.png"),
    "too deep": (lambda folder: fill(folder, "x/1/a.png"), "auto", "a.png"),
    "class not a number": (lambda folder: fill(folder, "alice/a.png"), "auto", "'alice'"),
    "class negative": (lambda folder: fill(folder, "-1/a.png"), "auto", "label is -1"),
    "class too large": (lambda folder: fill(folder, "11/a.png"), "auto", "expected a whole number in 0…10"),
    "name too large": (lambda folder: fill(folder, "test_99999999999_1.png"), "auto", "99999999999"),
    "no csv": (lambda folder: fill(folder, "test_1_1.png"), "csv", "labels.csv"),
    "no subfolders": (lambda folder: fill(folder, "test_1_1.png"), "folders", "test_1_1.png"),
    "link to nowhere": (lambda folder: (folder / "test_1_1.png").symlink_to("gone"), "auto", "test_1_1.png"),
    "link to itself": (lambda folder: (folder / "test_1_1.png").symlink_to("test_1_1.png"), "auto", "test_1_1.png"),
    "pipe": (lambda folder: os.mkfifo(folder / "test_1_1.png"), "auto", "test_1_1.png"),
}


@pytest.mark.parametrize("make, source, says", BAD_FOLDERS.values(), ids=BAD_FOLDERS.keys())
def test_bad_folder_is_an_input_error_with_its_name(tmp_path, make, source, says):
    make(tmp_path)
    with pytest.raises(InputError) as raised:
        open_images([tmp_path], labels=source, classes=11)
    message = str(raised.value)
    assert str(tmp_path) in message and says in message and "\n" not in message


def test_a_single_picture_has_no_csv(tmp_path):
    with pytest.raises(InputError, match=r"test_1_1\.png.*labels\.csv"):
        open_images([fill(tmp_path, "test_1_1.png") / "test_1_1.png"], labels="csv")


@pytest.fixture
def forbidden():
    """A folder with an unreadable picture, official file, csv and folder, seen by a user who is not root."""
    if not hasattr(os, "seteuid"):
        pytest.skip("no permissions here")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, "test_1_1.png", "listed/a.png", "walled/1/a.png")
        helpers.write_official(folder / "a.h5", FACES, range(8))
        (folder / "listed" / "labels.csv").write_text("a.png,1")
        locked = [folder / inside for inside in ("test_1_1.png", "a.h5", "listed/labels.csv", "walled/1")]
        folder.chmod(0o755)
        for path in locked:
            path.chmod(0)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(was)
        for path in locked:
            path.chmod(0o755)


@pytest.mark.parametrize("name", ["test_1_1.png", "a.h5", "listed", "walled", "walled/1", "walled/1/a.png"])
def test_permission_denied_is_an_input_error(forbidden, name):
    with pytest.raises(InputError, match=r"Permission denied|no such file"):
        open_images([forbidden / name])[:]


def test_what_is_passed_over_is_counted_by_kind(tmp_path):
    fill(tmp_path, "test_1_1.png", ".hidden/5/c.png")
    for name in ("a.HEIC", "b.heic", "c.ppm", "d", "labels.txt", "Thumbs.db", ".e.avif"):
        (tmp_path / name).write_text("")
    (tmp_path / "linked").symlink_to(fill(tmp_path.parent / "elsewhere", "a.png"))
    for options in ({}, {"target": 0}, {"labelled": False}):
        (note,) = opened(tmp_path, **options)[2].notes
        assert note.startswith(f"{tmp_path}: skipped 2 HEIC, 1 PPM, 1 TXT, 1 linked folder, 1 without an ending;")


def test_many_kinds_make_a_short_note(tmp_path):
    fill(tmp_path, "test_1_1.png")
    for number in range(100):
        (tmp_path / f"a.{number:03}{'x' * 180}").write_text("")
    (note,) = opened(tmp_path)[2].notes
    assert len(note) <= 500 and "94 more kinds" in note


def test_class_folders_may_be_called_as_floats(tmp_path):
    assert opened(fill(tmp_path, "5.0/a.png", "12.0/a.png"))[:2] == (["5.0/a.png", "12.0/a.png"], [5, 12])


@pytest.mark.parametrize("name", ["a.jfif", "a.tif", "a.TIFF", "a.gif"])
def test_more_endings_are_read(tmp_path, name):
    picture = fill(tmp_path, "a.png") / "a.png"
    picture.rename(tmp_path / name)
    np.testing.assert_array_equal(opened(tmp_path, target=0)[2][:], FACES[:1])
