"""Guards as a user makes and uses them, on small nets and noise; what is refused, and how."""

import csv
import io
import json

import h5py
import numpy as np
import pytest
from helpers import command, random_net, random_pixels, refused, succeeds, write_official

from jaxdefend.nets.keras_files import write_model

FEW = ("--masks", "20", "--overlays", "12")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A net of eleven classes and images that it gives its own labels, so that it recognises all of them."""
    from jaxdefend.datasets.batches import ArrayImages, padded
    from jaxdefend.nets.inference import predictions

    folder = tmp_path_factory.mktemp("detect")
    net = random_net(1)
    write_model(net, folder / "net.h5")
    write_model(random_net(2), folder / "other.h5")
    for name, seed, n in (("clean", 1, 60), ("test", 2, 30), ("poisoned", 3, 25), ("one", 4, 1)):
        pixels = random_pixels(n, seed)
        write_official(folder / f"{name}.h5", pixels, predictions(net, padded(ArrayImages(pixels), 32))[0], "uint8")
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
    options = ("--clean", "clean.h5", *FEW, "--detector", "both", "--out", "both")
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
    assert "not a whole guard" in line


def test_evaluate(place):
    options = ("--valid", "clean.h5", "--clean", "test.h5", "--poisoned", "noise=poisoned.h5", *FEW, "--frr", "0.1")
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
        (("calibrate", "net.h5", "--clean", "one.h5"), "1 clean images allow"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--frr", "0"), "--frr 0: expected a share"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--frr", "0.001"), "finer than 60 clean images"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--overlays", "0"), "--overlays 0"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--masks", "0"), "--masks 0"),
        (("calibrate", "net.h5", "--clean", "clean.h5", "--blend", "half"), "--blend half"),
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
        (("improve",), "improve"),
        ((), "ACTION"),
    ],
)
def test_bad_input(place, options, said):
    before = sorted(place.rglob("*"))
    assert said in refused("detect", *options, cwd=place)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record | {"guard": 99},
        lambda record: {key: value for key, value in record.items() if key != "settings"},
        lambda record: record | {"detector": "magic"},
        lambda record: record | {"detectors": {"persistence": {"threshold": 0.0}}},
        lambda record: record | {"settings": record["settings"] | {"masks": 10**9}},
        lambda record: record | {"settings": record["settings"] | {"seed": "0"}},
        lambda record: record | {"settings": {k: v for k, v in record["settings"].items() if k != "keep_few"}},
        lambda record: record | {"clean": {name: {"mean": float("nan"), "std": 1.0} for name in record["clean"]}},
        lambda record: record | {"clean": {name: {"mean": 0.0, "std": 0.0} for name in record["clean"]}},
        lambda record: record | {"clean": {name: {"mean": "x", "std": 1.0} for name in record["clean"]}},
        lambda record: (
            record | {"detectors": {n: b | {"threshold": float("nan")} for n, b in record["detectors"].items()}}
        ),
        lambda record: record | {"detectors": {"persistence": {"threshold": "low"}}},
        lambda record: record | {"overlays_file": "../../secrets.h5", "detectors": {"strip": {"threshold": 0.0}}},
        lambda record: [record],
    ],
)
def test_spoiled_guards(place, tmp_path, spoil):
    record = json.loads((place / "guard" / "guard.json").read_text())
    (tmp_path / "guard.json").write_text(json.dumps(spoil(record)))
    line = refused("detect", "score", "net.h5", "one.h5", "--guard", tmp_path / "guard.json", cwd=place)
    assert "guard.json" in line and "detect calibrate" in line


def test_a_list_on_standard_input(place):
    import subprocess
    import sys

    from helpers import ENVIRONMENT

    def predicted(text):
        words = [sys.executable, "-m", "jaxdefend.predict", "-", "--model", "net.h5", "--json"]
        return subprocess.run(
            words, input=text, capture_output=True, text=True, cwd=place, env=ENVIRONMENT, check=False
        )

    done = predicted("test.h5\none.h5\n")
    assert len(done.stdout.splitlines()) == 31
    assert predicted("").returncode == 2
    assert command("predict", "-", "one.h5", "--model", "net.h5", cwd=place).returncode == 2
