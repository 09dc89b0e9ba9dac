"""Guards as a user makes and uses them, on small nets and noise; what is refused, and how."""

import csv
import io
import json

import h5py
import numpy as np
import pytest
from helpers import labels_by, random_net, random_pixels, refused, succeeds, write_official

from jaxdefend.nets.keras_files import write_model

# Masks and overlays, for the detectors that read them.
FEW, FEW_OVERLAYS = ("--masks", "20"), ("--overlays", "12")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A net of eleven classes and images that it gives its own labels, so that it recognises all of them."""
    folder = tmp_path_factory.mktemp("detect")
    net = random_net(1)
    write_model(net, folder / "net.h5")
    write_model(random_net(2), folder / "other.h5")
    for name, seed, n in (("clean", 1, 60), ("test", 2, 30), ("poisoned", 3, 25), ("one", 4, 1)):
        pixels = random_pixels(n, seed)
        write_official(folder / f"{name}.h5", pixels, labels_by(net, pixels), "uint8")
    succeeds("detect", "calibrate", "net.h5", "--clean", "clean.h5", *FEW, "--frr", "0.1", "--out", "guard", cwd=folder)
    return folder


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_guard_keeps_its_rate_on_what_it_was_made_with(place):
    record = json.loads((place / "guard" / "guard.json").read_text())
    assert record["detector"] == "persistence" and record["frr"] == 0.1 and record["input_scale"] == "unit"
    done = succeeds("detect", "score", "net.h5", "clean.h5", "--guard", "guard/guard.json", "--out", "s", cwd=place)
    rows = rows_of(done.stdout)
    assert (place / "s" / "scores.csv").read_text() == done.stdout
    scores = np.array([float(row["score"]) for row in rows])
    # 61 × 0.1: six images above the threshold.
    assert (scores > record["threshold"]).sum() <= 6
    assert [row["rejected"] == "True" for row in rows] == (scores > record["threshold"]).tolist()
    written = json.loads((place / "s" / "scores.json").read_text())["images"]
    assert [row["image"] for row in written] == [row["image"] for row in rows]


def test_a_guard_with_strip_brings_its_overlays(place):
    options = ("--clean", "clean.h5", *FEW, *FEW_OVERLAYS, "--detector", "both", "--out", "both")
    done = succeeds("detect", "calibrate", "net.h5", *options, "--frr", "0.05", cwd=place)
    assert "confidence" in done.stdout
    with h5py.File(place / "both" / "overlays.h5") as file:
        assert file["data"].shape == (60, 3, 55, 47)
    done = succeeds("detect", "score", "net.h5", "clean.h5", "--guard", "both/guard.json", "--out", "s2", cwd=place)
    record = json.loads((place / "both" / "guard.json").read_text())
    assert set(record["detectors"]) == {"masks", "strip", "both"}
    rejected = [row["rejected"] == "True" for row in rows_of(done.stdout)]
    assert sum(rejected) <= 3
    write_official(place / "both" / "overlays.h5", random_pixels(60, 9), np.zeros(60), "uint8")
    assert "not the overlays" in refused("detect", "score", "net.h5", "one.h5", "--guard", "both/guard.json", cwd=place)


def test_a_guard_with_masks_gives_the_scores_that_are_there_without_one(place):
    options = ("--clean", "clean.h5", *FEW, "--detector", "masks", "--frr", "0.1", "--seed", "1", "--out", "masks")
    succeeds("detect", "calibrate", "net.h5", *options, cwd=place)
    assert set(json.loads((place / "masks" / "guard.json").read_text())["detectors"]) == {"masks"}
    guarded, bare = (
        rows_of(succeeds("detect", "score", "net.h5", "one.h5", *options, cwd=place).stdout)
        for options in (("--guard", "masks/guard.json", "--out", "s3"), ("--seed", "1", "--out", "s4"))
    )
    assert "rejected" in guarded[0] and "rejected" not in bare[0]


def test_a_guard_without_what_its_scores_are_measured_by_is_refused(place):
    record = json.loads((place / "guard" / "guard.json").read_text())
    assert set(record["clean"]) == {"few_entropy", "few_changed"}
    del record["clean"]["few_changed"]
    (place / "part.json").write_text(json.dumps(record))
    line = refused("detect", "score", "net.h5", "one.h5", "--guard", "part.json", cwd=place)
    assert "clean is missing or wrong" in line


def test_evaluate(place):
    options = ("--valid", "clean.h5", "--clean", "test.h5", "--poisoned", "noise=poisoned.h5", *FEW, *FEW_OVERLAYS)
    options += ("--frr", "0.1")
    done = succeeds("detect", "evaluate", "net.h5", *options, "--repaired", "other.h5", "--out", "e", cwd=place)
    names = {path.name for path in (place / "e").iterdir()}
    assert names == {"detect.json", "detect.csv", "histogram.png", "errors.png", "superimposed.png"}
    record = json.loads((place / "e" / "detect.json").read_text())
    assert record["default"] == "persistence" and set(record["detectors"]) == {
        "masks",
        "persistence",
        "strip",
        "both",
        "goodnet",
    }
    table = rows_of((place / "e" / "detect.csv").read_text())
    assert len(table) == 55
    for name, block in record["detectors"].items():
        noise = block["poisoned"]["noise"]
        assert noise["n"] == noise["fires"] == 25
        assert set(noise["far_at_frr"]) == {"0.005", "0.01", "0.02", "0.05", "0.1"}
        scores = {
            of: [float(row[f"{name}_score"]) for row in table if row["set"] == of] for of in ("clean", "poisoned noise")
        }
        pairs = np.subtract.outer(scores["poisoned noise"], scores["clean"])
        assert noise["auroc"] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
        passed = np.array(scores["clean"]) <= block["threshold"]
        assert block["guarded"]["clean"]["correct"] == passed.sum()
        assert name in done.stdout
    assert record["detectors"]["strip"]["clean_entropy"]["mean"] > 0


def test_evaluate_reads_a_guard(place):
    options = ("--clean", "test.h5", "--poisoned", "noise=poisoned.h5", "--guard", "guard/guard.json", "--out", "g")
    succeeds("detect", "evaluate", "net.h5", *options, cwd=place)
    block = json.loads((place / "g" / "detect.json").read_text())["detectors"]["persistence"]
    assert block["threshold"] == json.loads((place / "guard" / "guard.json").read_text())["threshold"]


def test_chosen_detectors_and_a_threshold_by_hand(place):
    options = ("--valid", "clean.h5", "--clean", "test.h5", "--poisoned", "noise=poisoned.h5")
    done = succeeds("detect", "evaluate", "net.h5", *options, "--detector", "masks", *FEW, "--out", "m", cwd=place)
    record = json.loads((place / "m" / "detect.json").read_text())
    assert record["default"] == "masks" and set(record["detectors"]) == {"masks"}
    assert "strip" not in done.stdout
    threshold = -record["detectors"]["masks"]["clean_score"]["mean"]
    options += ("--detector", "masks", *FEW, "--threshold", str(threshold), "--out", "t")
    done = succeeds("detect", "evaluate", "net.h5", *options, cwd=place)
    block = json.loads((place / "t" / "detect.json").read_text())["detectors"]["masks"]
    assert block["threshold"] == pytest.approx(-threshold) and 0.2 < block["frr_measured"] < 0.8
    assert f"the entropy is below {threshold:.4f} bits" in done.stderr


def test_without_poisoned_images_there_is_the_clean_side(place):
    options = ("--valid", "clean.h5", "--clean", "test.h5", *FEW, "--detector", "persistence", "--frr", "0.1", "0.2")
    done = succeeds("detect", "evaluate", "net.h5", *options, "--out", "c", cwd=place)
    assert {path.name for path in (place / "c").iterdir()} == {"detect.json", "detect.csv", "histogram.png"}
    (row,) = done.stdout.splitlines()[1:]
    assert row.startswith("persistence") and done.stdout.splitlines()[0].split()[:2] == ["detector", "rejects"]


def test_the_columns_follow_the_rates(place):
    options = ("--valid", "clean.h5", "--clean", "test.h5", "--poisoned", "noise=poisoned.h5", *FEW)
    options += ("--detector", "persistence", "--frr", "0.05", "0.2", "--out", "rates")
    header = succeeds("detect", "evaluate", "net.h5", *options, cwd=place).stdout.splitlines()[0]
    assert "FAR at FRR 5 %" in header and "at 20 %" in header


def test_options_that_a_guard_holds_are_named(place):
    options = ("--clean", "test.h5", "--guard", "guard/guard.json", "--fit", "normal", "--masks", "9", "--out", "held")
    done = succeeds("detect", "evaluate", "net.h5", *options, cwd=place)
    assert "warning: --fit, --masks: not read; the guard holds" in done.stderr


def test_no_labels_are_needed_where_the_scale_is_known(place, tmp_path):
    from PIL import Image

    for number, pixels in enumerate(random_pixels(8, 5)):
        Image.fromarray(pixels).save(tmp_path / f"face_{'abcdefgh'[number]}.png")
    done = succeeds("detect", "calibrate", "net.h5", "--clean", tmp_path, *FEW, "--out", "unlabelled", cwd=place)
    levels = json.loads((place / "unlabelled" / "guard.json").read_text())["detectors"]["persistence"]["levels"]
    assert [level["frr_asked"] for level in levels] == [pytest.approx(1 / 9)]
    assert "11.1" in done.stdout


def test_by_default_the_rates_are_those_that_the_images_allow(place):
    succeeds("detect", "calibrate", "net.h5", "--clean", "clean.h5", *FEW, "--out", "default", cwd=place)
    levels = json.loads((place / "default" / "guard.json").read_text())["detectors"]["persistence"]["levels"]
    assert [level["frr_asked"] for level in levels] == [0.05]


def test_equal_seeds_give_equal_scores(place):
    first, again, other = (
        succeeds("detect", "score", "net.h5", "test.h5", "--seed", seed, "--out", f"seed{number}", cwd=place).stdout
        for number, seed in enumerate((1, 1, 2))
    )
    assert first == again != other


def test_predict_with_a_guard(place):
    options = ("--model", "net.h5", "--guard", "guard/guard.json", "--json")
    rows = [json.loads(line) for line in succeeds("predict", "test.h5", *options, cwd=place).stdout.splitlines()]
    scored = rows_of(succeeds("detect", "score", "net.h5", "test.h5", "--guard", "guard/guard.json", cwd=place).stdout)
    for row, score in zip(rows, scored, strict=True):
        assert row["score"] == pytest.approx(float(score["score"]), abs=1e-4)
        assert row["label"] == (11 if row["rejected"] else row["badnet"])
        assert row["backdoored"] == row["rejected"] and row["goodnet"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("calibrate", "net.h5", "--clean", "one.h5", "--frr", "0.05"), "--frr 0.05: finer than 1 clean image allows"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--frr", "0"), "--frr 0: expected a share"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--frr", "0.001"), "finer than 60 clean images"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--detector", "strip", "--overlays", "0"), "--overlays 0"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--overlays", "9"), "--overlays: persistence does not read it"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--pool", "one.h5"), "--pool: none of these detectors"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--masks", "0"), "--masks 0"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--detector", "strip", "--blend", "half"), "--blend half"),
        (
            ("calibrate", "net.h5", "--clean", "clean.h5", "--detector", "strip", "--pool", "one.h5"),
            "1 different images",
        ),
        (("calibrate", "net.h5"), "--clean"),
        (("score", "net.h5", "missing.png"), "missing.png"),
        (("score", "net.h5", "test.h5", "--guard", "missing.json"), "missing.json"),
        (("score", "other.h5", "test.h5", "--guard", "guard/guard.json"), "another net"),
        (("score", "net.h5", "test.h5", "--guard", "guard/guard.json", "--input-scale", "raw"), "input scale"),
        (("evaluate", "net.h5", "--clean", "test.h5", "--most", "0"), "--most 0"),
        (("evaluate", "net.h5", "--clean", "test.h5", "--valid", "clean.h5", "--guard", "guard/guard.json"), "--guard"),
        (("evaluate", "net.h5", "--clean", "test.h5", "--threshold", "1"), "--threshold"),
        (("evaluate", "net.h5", "--clean", "test.h5", "--detector", "goodnet"), "--detector goodnet: asks a repaired"),
        (
            ("evaluate", "net.h5", "--clean", "test.h5", "--detector", "strip", "--masks", "9"),
            "--masks: strip does",
        ),
        (("evaluate", "test.h5", "net.h5"), "python -m jaxdefend.detect evaluate net.h5 --clean test.h5"),
        (("score", "test.h5", "net.h5"), "test.h5: holds images, not a net"),
        (("improve",), "improve"),
        ((), "ACTION"),
    ],
)
def test_bad_input(place, options, said):
    before = sorted(place.rglob("*"))
    assert said in refused("detect", *options, cwd=place)
    assert sorted(place.rglob("*")) == before


def with_block(record, **changes):
    return record | {"detectors": {name: block | changes for name, block in record["detectors"].items()}}


def with_settings(record, **changes):
    (block,) = record["detectors"].values()
    return with_block(record, settings=block["settings"] | changes)


def without(record, *keys):
    return {key: value for key, value in record.items() if key not in keys}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record | {"guard": 99},
        lambda record: {
            **record,
            "detectors": {name: without(block, "settings") for name, block in record["detectors"].items()},
        },
        lambda record: without(record, "detectors"),
        lambda record: record | {"detector": "magic"},
        lambda record: record | {"detectors": {"persistence": {"threshold": 0.0}}},
        lambda record: with_settings(record, masks=10**9),
        lambda record: with_settings(record, masks="0"),
        lambda record: with_settings(record, magic=1),
        lambda record: record | {"seed": "0"},
        lambda record: record | {"seed": -1},
        lambda record: record | {"clean": {name: {"mean": float("nan"), "std": 1.0} for name in record["clean"]}},
        lambda record: record | {"clean": {name: {"mean": 0.0, "std": 0.0} for name in record["clean"]}},
        lambda record: record | {"clean": {name: {"mean": "x", "std": 1.0} for name in record["clean"]}},
        lambda record: with_block(record, levels=[{"frr_asked": 0.1, "threshold": float("nan")}]),
        lambda record: with_block(record, levels=[{"frr_asked": 0.1, "threshold": 1e300}]),
        lambda record: with_block(record, levels=[{"frr_asked": 0.1, "threshold": "low"}]),
        lambda record: with_block(record, levels=[]),
        lambda record: record | {"overlays_file": "../../secrets.h5", "detectors": {"strip": {"threshold": 0.0}}},
        lambda record: [record],
    ],
)
def test_spoiled_guards(place, tmp_path, spoil):
    record = json.loads((place / "guard" / "guard.json").read_text())
    (tmp_path / "guard.json").write_text(json.dumps(spoil(record)))
    line = refused("detect", "score", "net.h5", "one.h5", "--guard", tmp_path / "guard.json", cwd=place)
    assert "guard.json" in line and "detect calibrate" in line


def test_a_guard_is_evaluated_with_the_detectors_chosen(place):
    options = ("--clean", "test.h5", "--poisoned", "noise=poisoned.h5", "--guard", "guard/guard.json", "--out", "some")
    chosen = ("--detector", "persistence", "--threshold", "1.25")
    succeeds("detect", "evaluate", "net.h5", *options, *chosen, cwd=place)
    record = json.loads((place / "some" / "detect.json").read_text())
    assert set(record["detectors"]) == {"persistence"} and record["detectors"]["persistence"]["threshold"] == 1.25
    line = refused("detect", "evaluate", "net.h5", *options, "--detector", "strip", cwd=place)
    assert "detectors strip: the guard holds persistence" in line
