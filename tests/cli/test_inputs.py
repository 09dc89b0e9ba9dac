"""Nets and images as the commands' arguments name them."""

from fractions import Fraction

import h5py
import numpy as np
import pytest
from helpers import write_official
from PIL import Image
from small import CLASSES, SHAPE, small_images, small_net, small_pixels

from jaxdefend import InputError
from jaxdefend.cli import inputs
from jaxdefend.nets.keras_files import write_model
from jaxdefend.results.progress import silent


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A net, its repaired form, and sets of images."""
    folder = tmp_path_factory.mktemp("inputs")
    write_model(small_net(), folder / "net.h5")
    write_model(small_net().pruned("last", [0, 1]), folder / "fixed.h5")
    write_model(small_net().pruned("last", [2]), folder / "anti.h5", rule="anti")
    for name in ("valid", "test", "lipstick", "eyebrows"):
        write_official(folder / f"{name}.h5", *small_images(16), "uint8")
    (folder / "faces").mkdir()
    for number, pixels in enumerate(small_pixels(3)):
        Image.fromarray(pixels).save(folder / "faces" / f"test_{number}_{number}.png")
    with h5py.File(folder / "neither.h5", "w") as file:
        file["something"] = np.zeros(3)
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.mark.parametrize(
    ("groups", "sets"),
    [
        ([["lipstick.h5", "eyebrows.h5"]], {"lipstick": ["lipstick.h5"], "eyebrows": ["eyebrows.h5"]}),
        ([["lipstick.h5"], ["eyebrows.h5"]], {"lipstick": ["lipstick.h5"], "eyebrows": ["eyebrows.h5"]}),
        ([["both=lipstick.h5", "eyebrows.h5"]], {"both": ["lipstick.h5", "eyebrows.h5"]}),
        ([["a=lipstick.h5", "b=eyebrows.h5"]], {"a": ["lipstick.h5"], "b": ["eyebrows.h5"]}),
        ([["a=lipstick.h5"], ["eyebrows.h5"]], {"a": ["lipstick.h5"], "eyebrows": ["eyebrows.h5"]}),
        ([["lipstick.h5", "faces"]], {"lipstick": ["lipstick.h5"], "faces": ["faces"]}),
        ([["one.png", "two.jpg", "faces"]], {"one": ["one.png", "two.jpg"], "faces": ["faces"]}),
        ([["p=one.png", "two.jpg"]], {"p": ["one.png", "two.jpg"]}),
        ([["faces/*.png"]], {"test_0_0": [f"faces/test_{n}_{n}.png" for n in range(3)]}),
    ],
)
def test_poisoned_sets(groups, sets):
    assert inputs.named_sets(groups) == sets


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([["a.h5", "b/a.h5"]], "two sets are called 'a'"),
        ([["x=a.h5", "x=b.h5"]], "two sets are called 'x'"),
        ([["x="]], "--poisoned x=: expected NAME=DATA"),
        ([["=a.h5"]], "--poisoned =a.h5: expected NAME=DATA"),
    ],
)
def test_sets_that_cannot_be_told_apart(groups, said):
    with pytest.raises(InputError, match=said):
        inputs.named_sets(groups)


def test_a_path_with_an_equals_sign(place):
    write_official(place / "a=b.h5", *small_images(16), "uint8")
    assert inputs.named_sets([["a=b.h5", "./c=d.h5"]]) == {"a=b": ["a=b.h5"], "c=d": ["./c=d.h5"]}


def test_patterns_that_no_shell_expanded():
    assert inputs.expanded(["valid.h5", "faces/*_[12].png", "none*"]) == [
        "valid.h5",
        "faces/test_1_1.png",
        "faces/test_2_2.png",
        "none*",
    ]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("net.h5", "net"),
        ("bd_net", "net"),
        ("valid.h5", "data"),
        ("faces", "data"),
        ("faces/test_0_0.png", "data"),
        ("neither.h5", None),
        ("missing.h5", None),
        ("x" * 5000, None),
        ("\0", None),
    ],
)
def test_what_a_path_is(path, kind):
    assert inputs.kind_of(path) == kind


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["valid.h5", "net.h5"], "evaluate net.h5 --clean valid.h5"),
        (["valid.h5", "test.h5", "net.h5"], "evaluate net.h5 --clean valid.h5 --poisoned test.h5"),
        (["valid.h5", "net.h5", "fixed.h5"], "evaluate net.h5 --clean valid.h5 --repaired fixed.h5"),
        (["valid.h5", "neither.h5"], None),
        (["net.h5", "fixed.h5"], None),
    ],
)
def test_words_in_the_order_of_other_scripts(words, line):
    told = inputs.out_of_order("evaluate", words, "--clean")
    assert told is None if line is None else told.endswith(f"python -m jaxdefend.{line}")


def test_nets_and_what_stands_in_their_place():
    assert inputs.open_net("net.h5").classes == CLASSES
    with pytest.raises(InputError, match=r"valid\.h5: holds images, not a net"):
        inputs.open_net("valid.h5")
    with pytest.raises(InputError, match="--input-scale"):
        inputs.open_net("net.h5", input_scale="sepia")
    assert inputs.open_net("net.h5", input_scale="raw").input_scale == "raw"


def test_a_shipped_name_is_the_shipped_net(place, capsys):
    (place / "bd_net.h5").write_bytes((place / "net.h5").read_bytes())
    assert inputs.open_net("bd_net").classes == 1283
    assert "bd_net: the shipped net; the file in the current folder is ./bd_net.h5" in capsys.readouterr().err
    assert inputs.open_net("./bd_net.h5").classes == CLASSES


def test_repaired_nets_have_names_titles_and_a_rule(capsys):
    net = inputs.open_net("net.h5")
    assert list(inputs.open_repaired(["fixed.h5"], net)) == ["repaired"]
    both = inputs.open_repaired(["fixed.h5", "anti.h5"], net)
    assert list(both) == ["repaired", "repaired_2"]
    assert inputs.titles(net, both) == {"repaired": "fixed", "repaired_2": "anti"}
    assert inputs.titles(both["repaired_2"], {}) == {"badnet": "anti"}
    assert inputs.rule_of(both) == "goodnet"
    assert inputs.rule_of({"repaired": both["repaired_2"]}) == "anti"
    assert "taking --rule anti" in capsys.readouterr().err
    with pytest.raises(InputError, match="classes"):
        inputs.open_repaired(["bd_net"], net)


def test_a_set_says_what_was_done_and_what_it_is_not(place, capsys):
    net = inputs.open_net("net.h5")
    large = np.zeros((4, 20, 30, 3), np.uint8)
    write_official(place / "large.h5", large, np.zeros(4))
    assert inputs.open_set(["large.h5"], net).shape == SHAPE
    assert "resized" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"fixed\.h5: is a net; --clean expects images"):
        inputs.open_set(["fixed.h5"], net, "--clean")


def test_sets_of_a_command():
    net = inputs.open_net("net.h5")
    named = inputs.Named(["valid.h5"], None, [["lipstick.h5", "eyebrows.h5"]], ["2", "eyebrows=1"])
    sets = inputs.open_sets(named, "net.h5", net, silent, needs="valid")
    assert sets.measured is sets.chosen_by and not sets.are_synthetic and sets.true_labels == {}
    assert {name: set(images.labels) for name, images in sets.poisoned.items()} == {"lipstick": {2}, "eyebrows": {1}}
    with pytest.raises(InputError, match="no clean images; pass them with --valid"):
        inputs.open_sets(inputs.Named(), "net.h5", net, silent, needs="valid")


@pytest.mark.parametrize("target", ["5", "x", "-1", "1" * 5000, "nobody=1", "٣"])
def test_targets_that_are_not(target):
    named = inputs.Named(["valid.h5"], None, [["lipstick.h5"]], [target])
    with pytest.raises(InputError, match="--target") as refused:
        inputs.open_sets(named, "net.h5", inputs.open_net("net.h5"), silent, needs="valid")
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(("drops", "said"), [(["0.02", "0.04"], "for 2 4 points"), (["0.5", "2"], ""), ([], "")])
def test_shares_of_one_in_place_of_points(drops, said, capsys):
    inputs.note_small_drops([Fraction(drop) for drop in drops])
    assert said in (told := capsys.readouterr().err) and bool(told) == bool(said)


def test_doubts_name_the_option(capsys):
    inputs.warn_of_doubts(["poisoned images a: 48 of 50 get the label 0: are these true labels? Then the target is 0"])
    assert capsys.readouterr().err.endswith("are these true labels? Then give --target 0\n")
