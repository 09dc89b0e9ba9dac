"""One label per image, by net, repaired nets and guard."""

import dataclasses
import json

import numpy as np
import pytest
from checked import unchecked
from helpers import random_net
from small import CLASSES, small_images, small_net, small_pixels

import jaxdefend as jd
from jaxdefend import InputError
from jaxdefend.detectors.answering import Answers, Guarded

NET, REPAIRED, OTHER = small_net(), small_net(1), small_net().pruned("last", [0, 1])
PIXELS = small_pixels(12, 5)


def said(net):
    return net(PIXELS).argmax(axis=1)


@pytest.fixture(scope="module")
def guard():
    return jd.detectors.Persistence(masks=6).calibrate(NET, small_pixels(60, 1), frr=0.3)


def test_a_net_alone_gives_its_labels():
    found = Guarded(NET)(PIXELS)
    assert isinstance(found, Answers) and len(found) == 12
    np.testing.assert_array_equal(found.labels, said(NET))
    assert found.goodnet is found.scores is found.rejected is None
    shares = np.exp(NET(PIXELS).astype(float))
    shares = (shares / shares.sum(axis=1, keepdims=True)).max(axis=1)
    np.testing.assert_allclose(found.confidence, shares, rtol=1e-5)
    assert found.record()[0] == {
        "image": "image 0",
        "badnet": int(said(NET)[0]),
        "repaired": None,
        "goodnet": None,
        "backdoored": None,
        "confidence": pytest.approx(shares[0], rel=1e-5),
    }


def test_with_a_repaired_net_the_goodnet_answers():
    found = Guarded(NET, REPAIRED)(PIXELS)
    expected = np.where(said(NET) == said(REPAIRED), said(NET), CLASSES)
    np.testing.assert_array_equal(found.labels, expected)
    np.testing.assert_array_equal(found.goodnet, expected)
    np.testing.assert_array_equal(found.repaired["repaired"], said(REPAIRED))
    assert [row["backdoored"] for row in found.record()] == (expected == CLASSES).tolist()


def test_most_of_several_repaired_nets_decide():
    found = Guarded(NET, [REPAIRED, OTHER, NET])(PIXELS)
    votes = np.sum([said(net) == said(NET) for net in (REPAIRED, OTHER, NET)], axis=0)
    np.testing.assert_array_equal(found.labels, np.where(votes >= 2, said(NET), CLASSES))
    assert list(found.repaired) == ["repaired", "repaired_2", "repaired_3"]
    assert "repaired_2" in found.record()[0]


def test_the_rule_anti():
    found = Guarded(NET, REPAIRED, rule="anti")(PIXELS)
    np.testing.assert_array_equal(found.labels, np.where(said(NET) != said(REPAIRED), said(NET), CLASSES))


def test_with_a_guard_rejected_images_are_backdoored(guard):
    found = Guarded(NET, REPAIRED, guard)(PIXELS)
    verdicts = guard(PIXELS)
    np.testing.assert_array_equal(found.rejected, verdicts.rejected)
    np.testing.assert_array_equal(found.scores, verdicts.scores)
    assert found.threshold == guard.threshold and found.rejected.any() and not found.rejected.all()
    expected = np.where(verdicts.rejected, CLASSES, found.goodnet)
    np.testing.assert_array_equal(found.labels, expected)
    row = found.record()[int(np.argmax(found.rejected))]
    assert row["rejected"] and row["label"] == CLASSES and row["backdoored"]


def test_a_guard_alone(guard):
    found = Guarded(NET, guard=guard)(PIXELS)
    for row, badnet in zip(found.record(), said(NET), strict=True):
        assert row["label"] == (CLASSES if row["rejected"] else badnet)
        assert row["backdoored"] == row["rejected"] and row["goodnet"] is None


def test_the_record_is_json_and_the_repr_a_table(guard):
    for guarded in (Guarded(NET), Guarded(NET, REPAIRED), Guarded(NET, [REPAIRED, OTHER], guard)):
        found = guarded(PIXELS)
        assert len(json.loads(json.dumps(found.record()))) == 12
        lines = repr(found).splitlines()
        assert len(lines) == 13 and lines[0].split()[:2] == ["image", "BadNet"]
        with pytest.raises(dataclasses.FrozenInstanceError):
            found.labels = np.zeros(12)


def test_labels_are_not_needed_and_names_are_kept():
    found = Guarded(NET)(jd.datasets.images.ArrayImages(PIXELS[:2], names=("a.png", "b.png")))
    assert [row["image"] for row in found.record()] == ["a.png", "b.png"]
    one = Guarded(NET)(PIXELS[3])
    assert len(one) == 1 and one.labels[0] == said(NET)[3]
    np.testing.assert_array_equal(Guarded(NET)(small_images()).labels, NET(small_images()[0]).argmax(axis=1))


def test_what_does_not_fit_together():
    with pytest.raises(InputError, match="has 11 classes, net has 5; expected a repaired form of the same net"):
        Guarded(NET, random_net())
    with pytest.raises(InputError, match="rule 'never': expected goodnet or anti"):
        unchecked(Guarded)(NET, REPAIRED, None, "never")
    with pytest.raises(InputError, match="once only"):
        Guarded(NET)(iter(PIXELS))


def test_progress(guard):
    told = []
    Guarded(NET, REPAIRED, guard)(PIXELS, progress=told.append)
    assert {step.title for step in told} >= {"predict", "persistence"}


def test_a_guard_of_another_net_is_refused():
    guard = jd.detectors.Persistence(masks=4).calibrate(REPAIRED, PIXELS, frr=0.5)
    with pytest.raises(InputError, match="the guard was made for net, which is not net: other weights"):
        Guarded(NET, guard=guard)
    Guarded(REPAIRED.with_weights(REPAIRED.weights), guard=guard)
