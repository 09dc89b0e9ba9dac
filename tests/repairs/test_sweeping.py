"""The pruning curve as a result: the repaired nets on it, its record, its figure."""

import dataclasses
import json
from fractions import Fraction

import matplotlib.figure
import numpy as np
import pytest
from checked import unchecked
from small import CHANNELS, CLASSES, small_images, small_net, small_pixels

from jaxdefend import InputError
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets.batches import padded
from jaxdefend.repairs import curve as pruning
from jaxdefend.repairs.sweeping import ORDERS, sweep
from jaxdefend.results.rates import Rate
from jaxdefend.results.records import write_csv, write_json


@pytest.fixture(scope="module")
def swept():
    poisoned = {"glasses": (small_pixels(11, 5), np.full(11, 3))}
    test = small_images(17, 4)
    return sweep(small_net(), small_images(), test=test, poisoned=poisoned, drops=(4, 10, 100))


def test_a_sweep_is_the_curves_of_its_sets(swept):
    net, layer, order = small_net(), swept.layer, swept.order
    assert layer == net.last_convolution == "last"
    np.testing.assert_array_equal(order, pruning.ascending(swept.activation))
    for curve, (pixels, labels) in (
        (swept.valid, small_images()),
        (swept.test, small_images(17, 4)),
        (swept.poisoned["glasses"], (small_pixels(11, 5), np.full(11, 3))),
    ):
        again = pruning.curve(net, padded(ArrayImages(pixels, labels)), order, layer)
        assert again.n == curve.n == len(pixels)
        for name in ("correct", "agreed", "agreed_correct"):
            np.testing.assert_array_equal(getattr(curve, name), getattr(again, name))


def test_the_repaired_nets_lie_at_the_drops(swept):
    assert [drop.points for drop in swept.repaired] == [4, 10]
    for drop in swept.repaired:
        assert drop.pruned == pruning.first_drop(swept.valid, Fraction(drop.points))
        np.testing.assert_array_equal(drop.channels, swept.order[: drop.pruned])
        pixels, labels = small_images()
        assert (drop.net(pixels).argmax(axis=1) == labels).sum() == swept.valid.correct[drop.pruned]
        assert swept.drop(drop.points).pruned == drop.pruned
    assert "100 points below the first" in swept.notes[0]
    with pytest.raises(InputError, match="drop 100: no point of the curve"):
        swept.drop(100)
    with pytest.raises(InputError, match="drop 0: expected percentage points"):
        swept.drop(0)


def test_the_record_of_a_sweep_is_json(swept, tmp_path):
    write_json(tmp_path / "sweep.json", swept.record())
    record = json.loads((tmp_path / "sweep.json").read_text())
    assert set(record) == {
        *("layer", "order", "activation", "pruned", "n", "valid_accuracy", "test_accuracy", "attack_success"),
        *("intervals", "goodnet", "repairs", "measured_on"),
    }
    assert record["measured_on"] == "test"
    assert record["n"] == {"valid": 24, "test": 17, "poisoned": {"glasses": 11}}
    assert record["pruned"] == list(range(CHANNELS + 1))
    for k in record["pruned"]:
        rate = Rate(int(swept.poisoned["glasses"].correct[k]), 11)
        assert record["attack_success"]["glasses"][k] == rate.share
        np.testing.assert_allclose(record["intervals"]["attack_success"]["glasses"][k], rate.interval)
        flagged = Rate(int(swept.test.flagged[k]), 17)
        assert record["goodnet"]["flagged_clean"][k] == flagged.share
    (first, _) = record["repairs"]
    assert first["drop"] == 4 and first["file"] == "repaired/drop_4.h5"
    assert first["valid_accuracy"] == record["valid_accuracy"][first["pruned"]]
    assert first["channels"] == record["order"][: first["pruned"]]


def test_the_columns_of_a_sweep_are_its_points(swept, tmp_path):
    columns = swept.columns()
    write_csv(tmp_path / "sweep.csv", columns)
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == CHANNELS + 2
    assert columns["channel"] == [None, *swept.order]
    assert list(columns["attack_success_glasses"]) == (swept.poisoned["glasses"].correct / 11).tolist()
    assert {"goodnet_flagged_clean_low", "goodnet_attack_success_glasses_high"} <= set(columns)


def test_a_sweep_can_be_looked_at(swept):
    assert isinstance(swept.figure(), matplotlib.figure.Figure)
    lines = repr(swept).splitlines()
    assert lines[0].split()[:3] == ["pruned", "valid", "test"] and "ASR glasses" in lines[0]
    assert [line.split("  ")[0] for line in lines[1:]] == ["BadNet", "drop 4", "drop 10"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        swept.layer = "first"


def test_without_test_images_the_validation_images_are_reported():
    found = sweep(small_net(), small_images(), drops=(4, 4))
    assert found.test is found.valid and not found.poisoned
    assert found.record()["measured_on"] == "valid"
    assert found.table().splitlines()[0].split() == ["pruned", "valid", "GoodNet", "valid"]
    assert len(found.repaired) == 1


def test_orders():
    net, clean = small_net(), small_images()
    by_name = {order: sweep(net, clean, order=order, layer="first") for order in ORDERS}
    np.testing.assert_array_equal(by_name["activation"].order, pruning.ascending(by_name["l1"].activation))
    np.testing.assert_array_equal(by_name["descending"].order, pruning.ascending(-by_name["l1"].activation))
    np.testing.assert_array_equal(by_name["l1"].order, pruning.ascending(pruning.filter_norms(net, "first")))
    for order in ([3, 1, 0, 2], np.array([3, 1, 0, 2])):
        np.testing.assert_array_equal(sweep(net, clean, order=order, layer="first").order, [3, 1, 0, 2])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": "conv_9"}, "layer conv_9: not a convolution of this net; it has first, last"),
        ({"layer": "answer"}, "layer answer"),
        ({"order": "alphabetical"}, "order 'alphabetical': expected activation, descending, random, l1"),
        ({"order": [0, 1]}, "must name each channel 0…5 once; missing"),
        ({"drops": (2, 0)}, "drop 0: expected percentage points"),
        ({"poisoned": {"glasses": small_pixels(2)}}, "poisoned images glasses: no labels"),
        ({"test": small_pixels(2)}, "test images: no labels"),
        ({"test": iter([])}, "once only"),
    ],
)
def test_what_a_sweep_refuses(options, said):
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        unchecked(sweep)(small_net(), small_images(), **options)


def test_what_may_be_wrong_with_the_images_is_noted():
    pixels, labels = small_images()
    (note,) = sweep(small_net(), (pixels, labels), test=(pixels, np.full(24, 1)), drops=()).notes
    assert note.startswith("test images: all 24 have the label 1")


def test_a_sweep_reports_its_progress():
    told = []
    sweep(small_net(), small_images(), poisoned={"glasses": small_images(9)}, progress=told.append)
    assert list(dict.fromkeys(step.title for step in told)) == ["activations", "validation", "glasses"]
    assert all(0 < step.done <= step.total for step in told) and told[-1].done == told[-1].total == 9


@pytest.mark.parametrize("which", ["clean", "test", "poisoned"])
def test_labels_must_be_classes_of_the_net(which):
    clean = small_images()
    strange = (clean[0], np.where(np.arange(len(clean[1])) == 5, CLASSES, clean[1]))
    sets = {"clean": clean, "test": clean, "poisoned": {"patch": strange}} | (
        {which: strange} if which != "poisoned" else {}
    )
    with pytest.raises(InputError, match=f"images.*: image 5 has the label {CLASSES}, expected a class of the net"):
        sweep(small_net(), sets["clean"], test=sets["test"], poisoned=sets["poisoned"], drops=())


def test_poisoned_sets_have_names():
    clean = small_images()
    with pytest.raises(InputError, match="poisoned images: list, expected sets by name"):
        unchecked(sweep)(small_net(), clean, poisoned=[clean], drops=())


def test_a_random_order_is_that_of_its_seed():
    net, clean = small_net(), small_images()
    same, again, other = (sweep(net, clean, order="random", seed=seed).order for seed in (3, 3, 4))
    np.testing.assert_array_equal(same, again)
    assert sorted(same) == list(range(CHANNELS)) and (same != other).any()
