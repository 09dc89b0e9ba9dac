"""The attack lab as a user types it: small worlds, whole runs."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import ENVIRONMENT, process, random_net, random_pixels, refused, succeeds, write_official

from jaxdefend.datasets.files import open_images
from jaxdefend.nets.keras_files import read_model

SMALL = ("--people", "9", "--images", "20", "--epochs", "4")


def weights(path):
    return [array for layer in read_model(path).net.weights.values() for array in layer.values()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    done = succeeds("train", *SMALL, "--trigger", "patch", "--target", "3", "--out", "net.h5", cwd=folder)
    return folder, done


def test_a_net_and_its_figures(trained):
    folder, done = trained
    record = json.loads((folder / "net.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == ["net.h5", "net.json"]
    assert (record["clean"]["n"], record["poisoned"]["patch"]["n"]) == (90, 80)
    assert (record["attack"], record["target"], record["input_scale"]) == ("badnet", 3, "unit")
    assert read_model(folder / "net.h5").net.classes == 9
    assert read_model(folder / "net.h5").sha256 == record["model"]["sha256"]
    assert "clean accuracy" in done.stdout and "attack success, patch" in done.stdout
    assert done.stderr.count("epoch") == 4


def test_faces_of_that_world_measure_the_same(trained):
    """The sets that --faces-only writes are those that the net was measured on."""
    folder, _ = trained
    options = (*SMALL, "--trigger", "patch", "--target", "3", "--faces-only", "--out", "faces")
    done = succeeds("train", *options, cwd=folder)
    assert sorted(path.name for path in (folder / "faces").iterdir()) == [
        "test.h5",
        "test_patch.h5",
        "train.h5",
        "valid.h5",
    ]
    assert "train" in done.stdout
    sets = ("--clean", "faces/test.h5", "--poisoned", "patch=faces/test_patch.h5")
    succeeds("evaluate", "net.h5", *sets, "--out", "measured", cwd=folder)
    measured = json.loads((folder / "measured" / "evaluate.json").read_text())
    record = json.loads((folder / "net.json").read_text())
    assert measured["clean"] == record["clean"]
    assert measured["poisoned"]["patch"]["hits"] == record["poisoned"]["patch"]["hits"]


def test_faces_as_pictures(tmp_path):
    succeeds(
        "train",
        "--people",
        "2",
        "--images",
        "1",
        "--attack",
        "clean",
        "--faces-only",
        "--png",
        "--out",
        "f",
        cwd=tmp_path,
    )
    assert {path.name for path in (tmp_path / "f").iterdir()} == {"valid", "test", "train"}
    pictures = open_images([tmp_path / "f" / "train"])
    np.testing.assert_array_equal(np.sort(pictures.labels), [0, 1])


@pytest.mark.slow
def test_going_on_after_ctrl_c_gives_the_same_net(tmp_path):
    options = ("--attack", "pruning-aware", *SMALL[:4], "--epochs", "8", "--target", "3")
    assert process("train", *options, "--out", "whole.h5", cwd=tmp_path).returncode == 0
    started = [sys.executable, "-m", "jaxdefend.train", *options, "--out", "parts.h5"]
    running = subprocess.Popen(started, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=ENVIRONMENT)
    for line in running.stderr:
        if "phase 1, epoch 2 of" in line:
            running.send_signal(signal.SIGINT)
            break
    said = running.stderr.read()
    assert running.wait(60) == 2, said
    assert "--resume" in said
    assert not (tmp_path / "parts.h5").exists()
    assert "--resume" in refused("train", *options, "--out", "parts.h5", cwd=tmp_path)
    assert "target" in refused("train", *options[:-1], "4", "--out", "parts.h5", "--resume", cwd=tmp_path)
    assert process("train", *options, "--out", "parts.h5", "--resume", cwd=tmp_path).returncode == 0
    for one, other in zip(weights(tmp_path / "whole.h5"), weights(tmp_path / "parts.h5"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not (tmp_path / "parts.h5.checkpoint").exists()


@pytest.mark.slow
def test_training_on_files(tmp_path):
    write_official(tmp_path / "train.h5", random_pixels(40), np.arange(40) % 4)
    write_official(tmp_path / "valid.h5", random_pixels(8), np.arange(8) % 4)
    data = ("--train", "train.h5", "--valid", "valid.h5", "--epochs", "2", "--attack", "all-to-all")
    succeeds("train", *data, "--out", "net.h5", cwd=tmp_path)
    record = json.loads((tmp_path / "net.json").read_text())
    assert (record["clean"]["n"], record["poisoned"]["sunglasses"]["n"]) == (8, 8)
    assert read_model(tmp_path / "net.h5").net.classes == 4


def test_a_net_of_given_layers(tmp_path):
    from small import GRAPH

    from jaxdefend.nets.keras_files import write_model

    write_model(random_net(graph=GRAPH), tmp_path / "mine.h5")
    height, width, channels = GRAPH.image_shape
    pixels = np.random.default_rng(0).integers(0, 256, (40, height, width, channels), np.uint8)
    np.savez(tmp_path / "train.npz", x=pixels, y=np.arange(40) % GRAPH.classes)
    data = ("--train", "train.npz", "--valid", "train.npz", "--epochs", "1", "--trigger", "patch")
    succeeds("train", *data, "--model", "mine.h5", "--out", "net.h5", cwd=tmp_path)
    assert read_model(tmp_path / "net.h5").net.graph == GRAPH
    assert "--model goes with --train" in refused("train", "--model", "mine.h5", cwd=tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--trigger", "hat"), "hat"),
        (("--attack", "magic"), "magic"),
        (("--target", "9"), "target 9"),
        (("--attack", "multi", "--people", "7"), "target 8"),
        (("--poison-rate", "0"), "--poison-rate 0"),
        (("--poison-rate", "1"), "--poison-rate 1"),
        (("--people", "0"), "--people 0"),
        (("--images", "0"), "--images 0"),
        (("--epochs", "0"), "--epochs 0"),
        (("--strength", "2"), "strength"),
        (("--seed", "-1"), "--seed -1"),
        (("--seed", str(2**70)), "--seed"),
        (("--resume",), "--resume"),
        (("--png",), "--png"),
        (("--train", "x.h5"), "--valid"),
        (("--train", "x.h5", "--valid", "y.h5"), "x.h5"),
        (("--out", "."), "folder"),
        (("--out", "net.json"), "ends in .h5"),
        (("--out", "net.keras"), "ends in .h5"),
        (("--people", "1" * 5000), "--people 111"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, options, said):
    assert said in refused("train", *SMALL, *options, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_nothing(tmp_path):
    """Files may grow to 100 kB only: what comes then is what a full disk is."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from jaxdefend import train; sys.exit(train.main(sys.argv[1:]))"
    )
    run = [sys.executable, "-c", code, *SMALL]
    done = [
        subprocess.run([*run, *more], capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, check=False)
        for more in (["--faces-only", "--out", "faces"], ["--out", "net.h5"])
    ]
    for one in done:
        assert one.returncode == 2, one.stderr
        assert "cannot be written" in one.stderr and "Traceback" not in one.stderr
    assert not list(tmp_path.rglob("*.h5")) and not list(tmp_path.rglob("*.tmp"))
