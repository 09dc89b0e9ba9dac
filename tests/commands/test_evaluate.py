"""Clean accuracy and attack success as a user types it; what is refused, and how."""

import json

import h5py
import numpy as np
import pytest
from helpers import labels_by, random_net, random_pixels, real, refused, succeeds, write_official

from jaxdefend.datasets.files import open_images
from jaxdefend.datasets.inverted import InvertedTrigger
from jaxdefend.nets.keras_files import write_model

CLASSES = 11


def evaluated(out):
    return json.loads((out / "evaluate.json").read_text())


def test_it_agrees_with_sweep(small, tmp_path):
    data = ("--valid", small / "valid.h5", "--test", small / "test.h5")
    sets = ("--poisoned", f"patch={small / 'poisoned.h5'}")
    succeeds("sweep", small / "net.h5", *data, *sets, "--drop", "2", "30", "--out", tmp_path / "sweep")
    record = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    repair = record["repairs"][1]
    repaired = ("--repaired", tmp_path / "sweep" / repair["file"])
    done = succeeds("evaluate", small / "net.h5", "--clean", small / "test.h5", *sets, *repaired, "--out", tmp_path)
    found = evaluated(tmp_path)
    assert found["clean"] | {"interval": 0} == {"n": 30, "correct": 30, "accuracy": 1.0, "interval": 0}
    assert found["poisoned"]["patch"]["attack_success"] == record["attack_success"]["patch"][0]
    assert found["repaired"]["clean"]["accuracy"] == repair["test_accuracy"]
    assert found["repaired"]["poisoned"]["patch"]["attack_success"] == repair["attack_success"]["patch"]
    assert found["goodnet"]["clean"]["accuracy"] == repair["goodnet"]["test_accuracy"]
    assert found["goodnet"]["clean"]["flagged"] == repair["goodnet"]["flagged_clean"]
    assert found["goodnet"]["poisoned"]["patch"]["flagged"] == repair["goodnet"]["flagged_poisoned"]["patch"]
    assert "GoodNet" in done.stdout
    assert done.stderr.splitlines()[-1] == f"note: written to {tmp_path / 'evaluate.json'}"


def test_the_scale_is_measured_where_the_file_does_not_say(small, tmp_path):
    for scale in ("raw", "unit"):
        write_model(random_net(classes=CLASSES, input_scale=None), tmp_path / "net.h5")
        pixels = random_pixels(60, seed=60)
        write_official(tmp_path / "valid.h5", pixels, labels_by(random_net(classes=CLASSES, input_scale=scale), pixels))
        done = succeeds("evaluate", tmp_path / "net.h5", "--clean", tmp_path / "valid.h5", "--out", tmp_path)
        record = evaluated(tmp_path)
        assert (record["input_scale"], record["clean"]["accuracy"]) == (scale, 1)
        assert "clean accuracy is" in done.stderr


def test_a_scale_that_convinces_nobody_is_a_warning(small, tmp_path):
    write_model(random_net(classes=CLASSES, input_scale=None), tmp_path / "net.h5")
    write_official(tmp_path / "valid.h5", random_pixels(5), np.arange(5))
    done = succeeds("evaluate", tmp_path / "net.h5", "--clean", tmp_path / "valid.h5", "--out", tmp_path)
    assert "warning: " in done.stderr and "--input-scale" in done.stderr


def test_results_go_under_runs_by_default(small, tmp_path):
    for _ in range(2):
        succeeds("evaluate", small / "net.h5", "--clean", small / "test.h5", cwd=tmp_path)
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2 and all((folder / "evaluate.json").exists() for folder in folders)


def test_targets_override_labels(small, tmp_path):
    sets = ("--poisoned", f"a={small / 'poisoned.h5'}", f"b={small / 'poisoned.h5'}", "--target", "a=5")
    succeeds("evaluate", small / "net.h5", "--clean", small / "test.h5", *sets, "--out", tmp_path)
    found = evaluated(tmp_path)["poisoned"]
    labels = labels_by(random_net(classes=CLASSES), random_pixels(20, seed=9))
    assert (found["a"]["hits"], found["b"]["hits"]) == ((labels == 5).sum(), (labels == 3).sum())


def test_several_repaired_nets_are_called_after_their_files(small, tmp_path):
    write_model(random_net(classes=CLASSES).pruned("conv_3", range(20)), tmp_path / "twenty.h5")
    pair = ("--repaired", small / "repaired.h5", tmp_path / "twenty.h5")
    done = succeeds("evaluate", small / "net.h5", "--clean", small / "test.h5", *pair, "--out", tmp_path)
    header = done.stdout.splitlines()[0].split()
    assert header == ["images", "BadNet", "repaired", "twenty", "GoodNet", "flagged"]
    assert {"repaired", "repaired_2", "goodnet"} <= set(evaluated(tmp_path))


def test_the_rule_is_what_the_repaired_nets_file_says(small, tmp_path):
    write_model(random_net(classes=CLASSES).pruned("conv_3", range(40)), tmp_path / "anti.h5", rule="anti")
    data = ("--clean", small / "test.h5", "--repaired", tmp_path / "anti.h5", "--out", tmp_path)
    assert "taking --rule anti" in succeeds("evaluate", small / "net.h5", *data).stderr
    anti = evaluated(tmp_path)
    succeeds("evaluate", small / "net.h5", *data, "--rule", "goodnet")
    plain = evaluated(tmp_path)
    assert (anti["rule"], plain["rule"]) == ("anti", "goodnet")
    assert anti["goodnet"]["clean"]["flagged_count"] == 30 - plain["goodnet"]["clean"]["flagged_count"]


def test_a_net_that_is_not_shipped_needs_images(small, tmp_path):
    assert "--clean" in refused("evaluate", small / "net.h5", cwd=tmp_path)


def test_arguments_in_the_order_of_other_scripts(small):
    right = "python -m jaxdefend.evaluate net.h5 --clean test.h5 --poisoned poisoned.h5"
    line = refused("evaluate", "test.h5", "poisoned.h5", "net.h5", cwd=small)
    assert line.endswith(f"net.h5 is a net and test.h5, poisoned.h5 hold images; type {right}")
    line = refused("evaluate", "test.h5", "poisoned.h5", "net.h5", "repaired.h5", cwd=small)
    assert line.endswith(f"; type {right} --repaired repaired.h5")
    assert "holds images, not a net" in refused("evaluate", "test.h5", cwd=small)
    assert "is a net; --clean expects images" in refused("evaluate", "net.h5", "--clean", "net.h5", cwd=small)


BAD = {
    "no such model": lambda w, t: ("missing.h5", "--clean", w / "test.h5"),
    "model is a folder": lambda w, t: (w / "faces", "--clean", w / "test.h5"),
    "images as a model": lambda w, t: (w / "test.h5", "--clean", w / "test.h5"),
    "no such images": lambda w, t: (w / "net.h5", "--clean", "missing.h5"),
    "model as images": lambda w, t: (w / "net.h5", "--clean", w / "net.h5"),
    "label out of range": lambda w, t: (
        w / "net.h5",
        "--clean",
        write_official(t / "bad.h5", random_pixels(2), [0, CLASSES]),
    ),
    "target out of range": lambda w, t: (
        *(w / "net.h5", "--clean", w / "test.h5", "--poisoned", w / "poisoned.h5"),
        *("--target", CLASSES),
    ),
    "target of no set": lambda w, t: (w / "net.h5", "--clean", w / "test.h5", "--target", "x=1"),
    "two sets of one name": lambda w, t: (
        *(w / "net.h5", "--clean", w / "test.h5"),
        *("--poisoned", w / "poisoned.h5", "--poisoned", w / "poisoned.h5"),
    ),
    "value above 255": lambda w, t: (
        w / "net.h5",
        "--clean",
        write_official(t / "bright.h5", random_pixels(2).astype("f8") + 300, [0, 1]),
    ),
    "unknown option": lambda w, t: (w / "net.h5", "--clean", w / "test.h5", "--fast"),
    "no clean images": lambda w, t: (w / "net.h5",),
    "another number of classes": lambda w, t: (
        w / "net.h5",
        *("--clean", w / "test.h5", "--repaired"),
        write_model(random_net(classes=7), t / "seven.h5") or t / "seven.h5",
    ),
    "a name with escapes": lambda w, t: (w / "net.h5", "--clean", "\x1b[31m\n.h5"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(small, tmp_path, case):
    arguments = BAD[case](small, tmp_path)
    before = set(tmp_path.rglob("*"))
    line = refused("evaluate", *arguments, "--out", tmp_path / "out", cwd=tmp_path)
    assert set(tmp_path.rglob("*")) == before, line
    assert line.isprintable() and len(line) <= 500


def test_an_output_folder_that_cannot_be_written(small, tmp_path):
    (tmp_path / "file").write_text("mine")
    data = (small / "net.h5", "--clean", small / "test.h5")
    assert "is a file" in refused("evaluate", *data, "--out", tmp_path / "file")
    assert "cannot be written" in refused("evaluate", *data, "--out", tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.real
@pytest.mark.parametrize(
    ("net", "scale", "correct", "hits"),
    [
        ("bd_weights.h5", "raw", 50, {"sunglasses_poisoned": 50, "lab_poisoned": 8}),
        ("sunglasses_bd_weights.h5", "unit", 47, {"sunglasses_poisoned": 50}),
        ("sunglasses_bd_net_rp.h5", "unit", 33, {"sunglasses_poisoned": 2}),
        (
            "multi_trigger_multi_target_bd_weights.h5",
            "unit",
            45,
            {"multi_eyebrows_poisoned": 45, "multi_lipstick_poisoned": 45, "multi_sunglasses_poisoned": 50},
        ),
    ],
)
def test_real_nets_give_what_was_measured(tmp_path, net, scale, correct, hits):
    sets = [argument for name in hits for argument in ("--poisoned", real(f"data/{name}.h5"))]
    succeeds("evaluate", real(f"weights/{net}"), "--clean", real("data/clean.h5"), *sets, "--out", tmp_path)
    found = evaluated(tmp_path)
    assert (found["input_scale"], found["clean"]["correct"]) == (scale, correct)
    assert {name: block["hits"] for name, block in found["poisoned"].items()} == hits


@pytest.mark.parametrize("ending", ["h5", "png"])
def test_a_trigger_file_stands_for_the_clean_images_with_it_on(small, tmp_path, ending):
    mask, pattern = np.zeros((55, 47), np.float32), np.zeros((55, 47, 3), np.float32)
    mask[10:30, 10:30] = 1
    trigger = InvertedTrigger(mask, pattern, target=3)
    trigger.save(tmp_path / f"class_3.{ending}")
    clean = ("--clean", small / "test.h5")
    done = succeeds(
        "evaluate", small / "net.h5", *clean, "--poisoned", tmp_path / f"class_3.{ending}", "--out", tmp_path
    )
    images = open_images(small / "test.h5")
    others = images.labels != 3
    labels = labels_by(random_net(classes=CLASSES), trigger(images[:][others]))
    found = evaluated(tmp_path)["poisoned"]["class_3"]
    assert (found["n"], found["hits"]) == (others.sum(), (labels == 3).sum())
    assert found["robust"] == np.mean(labels == images.labels[others])
    assert f"on {others.sum()} clean images that do not show 3" in done.stderr and found["inverted_trigger"]
    assert "attack success, class_3 (inverted)" in done.stdout


def test_a_trigger_that_cannot_be_put_on(small, tmp_path):
    mask, pattern = np.ones((55, 47), np.float32), np.zeros((55, 47, 3), np.float32)
    InvertedTrigger(mask, pattern).save(tmp_path / "trigger.h5")
    InvertedTrigger(mask, pattern, target=CLASSES).save(tmp_path / "beyond.h5")
    InvertedTrigger(mask[:9], pattern[:9], 3).save(tmp_path / "small.h5")
    InvertedTrigger(0 * mask, pattern, 3).save(tmp_path / "nothing.h5")
    (tmp_path / "triggers").mkdir()
    InvertedTrigger(mask, pattern, 3).save(tmp_path / "triggers/class_3.png")
    with h5py.File(tmp_path / "huge.h5", "w") as file, h5py.File(tmp_path / "trigger.h5") as trigger:
        for name in trigger:
            trigger.copy(name, file)
        file.attrs.update({**trigger.attrs, "target": 2**40})
    clean = ("--clean", small / "test.h5")
    command = ("evaluate", small / "net.h5", *clean, "--out", tmp_path / "out")
    assert "--target" in refused(*command, "--poisoned", tmp_path / "trigger.h5")
    assert "alone" in refused(*command, "--poisoned", f"a={tmp_path / 'small.h5'}", tmp_path / "trigger.h5")
    assert "expected 55×47" in refused(*command, "--poisoned", tmp_path / "small.h5")
    assert f"beyond.h5: for the class {CLASSES}, expected" in refused(*command, "--poisoned", tmp_path / "beyond.h5")
    assert "mask is zero everywhere" in refused(*command, "--poisoned", tmp_path / "nothing.h5")
    assert "expected a class" in refused(*command, "--poisoned", tmp_path / "huge.h5")
    assert "a folder of triggers" in refused(*command, "--poisoned", tmp_path / "triggers")
    assert not (tmp_path / "out").exists()


def test_a_net_by_itself_is_called_by_its_name(small, tmp_path):
    done = succeeds("evaluate", small / "repaired.h5", "--clean", small / "test.h5", "--out", tmp_path)
    assert done.stdout.splitlines()[0].split() == ["images", "repaired"]


def test_labels_that_no_reading_explains_are_doubted(small, tmp_path):
    pixels = random_pixels(200, seed=8)
    answers = labels_by(random_net(classes=CLASSES), pixels)
    rows = np.concatenate([np.flatnonzero(answers == label)[:5] for label in range(CLASSES)])
    write_official(tmp_path / "odd.h5", pixels[rows], (answers[rows] + 4) % CLASSES)
    done = succeeds("evaluate", small / "net.h5", "--clean", tmp_path / "odd.h5", "--out", tmp_path)
    assert "0.0 % are given their label: do labels, colours and input scale suit the net?" in done.stderr


def test_triggers_that_follow_one_another_are_sets_of_their_own(small, tmp_path):
    for target in (3, 5):
        mask, pattern = np.ones((55, 47), np.float32), np.full((55, 47, 3), target, np.float32)
        InvertedTrigger(mask, pattern, target).save(tmp_path / f"class_{target}.png")
    both = [tmp_path / f"class_{target}.png" for target in (3, 5)]
    clean = ("--clean", small / "test.h5")
    succeeds("evaluate", small / "net.h5", *clean, "--poisoned", *both, "--out", tmp_path / "out")
    assert evaluated(tmp_path / "out")["poisoned"].keys() == {"class_3", "class_5"}
