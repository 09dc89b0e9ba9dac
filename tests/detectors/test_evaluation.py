"""How well detectors separate clean and poisoned images: against scores and labels counted by hand."""

import dataclasses
import json

import matplotlib.figure
import numpy as np
import pytest
from small import small_images, small_net, small_pixels

from jaxdefend import InputError
from jaxdefend.detectors import Both, GoodNet, Masks, Persistence, Strip, calibrate, evaluate
from jaxdefend.detectors.evaluation import Evaluation
from jaxdefend.results.rates import Rate
from jaxdefend.results.records import write_csv, write_json

HELD = (Persistence(masks=6), Both(masks=6, overlays=5), GoodNet())
TEST = small_images(30, 2)
GLASSES = small_pixels(25, 3), small_net()(small_pixels(25, 3)).argmax(axis=1)
# The attack succeeds on half of these.
HALF = GLASSES[0], np.where(np.arange(25) % 2, GLASSES[1], (GLASSES[1] + 1) % 5)


@pytest.fixture(scope="module")
def guard():
    return calibrate(HELD, small_net(), small_pixels(60, 1), frr=(0.1, 0.05), repaired=small_net(2))


@pytest.fixture(scope="module")
def evaluated(guard):
    return evaluate(guard, TEST, {"glasses": GLASSES, "half": HALF})


def test_scores_and_labels_are_the_guards_and_the_nets(guard, evaluated):
    assert isinstance(evaluated, Evaluation) and evaluated.guard is guard
    assert list(evaluated.sets) == ["clean", "glasses", "half"]
    assert list(evaluated.by_detector) == ["persistence", "masks", "strip", "both", "goodnet"]
    np.testing.assert_allclose(evaluated.scores["clean"]["persistence"], guard(TEST[0]).scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(evaluated.labels["clean"], small_net()(TEST[0]).argmax(axis=1))
    np.testing.assert_array_equal(evaluated.correct["clean"], evaluated.labels["clean"] == TEST[1])


def test_rates_are_counted_at_the_threshold(evaluated):
    for name, found in evaluated.by_detector.items():
        scores = {of: by_detector[name] for of, by_detector in evaluated.scores.items()}
        threshold = found.calibrated.threshold
        assert found.frr == Rate(int((scores["clean"] > threshold).sum()), 30)
        passed = scores["clean"] <= threshold
        assert found.guarded == Rate(int((passed & evaluated.correct["clean"]).sum()), 30)
        glasses = found.poisoned["glasses"]
        assert glasses.hits == Rate(25, 25) and glasses.all_images == glasses.where_hit
        assert glasses.guarded == Rate(int((scores["glasses"] <= threshold).sum()), 25)
        pairs = np.subtract.outer(scores["glasses"], scores["clean"])
        assert glasses.all_images.auroc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
        half = found.poisoned["half"]
        assert half.hits == Rate(12, 25)
        pairs = np.subtract.outer(scores["half"][1::2], scores["clean"])
        assert half.where_hit.auroc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
        for frr, limit in found.thresholds.items():
            assert (scores["clean"] > limit).sum() <= frr * 30
            assert glasses.all_images.far[frr] == Rate(int((scores["glasses"] <= limit).sum()), 25)


def test_the_record_is_json(evaluated, tmp_path):
    write_json(tmp_path / "detect.json", evaluated.record())
    record = json.loads((tmp_path / "detect.json").read_text())
    assert record["default"] == "persistence"
    assert set(record["detectors"]) == {"persistence", "masks", "strip", "both", "goodnet"}
    for name, block in record["detectors"].items():
        found = evaluated.by_detector[name]
        noise = block["poisoned"]["glasses"]
        assert noise["n"] == noise["fires"] == 25
        assert set(noise["far_at_frr"]) == {"0.005", "0.01", "0.02", "0.05", "0.1"}
        assert noise["auroc"] == noise["auroc_where_it_fires"] == found.poisoned["glasses"].all_images.auroc
        assert block["poisoned"]["half"]["fires"] == 12
        assert block["frr_measured"] == found.frr.share and block["threshold"] == found.calibrated.threshold
        assert block["guarded"]["clean"]["correct"] == found.guarded.count
        assert ("clean_entropy" in block) == (name in ("persistence", "masks", "strip"))
    assert record["detectors"]["strip"]["clean_entropy"]["mean"] > 0


def test_the_columns_are_the_images(evaluated, tmp_path):
    columns = evaluated.columns()
    write_csv(tmp_path / "detect.csv", columns)
    assert len((tmp_path / "detect.csv").read_text().splitlines()) == 1 + 30 + 25 + 25
    sets = np.array(columns["set"])
    assert list(dict.fromkeys(columns["set"])) == ["clean", "poisoned glasses", "poisoned half"]
    np.testing.assert_array_equal(np.asarray(columns["label"])[sets == "clean"], TEST[1])
    for name, found in evaluated.by_detector.items():
        rejected = np.asarray(columns[f"{name}_score"]) > found.calibrated.threshold
        np.testing.assert_array_equal(columns[f"{name}_rejected"], rejected)


def test_it_can_be_looked_at(evaluated):
    head, *rows = repr(evaluated).splitlines()
    assert "AUROC" in head and "FAR at FRR 5 %" in head and "at 10 %" in head
    assert len(rows) == 10 and rows[0].startswith("persistence") and "25 of 25" in rows[0]
    for figure in (evaluated.figure(), evaluated.errors_figure("x"), evaluated.superimposed_figure()):
        assert isinstance(figure, matplotlib.figure.Figure)
    with pytest.raises(dataclasses.FrozenInstanceError):
        evaluated.labels = {}


def test_clean_images_alone():
    guard = Masks(masks=6).calibrate(small_net(), small_pixels(60, 1), frr=0.1)
    found = evaluate(guard, TEST)
    head, row = repr(found).splitlines()
    assert "clean rejected" in head and row.startswith("masks")
    assert not found.errors_figure().legends and len(found.columns()["set"]) == 30
    assert found.record()["detectors"]["masks"]["poisoned"] == {}
    with pytest.raises(InputError, match="no overlays: none of its detectors is STRIP"):
        found.superimposed_figure()


def test_an_attack_that_never_succeeds():
    """There is no area under a curve of no images."""
    guard = Masks(masks=6).calibrate(small_net(), small_pixels(60, 1), frr=0.1)
    labels = (GLASSES[1] + 1) % 5
    found = evaluate(guard, TEST, {"glasses": (GLASSES[0], labels)})
    block = found.record()["detectors"]["masks"]["poisoned"]["glasses"]
    assert block["fires"] == 0 and block["auroc_where_it_fires"] is None and block["auroc"] is not None
    assert "0 of 25" in repr(found)
    assert isinstance(found.figure(), matplotlib.figure.Figure)
    assert isinstance(found.errors_figure(), matplotlib.figure.Figure)


def test_overlays_of_a_blend():
    guard = Strip(overlays=5, blend="0.5+0.5").calibrate(small_net(), small_pixels(60, 1), frr=0.1)
    assert isinstance(evaluate(guard, TEST).superimposed_figure(), matplotlib.figure.Figure)


@pytest.mark.parametrize(
    ("clean", "poisoned", "said"),
    [
        (TEST, {"clean": GLASSES}, "a poisoned set is called 'clean'; give it another name"),
        (TEST[0], {}, "clean images: no labels"),
        (TEST, {"glasses": GLASSES[0]}, "poisoned images glasses: no labels"),
        (TEST, {"glasses": iter(GLASSES[0])}, "once only"),
    ],
)
def test_what_is_refused(guard, clean, poisoned, said):
    with pytest.raises(InputError, match=said):
        evaluate(guard, clean, poisoned)


def test_what_may_be_wrong_with_the_images_is_noted(guard):
    (note,) = evaluate(guard, (TEST[0], np.full(30, 1))).notes
    assert note.startswith("clean images: all 30 have the label 1")


def test_progress(guard):
    told = []
    evaluate(guard, TEST, {"glasses": GLASSES}, progress=told.append)
    assert {"clean", "poisoned glasses", "clean, strip", "poisoned glasses, persistence"} <= {
        step.title for step in told
    }
