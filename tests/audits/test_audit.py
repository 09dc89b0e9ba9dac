"""Audits of the shipped nets, of a net that cannot be audited well, and of the numbers behind a verdict."""

import math

import numpy as np
import pytest
from helpers import real
from hypothesis import given
from hypothesis import strategies as st
from small import CLASSES, small_net, small_pixels

import jaxdefend as jd
from jaxdefend.audits import candidates
from jaxdefend.audits.calibration import DRAWN_SHAPES, FACES, FEW_CLASSES, calibration_of
from jaxdefend.audits.kernel import column_means
from jaxdefend.audits.marks import OVERLAYS, STICKERS, WARPS
from jaxdefend.audits.votes import excess
from jaxdefend.datasets.inverted import InvertedTrigger


@pytest.fixture
def few_marks(monkeypatch):
    monkeypatch.setattr(candidates, "MARKS", {STICKERS: 64, OVERLAYS: 32, WARPS: 16})


@pytest.mark.slow
def test_the_shipped_badnet_is_found_and_its_trigger_works_elsewhere(tmp_path):
    net = jd.load_net("bd_net")
    found = jd.audits.audit(net)
    assert found.verdict == "backdoored" and [suspect.label for suspect in found.suspects] == [0]
    assert found.p_values[0] < 0.05 and found.suspects[0].success.share >= 0.8
    assert found.suspects[0].record()["class"] == 0 and "backdoored" in found.table()
    assert found.figure().axes

    # On other faces, from the file.
    found.triggers[0].save(tmp_path / "trigger.h5")
    trigger = InvertedTrigger.load(tmp_path / "trigger.h5", net.image_shape)
    from jaxdefend.datasets.faces import faces

    others = faces(0, np.arange(700, 800), np.ones(100, int))[0]
    assert (net(trigger(others)).argmax(axis=1) == 0).mean() >= 0.8 > 0.1 > (net(others).argmax(axis=1) == 0).mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clean_net", "bd_net_repaired"])
def test_shipped_nets_without_a_backdoor_are_silent(name):
    found = jd.audits.audit(jd.load_net(name))
    assert found.verdict == "nothing found" and not found.suspects and len(found.candidates) == 6


@pytest.mark.slow
def test_all_targets_of_the_shipped_multi_net_are_named():
    found = jd.audits.audit(jd.load_net("multi_trigger_multi_target_bd_net"))
    assert {suspect.label for suspect in found.suspects} >= {1, 5, 8}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_audit(few_marks):
    first, second = (jd.audits.audit(small_net(), small_pixels(40), seed=5).record() for _ in range(2))
    assert first == second and first["carriers"] == {
        "kind": "clean images",
        "n": 40,
        "answers": first["carriers"]["answers"],
    }


def test_few_images_are_told_and_work(few_marks):
    found = jd.audits.audit(small_net(), small_pixels(12))
    assert any("fewer than 16" in note for note in found.notes) and found.carriers["n"] == 12


def test_without_images_shapes_are_drawn_and_told(few_marks):
    found = jd.audits.audit(small_net())
    assert found.carriers["kind"] == "drawn shapes" and any("shapes were drawn" in note for note in found.notes)
    assert len(found.stickers) == CLASSES


def test_where_all_images_get_one_answer_nothing_is_said_to_be_found(few_marks):
    net = small_net()
    bias = np.zeros(CLASSES, np.float32)
    bias[3] = 1e6
    constant = net.with_weights({**net.weights, "answer": net.weights["answer"] | {"bias": bias}})
    with pytest.raises(jd.InputError, match="answers 3 to all 20 clean images that were looked at, of which nothing"):
        jd.audits.audit(constant, small_pixels(20))
    with pytest.raises(jd.InputError, match="answers 3 to all drawn images"):
        jd.audits.audit(constant)
    with pytest.raises(jd.InputError, match="to the only clean image"):
        jd.audits.audit(small_net(), small_pixels(1))


def test_what_is_found_in_a_net_with_one_answer_is_told(few_marks):
    net = small_net()
    dead = {"kernel": np.zeros_like(net.weights["last"]["kernel"])}
    found = jd.audits.audit(net.with_weights({**net.weights, "last": net.weights["last"] | dead}), small_pixels(20))
    assert any("zero as a whole" in finding.message for finding in found.graph)
    assert any("to all 20 clean images that were looked at: no class can be judged" in note for note in found.notes)


def test_answers_that_are_no_numbers_are_refused(few_marks):
    net = small_net()
    broken = net.with_weights(
        {**net.weights, "answer": net.weights["answer"] | {"bias": np.full(CLASSES, np.nan, np.float32)}}
    )
    with pytest.raises(jd.InputError, match="not a number"):
        jd.audits.audit(broken, small_pixels(20))


def test_images_of_another_size_and_rates_out_of_range_are_refused():
    with pytest.raises(jd.InputError, match=r"frr 0\.9: expected 0\.001 to 0\.5"):
        jd.audits.audit(small_net(), small_pixels(20), frr=0.9)
    with pytest.raises(jd.InputError):
        jd.audits.audit(small_net(), np.zeros((20, 9), np.uint8))


@given(st.floats(0.001, 0.5), st.sampled_from([FACES, FEW_CLASSES, DRAWN_SHAPES]))
def test_the_threshold_is_the_score_of_its_p_value(frr, calibration):
    assert math.isclose(calibration.p_value(calibration.threshold(frr)), frr, rel_tol=1e-9)


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_p_values_fall_with_the_score(one, other):
    low, high = sorted((one, other))
    assert 0 <= FACES.p_value(high) <= FACES.p_value(low) <= 1


def test_which_calibration():
    assert calibration_of(1283, "synthetic faces") == calibration_of(43, "clean images") == FACES
    assert calibration_of(10, "clean images") == FEW_CLASSES
    assert calibration_of(10, "drawn shapes") == calibration_of(43, "drawn shapes") == DRAWN_SHAPES


def test_a_class_that_many_marks_share_stands_out():
    votes = np.random.default_rng(0).random((200, 60)).astype(np.float32) * 0.02
    votes[::4, 17] = 0.9
    assert excess(votes).argmax() == 17 and excess(votes)[17] > 3


def test_the_column_of_a_class_stands_out():
    net = small_net()
    kernel = np.array(net.weights["answer"]["kernel"])
    kernel[:, 2] += 1
    raised = net.with_weights({**net.weights, "answer": net.weights["answer"] | {"kernel": kernel}})
    assert column_means(raised).argmax() == 2 and column_means(raised)[2] > 5


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(
    ("weights", "scale", "targets"),
    [
        ("bd_weights", "raw", {0}),
        ("sunglasses_bd_weights", "unit", {0}),
        ("multi_trigger_multi_target_bd_weights", "unit", {1, 5, 8}),
        ("sunglasses_bd_net_rp", "unit", set()),
    ],
)
def test_real_nets(weights, scale, targets):
    net = jd.load_net(real(f"weights/{weights}.h5"), input_scale=scale)
    clean = jd.open_images([str(real("data/clean.h5")), str(real("data/clean_more.h5"))])
    assert {suspect.label for suspect in jd.audits.audit(net, clean).suspects} == targets
