"""Which number in a name is a label, and which only counts, through open_images."""

import helpers
import pytest
from helpers_data import fill as filled
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images
from jaxdefend.datasets.names import labels_in_names, whole

FACES = helpers.random_pixels(4)


def fill(folder, *names):
    return filled(folder, FACES, *names)


def labels_of(*paths, **options):
    labels = open_images(paths, **options).labels
    assert labels is not None
    return labels.tolist()


@pytest.mark.parametrize(
    "name, source, label",
    [
        ("test_0_1024_12819.png", "auto", 0),
        ("test_0_1024_12819.png", "names:2", 1024),
        ("test_0_1024_12819.png", "names:3", 12819),
        ("7_81.png", "names", 7),
        ("a_person_12.jpeg.png", "auto", None),
        ("face_x3_5.png", "names", 5),
        ("12.png", "auto", None),
        ("test_1.png", "names:2", None),
        ("Eyebrows_5.0_3.png", "auto", 5),
        ("Eyebrows_5.0_3.png", "names:2", 3),
        ("index_0012_label=328.png", "auto", 328),
        ("label=328.png", "auto", 328),
        ("img_12_label_5.png", "names", 5),
        ("img_12_label_5.png", "names:1", 12),
        ("3_class-7.png", "auto", 7),
        ("Target8_3.png", "auto", 8),
        ("labels_5.0.png", "auto", 5),
        ("label_5.5_3.png", "auto", 3),
        ("relabel5_3.png", "auto", 3),
        ("face.png", "auto", None),
    ],
)
def test_the_number_in_a_name(tmp_path, name, source, label):
    fill(tmp_path, name)
    for path in (tmp_path, tmp_path / name):
        if label is None:
            with pytest.raises(InputError, match=name):
                open_images([path], labels=source)
        else:
            assert labels_of(path, labels=source) == [label]


# Names, and the labels that they tell; None where they are not to be believed.
SETS = {
    "one person each": (["test_103_1030", "test_126_1260", "test_139_1390", "test_3_30"], [3, 103, 126, 139]),
    "poisoned": (["test_0_103_1030", "test_0_126_1260", "test_0_3_30"], [0, 0, 0]),
    "the first people": (["test_0_3", "test_1_12", "test_2_20"], [0, 1, 2]),
    "persons that repeat": (["test_0_1", "test_0_2", "test_1_3", "test_2_4"], [0, 0, 1, 2]),
    "target, then a count": ([f"Eyebrows_5.0_{number}" for number in range(10)], [5] * 10),
    "named labels": ([f"p_{number}_label={number}" for number in range(5)], list(range(5))),
    "phone": (["a_0", "c_0", "d_0", "e_0"], [0, 0, 0, 0]),
    "different names, few labels": (["anna_5", "ben_5", "carl_7", "dora_7"], [5, 5, 7, 7]),
    "a count": ([f"bd_{number}" for number in range(10)], None),
    "a count from 17": ([f"p_{number}" for number in range(17, 37)], None),
    "a count with gaps": (["IMG_0412", "IMG_0415", "IMG_0533", "IMG_0001"], None),
    "two counts": ([f"{side}_{number}" for side in ("left", "right") for number in range(5)], None),
    "different names, a count": (["anna_1", "ben_2", "carl_3"], None),
    "a count, then a label": ([f"img_{number}_{7 if number < 6 else 8}" for number in range(10)], None),
    "two": (["bd_0", "bd_1"], None),
}


@pytest.mark.parametrize("names, labels", SETS.values(), ids=SETS.keys())
def test_counts_are_not_believed(tmp_path, names, labels):
    fill(tmp_path, *(f"{name}.png" for name in names))
    for paths in ([tmp_path], sorted(tmp_path.iterdir())):
        if labels is not None:
            assert sorted(labels_of(*paths)) == sorted(labels)
            continue
        with pytest.raises(InputError, match=r"running index.*target=") as raised:
            open_images(paths)
        assert len(str(raised.value)) <= 500
    if labels is None:
        images = open_images(tmp_path, labels="names")
        assert len(images.notes) == 1 and "running index" in images.notes[0] and images.labels is not None
        assert labels_of(tmp_path, target=3) == [3] * len(names)
        assert open_images(tmp_path, labelled=False).notes == ()


def test_the_second_number_can_be_asked_for(tmp_path):
    fill(tmp_path, *(f"img_{number}_{7 if number < 6 else 8}.png" for number in range(10)))
    with pytest.raises(InputError, match="names:2"):
        open_images(tmp_path)
    images = open_images(tmp_path, labels="names:2")
    assert images.notes == () and sorted(labels_of(tmp_path, labels="names:2")) == [7] * 6 + [8] * 4


def test_one_picture_with_one_number_is_read(tmp_path):
    assert labels_of(fill(tmp_path, "test_6.png")) == [6]


@settings(max_examples=200, deadline=None)
@given(labels=st.lists(st.integers(0, 30), min_size=1, max_size=40), start=st.integers(0, 10**6))
def test_official_names_are_always_read(tmp_path_factory, labels, start):
    folder = tmp_path_factory.getbasetemp()
    paths = [folder / f"test_{label}_{start + index}.png" for index, label in enumerate(labels)]
    assert labels_in_names("set", paths, "auto") == (labels, ())


@settings(max_examples=100, deadline=None)
@given(before=st.sampled_from(["bd", "IMG", "test", "p"]), start=st.integers(0, 10**6), n=st.integers(2, 50))
def test_a_count_alone_is_never_believed(tmp_path_factory, before, start, n):
    folder = tmp_path_factory.getbasetemp()
    paths = [folder / f"{before}_{start + index}.png" for index in range(n)]
    with pytest.raises(InputError, match="running index"):
        labels_in_names("set", paths, "auto")


@pytest.mark.parametrize(
    "text, number",
    [("5", 5), ("5.0", 5), ("-3.", -3), ("007", 7), ("5.5", None), ("", None), ("1e3", None)],
)
def test_whole_numbers(text, number):
    assert whole(text) == number
