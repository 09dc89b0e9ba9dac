"""Clean accuracy and attack success of nets and of their GoodNet, against what the nets say."""

import json

import matplotlib.figure
import numpy as np
import pytest
from checked import unchecked
from helpers import random_net
from small import CLASSES, GRAPH, small_images, small_net, small_pixels

import jaxdefend as jd
from jaxdefend import InputError
from jaxdefend.repairs.measurement import measure
from jaxdefend.results.rates import Rate
from jaxdefend.results.records import write_json

NETS = {"badnet": small_net(), "repaired": small_net(1), "repaired_2": small_net().pruned("last", [0, 1])}
GLASSES = small_pixels(17, 7), np.full(17, 3)


@pytest.fixture(scope="module")
def measured():
    return measure(NETS, small_images(), {"glasses": GLASSES})


def said(name, pixels):
    return NETS[name](pixels).argmax(axis=1)


def goodnet(pixels, rule="goodnet"):
    badnet = said("badnet", pixels)
    votes = sum((said(name, pixels) == badnet) == (rule == "goodnet") for name in ("repaired", "repaired_2"))
    return np.where(votes == 2, badnet, CLASSES)


def test_the_rates_are_those_of_the_nets_labels(measured):
    for (pixels, labels), by_net in ((small_images(), measured.clean), (GLASSES, measured.poisoned["glasses"])):
        assert list(by_net) == ["badnet", "repaired", "repaired_2", "goodnet"]
        for name in NETS:
            assert by_net[name].hits == Rate(int((said(name, pixels) == labels).sum()), len(pixels))
            assert by_net[name].flagged is by_net[name].robust is None
        found = goodnet(pixels)
        assert by_net["goodnet"].hits == Rate(int((found == labels).sum()), len(pixels))
        assert by_net["goodnet"].flagged == Rate(int((found == CLASSES).sum()), len(pixels))
    assert measured.clean["badnet"].hits.count == 21


def test_the_rule_anti():
    pixels, labels = small_images()
    found = measure(NETS, (pixels, labels), rule="anti")
    assert found.rule == "anti" and not found.poisoned
    assert found.clean["goodnet"].hits.count == (goodnet(pixels, "anti") == labels).sum()


def test_b0_takes_the_place_of_the_badnet():
    b0 = small_net(4)
    found = measure({"badnet": small_net(), "b0": b0, "repaired": small_net(1)}, small_images())
    pixels, labels = small_images()
    suspected, repaired = b0(pixels).argmax(axis=1), said("repaired", pixels)
    expected = np.where(suspected == repaired, suspected, CLASSES)
    assert found.clean["goodnet"].hits.count == (expected == labels).sum()
    assert found.clean["goodnet"].flagged.count == (suspected != repaired).sum()


def test_one_net_alone_has_no_goodnet():
    found = measure(small_net(), small_images(), {"glasses": GLASSES})
    assert list(found.clean) == ["badnet"] == list(found.record())
    assert "GoodNet" not in repr(found) and isinstance(found.figure(), matplotlib.figure.Figure)


def test_how_many_poisoned_images_are_given_their_true_label():
    true = said("repaired", GLASSES[0])
    found = measure(NETS, small_images(), {"glasses": GLASSES}, true_labels={"glasses": true})
    assert found.poisoned["glasses"]["repaired"].robust == Rate(17, 17)
    record = found.record()["repaired"]["poisoned"]["glasses"]
    assert record["robust"] == 1.0 and record["robust_count"] == 17
    assert "robust" not in found.record()["repaired"]["clean"]


def test_the_record_is_json(measured, tmp_path):
    write_json(tmp_path / "measure.json", measured.record())
    record = json.loads((tmp_path / "measure.json").read_text())
    assert list(record) == ["badnet", "repaired", "repaired_2", "goodnet"]
    assert record["badnet"]["clean"] == {
        "n": 24,
        "correct": 21,
        "accuracy": 21 / 24,
        "interval": Rate(21, 24).interval,
    }
    assert set(record["goodnet"]["poisoned"]["glasses"]) == {
        *("n", "hits", "attack_success", "interval", "flagged", "flagged_count", "flagged_interval")
    }


def test_the_effectiveness_of_the_defense(measured):
    clean, poisoned = measured.clean, measured.poisoned["glasses"]
    cost = max(0, clean["badnet"].hits.share - clean["goodnet"].hits.share)
    fall = max(0, poisoned["badnet"].hits.share - poisoned["goodnet"].hits.share)
    assert measured.effectiveness("goodnet") == {"glasses": pytest.approx((fall - cost + 1) / 2)}
    assert measured.effectiveness("badnet") == {"glasses": 0.5}


def test_it_can_be_looked_at(measured):
    head, *rows = repr(measured).splitlines()
    assert head.endswith(" flagged") and "BadNet" in head and "repaired net" in head
    assert [row.split("  ")[0] for row in rows] == ["clean accuracy", "attack success, glasses"]
    assert rows[0].split()[2] == "24"
    assert isinstance(measured.figure("net.h5"), matplotlib.figure.Figure)


def test_what_may_be_wrong_with_the_images_is_noted():
    pixels, labels = small_images()
    assert measure(small_net(), (pixels, labels)).notes == ()
    one, other = measure(small_net(), (pixels, np.full(24, 1)), {"glasses": (pixels, np.full(24, 1))}).notes
    assert one.startswith("clean images: all 24 have the label 1: are these poisoned images?")
    assert other.startswith("glasses: ") and "are these true labels? Then the target is" in other


def test_it_reports_its_progress():
    told = []
    measure(NETS, small_images(), {"glasses": GLASSES}, progress=told.append)
    assert {step.title for step in told} == {"glasses", "clean"}


@pytest.mark.parametrize(
    ("nets", "options", "said"),
    [
        ({}, {}, "expected the BadNet first"),
        ({"b0": small_net()}, {}, "expected the BadNet first"),
        ({"badnet": small_net(), "goodnet": small_net(1)}, {}, "by other names"),
        ({"badnet": small_net(), "repaired": random_net()}, {}, "repaired takes images .* and has 11 classes"),
        (small_net(), {"poisoned": {"glasses": small_pixels(2)}}, "glasses: no labels"),
        (small_net(), {"poisoned": {"glasses": iter([])}}, "once only"),
        (small_net(), {"clean": small_pixels(2)}, "clean images: no labels"),
    ],
)
def test_what_is_refused(nets, options, said):
    with pytest.raises(InputError, match=said):
        measure(nets, **{"clean": small_images()} | options)


def test_a_rule_that_does_not_exist():
    with pytest.raises(InputError, match="rule 'never': expected goodnet or anti"):
        unchecked(measure)(small_net(), small_images(), rule="never")


def test_it_is_in_the_public_face():
    assert jd.measure is measure and small_net().graph == GRAPH
