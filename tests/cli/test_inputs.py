"""Nets as the commands' arguments name them, and the image sets that go with them."""

import pytest
from small import CLASSES

from jaxdefend import InputError
from jaxdefend.cli import inputs
from jaxdefend.results.progress import silent

pytestmark = pytest.mark.usefixtures("here")


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
