"""Guards: calibrated, saved and loaded; what is refused of a file, and how."""

import dataclasses
import json

import numpy as np
import pytest
from checked import unchecked
from small import SHAPE, small_detector, small_net, small_pixels

from jaxdefend import InputError
from jaxdefend.detectors import DETECTORS, Both, Masks, Persistence, Strip, calibrate, evaluate, guards
from jaxdefend.detectors.guards import Guard, scores_without_guard
from jaxdefend.results import detection
from jaxdefend.results.detection import conformal_threshold
from jaxdefend.results.progress import silent

CLEAN = small_pixels(60, 1)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_saved_guard_gives_the_same_scores(guard_of, net, name):
    guard, folder = guard_of(name)
    again = Guard.load(str(folder / "guard.json"), net)
    assert again.record() == guard.record() and repr(again) == repr(guard)
    assert (again.default, again.seed, again.fit, again.threshold) == (name, 7, "conformal", guard.threshold)
    images = np.concatenate([small_pixels(9, 3), CLEAN[:4]])
    if DETECTORS[name].uses_repaired:
        with pytest.raises(InputError, match="asks a repaired net"):
            again(images)
        again = Guard.load(folder / "guard.json", net, small_net(2))
    one, other = guard(images), again(images)
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_array_equal(one.rejected, other.rejected)


@pytest.mark.parametrize("name", DETECTORS)
def test_the_record_is_json(guard_of, name):
    guard, folder = guard_of(name)
    record = json.loads((folder / "guard.json").read_text())
    assert record["guard"] == guards.VERSION and record["detector"] == name and record["seed"] == 7
    assert record["frr"] == 0.1 and record["threshold"] == guard.threshold
    assert record["model"]["name"] == "net.h5" and record["input_scale"] == "unit"
    parts = {"both": {"masks", "strip", "both"}}.get(name, {name})
    assert set(record["detectors"]) == parts
    for part in parts:
        block = record["detectors"][part]
        assert block["settings"] == small_detector(part).record() | {
            key: value for key, value in small_detector(name).record().items() if key in small_detector(part).record()
        }
        assert [level["frr_asked"] for level in block["levels"]] == [0.1, 0.05]
        assert block["clean_score"]["n"] == 60
        assert ("clean_entropy" in block) == (part in ("masks", "strip", "persistence"))
    has_overlays = DETECTORS[name].uses_pool
    assert (folder / "overlays.h5").exists() == has_overlays == (record["overlays_file"] is not None)


@pytest.mark.parametrize("name", DETECTORS)
def test_it_keeps_its_rate_on_what_it_was_made_with(guard_of, name):
    guard, _ = guard_of(name)
    verdicts = guard(CLEAN)
    assert len(verdicts) == 60 and verdicts.detector == name
    # 61 × 0.1: six images above the threshold.
    assert verdicts.rejected.sum() <= 6
    np.testing.assert_array_equal(verdicts.rejected, verdicts.scores > guard.threshold)
    # But for rounding: verdicts ask for more than scores, and are compiled apart.
    assert guard.threshold == pytest.approx(conformal_threshold(verdicts.scores, 0.1), rel=1e-6)
    assert [row["rejected"] for row in verdicts.record()] == verdicts.rejected.tolist()


def test_few_images_score_as_many():
    """Whatever the size of the batches."""
    guard = Both(masks=6, overlays=5).calibrate(small_net(), CLEAN, frr=0.1)
    together = guard(CLEAN[:9]).scores
    np.testing.assert_allclose(guard(CLEAN[:1]).scores, together[:1], rtol=1e-4, atol=1e-5)


def test_equal_seeds_give_equal_guards_and_other_seeds_others(net):
    one, same, other = (Persistence(masks=6).calibrate(net, CLEAN, frr=0.1, seed=seed).record() for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("fit", ["conformal", "quantile", "normal"])
def test_fits(net, fit):
    guard = Masks(masks=6).calibrate(net, CLEAN, frr=0.1, fit=fit)
    rule = getattr(detection, f"{fit}_threshold")
    assert guard.fit == fit
    assert guard.threshold == pytest.approx(rule(guard(CLEAN).scores, 0.1), rel=1e-5)
    assert ("confidence" in guard.record()["detectors"]["masks"]) == (fit == "conformal")


@pytest.mark.parametrize(
    ("n", "rates"), [(60, [0.05]), (99, [0.01, 0.05]), (19, [0.05]), (9, [0.1]), (200, [0.01, 0.05])]
)
def test_by_default_the_rates_are_those_that_the_images_allow(net, n, rates):
    guard = Masks(masks=6).calibrate(net, small_pixels(n, 1))
    assert [level.frr for level in guard.detectors["masks"].levels] == rates


def test_the_first_detector_decides(net):
    guard = calibrate([Masks(masks=6), Persistence(masks=6)], net, CLEAN, frr=0.1)
    assert guard.default == "masks" and list(guard.detectors) == ["masks", "persistence"]
    assert guard(CLEAN).threshold == guard.detectors["masks"].threshold


def test_overlays_come_from_the_pool_where_there_is_one(net):
    pool = small_pixels(8, 9)
    guard = Strip(overlays=5).calibrate(net, CLEAN, frr=0.1, pool=pool)
    np.testing.assert_array_equal(guard.pool, pool)
    np.testing.assert_array_equal(Strip(overlays=5).calibrate(net, CLEAN, frr=0.1).pool, CLEAN)


def test_a_guard_can_be_looked_at(guard_of):
    guard, _ = guard_of("persistence")
    head, *rows = repr(guard).splitlines()
    assert head.startswith("detector") and [row.split()[:2] for row in rows] == [
        ["persistence", "10"],
        ["persistence", "5"],
    ]
    verdicts = guard(small_pixels(3))
    assert repr(verdicts).splitlines()[0].startswith("persistence: ")
    assert len(repr(verdicts).splitlines()) == 5 and len(repr(guard(CLEAN)).splitlines()) == 1
    for frozen in (guard, verdicts):
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.threshold = 0.0


def test_a_threshold_of_ones_own(guard_of):
    guard, _ = guard_of("persistence")
    changed = guard.with_threshold(0.25)
    assert changed.threshold == 0.25 and guard.threshold != 0.25
    assert changed.rule_text() == "rejected if the score is above 0.2500"
    assert changed.record()["frr"] is None and "by hand" in repr(changed)
    np.testing.assert_array_equal(changed(CLEAN).rejected, guard(CLEAN).scores > 0.25)
    with pytest.raises(InputError, match="detector 'strip': the guard holds persistence"):
        guard.with_threshold(1.0, "strip")
    with pytest.raises(InputError, match="threshold nan: expected a number"):
        guard.with_threshold(float("nan"))


def test_a_threshold_of_an_entropy_is_in_bits(guard_of):
    guard, _ = guard_of("masks")
    changed = guard.with_threshold(1.5)
    assert changed.rule_text() == "rejected if the entropy is below 1.5000 bits"
    entropies = -guard(CLEAN).scores
    np.testing.assert_array_equal(changed(CLEAN).rejected, entropies < 1.5)


def test_a_guard_with_masks_gives_the_scores_that_are_there_without_one(net):
    guard = Masks().calibrate(net, CLEAN, frr=0.1, seed=1)
    bare = scores_without_guard(net, small_pixels(5), seed=1)
    np.testing.assert_array_equal(guard(small_pixels(5)).scores, bare)
    assert (bare != scores_without_guard(net, small_pixels(5), seed=2)).any()


def test_progress(net):
    told = []
    guard = Both(masks=6, overlays=5).calibrate(net, CLEAN, frr=0.1, progress=told.append)
    assert {step.title for step in told} == {"calibration, masks", "calibration, strip"}
    told.clear()
    guard(CLEAN[:3], progress=told.append)
    assert {step.title for step in told} == {"masks", "strip"}


@pytest.mark.parametrize(
    ("images", "options", "said"),
    [
        (small_pixels(1), {"frr": 0.01}, "finer than 1 clean image allows"),
        (CLEAN, {"frr": 0.0}, "false rejection rate 0: expected a share"),
        (CLEAN, {"frr": (0.1, 0.001)}, "false rejection rate 0.001: finer than 60 clean images"),
        (CLEAN, {"frr": ()}, "no false rejection rate given"),
        (np.repeat(CLEAN[:1], 60, axis=0), {"frr": 0.1, "fit": "normal"}, "several scores to fit a normal to"),
        (CLEAN[:0], {}, "empty|no images"),
        (iter(CLEAN), {}, "once only"),
        (np.full((60, *SHAPE), np.nan), {}, "images"),
    ],
)
def test_what_cannot_be_calibrated(net, images, options, said):
    with pytest.raises(InputError, match=said):
        Masks(masks=6).calibrate(net, images, **options)


def test_a_pool_of_one_image_and_a_fit_that_does_not_exist(net):
    with pytest.raises(InputError, match="1 different images"):
        Strip(overlays=5).calibrate(net, CLEAN, frr=0.1, pool=CLEAN[:1])
    with pytest.raises(InputError, match="fit 'magic': expected conformal, quantile, normal"):
        unchecked(guards.calibrated)([Masks()], net, CLEAN, None, "magic", 0, None, None, silent)


def test_a_guard_of_a_net_without_a_file_is_not_saved(tmp_path):
    guard = Masks(masks=6).calibrate(small_net(), CLEAN, frr=0.1)
    with pytest.raises(InputError, match="does not come from a file"):
        guard.save(tmp_path / "guard")
    # The command knows the file.
    head = {"schema": 1, "model": {"name": "n.h5", "sha256": "0" * 64}, "input_scale": "unit", "seed": 0}
    guard.save(tmp_path / "guard", head)
    assert json.loads((tmp_path / "guard" / "guard.json").read_text())["model"]["sha256"] == "0" * 64


def test_a_guard_that_cannot_be_written(guard_of, tmp_path):
    guard, _ = guard_of("masks")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        guard.save(tmp_path / "file" / "guard")


def test_only_some_detectors(net):
    """They come with their parts, and measure as before."""
    guard = calibrate([Persistence(masks=6), small_detector("both")], net, CLEAN, frr=0.1)
    both = guard.only("both")
    assert both.default == "both" and set(both.detectors) == {"masks", "strip", "both"}
    assert both.threshold == guard.detectors["both"].threshold
    found = evaluate(both, (CLEAN, np.zeros(len(CLEAN), int))).scores["clean"]["both"]
    np.testing.assert_array_equal(found, both(CLEAN).scores)
    for wrong in (("goodnet",), ()):
        with pytest.raises(InputError, match="the guard holds persistence, masks, strip, both"):
            guard.only(*wrong)


def test_a_threshold_by_hand_is_saved(net, tmp_path):
    guard = calibrate([Persistence(masks=6)], net, CLEAN, frr=0.1).with_threshold(1.25)
    guard.save(tmp_path)
    again = Guard.load(tmp_path / "guard.json", net)
    assert again.threshold == 1.25 and again.detectors["persistence"].levels[0].frr is None


def test_a_part_has_one_set_of_settings(net):
    with pytest.raises(InputError, match=r"masks with two settings, .*a guard holds each detector"):
        calibrate([Both(masks=6, overlays=5, keep=0.3), Masks(masks=6)], net, CLEAN, frr=0.1)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5])
def test_a_seed_is_checked(net, seed):
    with pytest.raises(InputError, match=r"seed .*: expected a whole number"):
        unchecked(guards.calibrated)([Persistence(masks=6)], net, CLEAN, 0.1, "conformal", seed, None, None, silent)


def test_rates_may_be_numbers_of_numpy():
    for rates in (np.float64(0.5), np.array([0.5])):
        assert unchecked(guards._rates)(rates, 60) == [0.5]
