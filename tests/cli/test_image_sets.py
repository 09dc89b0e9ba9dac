"""Sets of images as the commands' arguments name them."""

import numpy as np
import pytest
from helpers import write_official
from small import SHAPE, small_images

from jaxdefend import InputError
from jaxdefend.cli import image_sets, inputs

pytestmark = pytest.mark.usefixtures("here")


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
    assert image_sets.named_sets(groups) == sets


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
        image_sets.named_sets(groups)


def test_a_path_with_an_equals_sign(place):
    write_official(place / "a=b.h5", *small_images(16), "uint8")
    assert image_sets.named_sets([["a=b.h5", "./c=d.h5"]]) == {"a=b": ["a=b.h5"], "c=d": ["./c=d.h5"]}


def test_a_set_says_what_was_done_and_what_it_is_not(place, capsys):
    net = inputs.open_net("net.h5")
    large = np.zeros((4, 20, 30, 3), np.uint8)
    write_official(place / "large.h5", large, np.zeros(4))
    assert image_sets.open_set(["large.h5"], net).shape == SHAPE
    assert "resized" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"fixed\.h5: is a net; --clean expects images"):
        image_sets.open_set(["fixed.h5"], net, "--clean")


def test_doubts_name_the_option(capsys):
    image_sets.warn_of_doubts(
        ["poisoned images a: 48 of 50 get the label 0: are these true labels? Then the target is 0"]
    )
    assert capsys.readouterr().err.endswith("are these true labels? Then give --target 0\n")
