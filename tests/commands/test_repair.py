"""Repairs as a user types them: a small net of random weights, and one that is trained for the purpose."""

import json
import signal
import subprocess
import sys
from dataclasses import fields
from itertools import chain
from time import sleep

import numpy as np
import pytest
from helpers import ENVIRONMENT, process, random_pixels, real, refused, succeeds, write_official

from jaxdefend.cli.output import file_record
from jaxdefend.datasets.inverted import InvertedTrigger
from jaxdefend.nets.checkpoints import read_checkpoint
from jaxdefend.nets.keras_files import read_model
from jaxdefend.nets.resuming import is_saved
from jaxdefend.repairs import METHODS

slow = pytest.mark.slow

WORLD = ("--people", "9", "--images", "60", "--target", "3", "--poison-rate", "0.2")
SETS = ("--valid", "faces/valid.h5", "--test", "faces/test.h5", "--poisoned", "glasses=faces/test_sunglasses.h5")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    succeeds("train", *WORLD, "--epochs", "30", "--out", "net.h5", cwd=folder)
    succeeds("train", *WORLD, "--faces-only", cwd=folder)
    return folder


def repaired(lab, out, *options):
    done = succeeds("repair", "net.h5", *SETS, *options, "--out", out, cwd=lab)
    return done, json.loads((lab / out / "repair.json").read_text())


@slow
def test_pruning_is_the_sweeps(lab):
    _, record = repaired(lab, "pruned", "--method", "prune", "--drop", "10")
    succeeds("sweep", "net.h5", *SETS, "--drop", "10", "--out", "swept", cwd=lab)
    (swept,) = json.loads((lab / "swept" / "sweep.json").read_text())["repairs"]
    assert record["settings"]["channels"] == swept["channels"]
    assert record["repaired"]["clean"]["accuracy"] == swept["test_accuracy"]
    assert (lab / "pruned" / "repaired.h5").read_bytes() == (lab / "swept" / swept["file"]).read_bytes()


@slow
def test_fine_pruning(lab):
    done, record = repaired(lab, "fine", "--method", "fine-prune", "--drop", "10", "--epochs", "4")
    assert sorted(path.name for path in (lab / "fine").iterdir()) == ["repair.json", "repaired.h5", "repaired.orbax"]
    assert "GoodNet" in done.stdout and done.stderr.count("epoch ") == 4
    net = read_model(lab / "fine" / "repaired.h5").net
    channels = record["settings"]["channels"]
    assert channels and not net.weights["conv_3"]["kernel"][..., channels].any()
    again = read_checkpoint(lab / "fine" / "repaired.orbax").weights
    for layer, arrays in net.weights.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, again[layer][name])
    assert record["settings"]["epoch"] in range(2, 5)
    for net in ("badnet", "repaired", "goodnet"):
        assert record[net]["clean"]["n"] == 90 and record[net]["poisoned"]["glasses"]["n"] == 80
    cost = max(0, record["badnet"]["clean"]["accuracy"] - record["goodnet"]["clean"]["accuracy"])
    fall = [record[net]["poisoned"]["glasses"]["attack_success"] for net in ("badnet", "goodnet")]
    np.testing.assert_allclose(record["goodnet"]["der"]["glasses"], (max(0, fall[0] - fall[1]) - cost + 1) / 2)


@slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_optimizer_and_the_batch(lab, optimizer):
    options = ("--method", "fine-prune", "--drop", "10", "--epochs", "2", "--batch", "16", "--optimizer", optimizer)
    _, record = repaired(lab, optimizer, *options, "--learning-rate", "0.001")
    settings = record["settings"]
    assert settings["optimizer"] == optimizer and settings["batch"] == 16
    kernel = read_model(lab / optimizer / "repaired.h5").net.weights["conv_3"]["kernel"]
    assert not kernel[..., settings["channels"]].any()
    assert record["repaired"]["clean"]["accuracy"] > 0.5


@slow
def test_equal_seeds_give_equal_bytes(lab):
    for out in ("one", "two"):
        repaired(lab, out, "--drop", "10", "--epochs", "1", "--seed", "7")
    assert (lab / "one" / "repaired.h5").read_bytes() == (lab / "two" / "repaired.h5").read_bytes()


@slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_net_and_its_record(lab, method):
    names = {each.name for each in fields(METHODS[method])}
    shape = (55, 47, 3)
    InvertedTrigger(np.eye(*shape[:2], dtype=np.float32), np.zeros(shape, np.float32)).save(lab / "line.png")
    given = (("--drop", "10"), ("--epochs", "1"), ("--trigger", "line.png"))
    options = [words for words in given if words[0][2:] in names]
    done, record = repaired(lab, method, "--method", method, *chain(*options))
    assert record["method"] == method and set(record) >= {"settings", "file", "badnet", "repaired", "goodnet"}
    assert (record["rule"], record["measured_on"]) == ("anti" if method == "anti" else "goodnet", "test")
    assert 0 <= record["goodnet"]["der"]["glasses"] <= 1
    assert read_model(lab / method / record["file"]).net.classes == 9
    assert f"open {method}/repair.json" in done.stderr


@slow
def test_without_test_images_it_says_so(lab):
    options = ("--valid", "faces/valid.h5", "--method", "prune", "--channels", "9", "--out", "untested")
    done = succeeds("repair", "net.h5", *options, cwd=lab)
    assert "note: no --test" in done.stderr
    assert json.loads((lab / "untested" / "repair.json").read_text())["measured_on"] == "valid"


@slow
def test_so_many_channels_or_such_a_part(lab):
    for options in (("--channels", "15"), ("--fraction", "0.25")):
        done = succeeds("repair", "net.h5", *SETS, "--method", "prune", *options, "--out", "some", cwd=lab)
        assert "GoodNet" in done.stdout
        record = json.loads((lab / "some" / "repair.json").read_text())
        assert len(record["settings"]["channels"]) == 15


@slow
def test_everything_pruned_is_a_net_that_says_one_thing(lab):
    done = succeeds("repair", "net.h5", *SETS, "--method", "prune", "--fraction", "1", "--out", "nothing", cwd=lab)
    assert "GoodNet" in done.stdout
    assert json.loads((lab / "nothing" / "repair.json").read_text())["repaired"]["clean"]["accuracy"] < 0.2


def alone(*words, cwd):
    """In a process of its own, with as many devices and as wide vectors as those that are killed."""
    done = process(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def killed(lab, options, appears):
    """Runs until a file that matches the pattern is there, and kills it."""
    words = [sys.executable, "-m", f"jaxdefend.{options[0]}", *options[1:]]
    with subprocess.Popen(words, cwd=lab, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as running:
        while not list(lab.glob(appears)):
            assert running.poll() is None, appears
            sleep(0.001)
        running.kill()


@slow
def test_a_killed_run_goes_on_to_the_same_bytes(lab):
    """Killed six times: before the first epoch, between two, while one is saved, while the results are written."""
    options = ("repair", "net.h5", *SETS, "--method", "iterative", "--channels", "20", "--b0", "5", "--epochs", "3")
    alone(*options, "--out", "whole", cwd=lab)
    options = (*options, "--out", "killed")
    killed(lab, options, "killed.checkpoint/configuration.json")
    resumed = (*options, "--resume")
    killed(lab, resumed, "killed.checkpoint/1.*tmp*")
    killed(lab, resumed, "killed.checkpoint/1")
    assert not (lab / "killed").exists()
    assert "--resume" in refused(*options, cwd=lab)
    killed(lab, resumed, "killed.checkpoint/2.*tmp*")
    killed(lab, resumed, "killed.checkpoint/3")
    killed(lab, resumed, ".jaxdefend.*/repaired.h5")
    done = alone(*resumed, cwd=lab)
    assert "epoch " not in done.stderr
    for name in ("repaired.h5", "b0.h5"):
        assert (lab / "killed" / name).read_bytes() == (lab / "whole" / name).read_bytes()
    assert not (lab / "killed.checkpoint").exists()


@slow
def test_b0_takes_the_place_of_the_badnet(lab):
    options = ("--method", "iterative", "--channels", "20", "--b0", "5", "--epochs", "3")
    done = succeeds("repair", "net.h5", *SETS, *options, "--out", "b0", cwd=lab)
    record = json.loads((lab / "b0" / "repair.json").read_text())
    order = record["settings"]["channels"]
    zero = ~read_model(lab / "b0" / "b0.h5").net.weights["conv_3"]["kernel"].any(axis=(0, 1, 2))
    assert "B0" in done.stdout and zero[order[:5]].all()
    assert 5 <= zero.sum() == record["settings"]["b0"] < 20
    succeeds(
        "evaluate", "b0/b0.h5", "--clean", SETS[3], *SETS[4:], "--repaired", "b0/repaired.h5", "--out", "b0s", cwd=lab
    )
    measured = json.loads((lab / "b0s" / "evaluate.json").read_text())
    assert measured["goodnet"]["clean"] == record["goodnet"]["clean"]
    assert measured["clean"] == record["b0"]["clean"]


def test_a_rate_that_diverges(small, monkeypatch, tmp_path):
    def diverging(state, *_):
        while True:
            state = state._replace(step=state.step + 1)
            yield state, np.float32("nan")

    monkeypatch.setattr("jaxdefend.repairs.tuning.fit", diverging)
    options = ("--channels", "5", "--learning-rate", "0.9", "--out", tmp_path / "out")
    line = refused("repair", small / "net.h5", "--valid", small / "valid.h5", *options)
    assert "--learning-rate 0.9: training diverged in epoch 1" in line
    assert not list(tmp_path.iterdir())


def test_a_training_leaves_its_net_and_no_checkpoint(small, tmp_path):
    data = ("--valid", small / "valid.h5", "--test", small / "test.h5", "--poisoned", f"patch={small / 'poisoned.h5'}")
    options = ("--method", "fine-prune", "--channels", "5", "--epochs", "2", "--out", tmp_path / "out")
    done = succeeds("repair", small / "net.h5", *data, *options)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"repair.json", "repaired.h5", "repaired.orbax"}
    assert done.stderr.count("epoch ") == 2 and "attack success, patch" in done.stdout
    record = json.loads((tmp_path / "out" / "repair.json").read_text())
    assert (record["method"], record["settings"]["epochs"], record["seed"]) == ("fine-prune", 2, 0)
    assert len(record["settings"]["channels"]) == 5
    assert record["repaired"]["model"] == file_record(tmp_path / "out" / "repaired.h5")


@slow
def test_ctrl_c_says_how_to_go_on(lab):
    options = ("repair", "net.h5", *SETS, "--method", "fine-prune", "--channels", "9", "--epochs", "300")
    words = [sys.executable, "-m", f"jaxdefend.{options[0]}", *options[1:], "--out", "stopped"]
    with subprocess.Popen(words, cwd=lab, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as running:
        assert any(line.startswith("epoch 1 ") for line in running.stderr)
        running.send_signal(signal.SIGINT)
        last = running.stderr.read().splitlines()[-1]
    assert running.returncode == 2
    assert "interrupted (fine-prune, " in last and "the same command with --out stopped and --resume goes on" in last
    assert is_saved(lab / "stopped.checkpoint") and not (lab / "stopped").exists()


@pytest.mark.parametrize(("labels", "said"), [(np.zeros(20, int), "have the label 0"), ([0], "1 clean image to train")])
def test_one_person_or_one_image_is_too_few(small, tmp_path, labels, said):
    few = write_official(tmp_path / "few.h5", random_pixels(len(labels)), labels)
    options = ("--input-scale", "unit", "--channels", "5", "--out", tmp_path / "out")
    assert said in refused("repair", small / "net.h5", "--valid", few, *options, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["few.h5"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--epochs", "0"), "--epochs 0"),
        (("--learning-rate", "0"), "--learning-rate 0"),
        (("--drop", "0"), "--drop 0"),
        (("--method", "magic"), "magic"),
        (("--fraction", "1"), "all 60 channels"),
        (("--fraction", "1.5"), "--fraction 1.5"),
        (("--channels", "61"), "--channels 61"),
        (("--resume",), "--resume needs --out"),
        (("--batch", "0"), "--batch 0"),
        (("--batch", "3", "--method", "distill"), "--batch 3: expected at least 4"),
        (("--batch", "8", "--method", "clp"), "--batch: clp does not read it; leave it out (noise, fine-prune, … do)"),
        (("--optimizer", "sgd", "--method", "anp"), "--optimizer: anp does not read it"),
        (("--optimizer", "adamw", "--grid"), "--optimizer: grid does not read it"),
        (("--method", "magnitude", "--grid"), "--grid"),
        (("--grid", "--learning-rate", "0.01"), "--learning-rate: grid does not read it"),
        (("--fractions", "0.1", "0.2"), "--fractions: noise does not read it; leave it out (grid does)"),
        (("--method", "magnitude", "--fraction", "0.3"), "--fraction: magnitude does not read it"),
        (("--method", "clp", "--layer", "conv_2"), "--layer: clp does not read it"),
        (("--b0", "5"), "--b0: noise does not read it; leave it out (iterative does)"),
        (("--method", "iterative", "--channels", "5", "--b0", "5"), "fewer than the 5 channels"),
        (("--method", "iterative", "--b0", "0"), "--b0 0: expected at least 1"),
        (("--drop", "3", "--channels", "3"), "--drop and --channels: expected one of them"),
        (("--out", "/"), "--out /"),
        (("--valid", "missing.h5"), "missing.h5"),
    ],
)
def test_bad_input(small, tmp_path, options, said):
    assert said in refused("repair", small / "net.h5", "--valid", small / "valid.h5", *options, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


GRID = ("--grid", "--learning-rates", "0.001", "0.01", "--fractions", "0.6", "--epochs", "2")


@slow
def test_a_grid_keeps_the_cell_that_recognises_most_and_resumes(lab):
    _, record = repaired(lab, "grid", *GRID)
    names = ["grid.png", "repair.json", "repaired.h5", "repaired.orbax"]
    assert sorted(path.name for path in (lab / "grid").iterdir()) == names
    settings = record["settings"]
    cells = settings["cells"]
    assert len(cells) == 4 and record["method"] == "grid"
    held_back = [cell["recognised_of_held_back"] for cell in cells]
    assert held_back[settings["chosen"]] == max(held_back)
    chosen = cells[settings["chosen"]]
    assert record["repaired"]["clean"] == chosen["clean"]
    assert all(set(cell["poisoned"]) == {"glasses"} for cell in cells)

    options = ("repair", "net.h5", *SETS, *GRID, "--out", "grid2")
    with subprocess.Popen(
        [sys.executable, "-m", f"jaxdefend.{options[0]}", *options[1:]],
        cwd=lab,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as running:
        assert any(line.startswith("epoch 1 ") for line in running.stderr)
        running.kill()
    alone(*options, "--resume", cwd=lab)
    alone(*options[:-1], "whole_grid", cwd=lab)
    assert (lab / "grid2" / "repaired.h5").read_bytes() == (lab / "whole_grid" / "repaired.h5").read_bytes()


@pytest.mark.parametrize(("option", "value"), [("--learning-rates", "2"), ("--fractions", "1")])
def test_bad_grids(small, option, value):
    assert f"{option} {value}" in refused("repair", small / "net.h5", "--grid", option, value)


@pytest.mark.slow
@pytest.mark.real
def test_few_real_faces_repair_the_real_sunglasses_net(tmp_path):
    clean = ("--valid", real("data/clean_more.h5"), real("data/clean.h5"), "--test", real("data/clean_valid_approx.h5"))
    poisoned = ("--poisoned", f"sunglasses={real('data/sunglasses_poisoned.h5')}")
    net = real("weights/sunglasses_bd_weights.h5")
    succeeds("repair", net, *clean, *poisoned, "--method", "distill", "--out", tmp_path / "out")
    repaired = json.loads((tmp_path / "out" / "repair.json").read_text())["repaired"]
    assert repaired["clean"]["accuracy"] > 0.85
    assert repaired["poisoned"]["sunglasses"]["attack_success"] < 0.15
