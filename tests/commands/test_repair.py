"""Repairs as a user types them, on a small world trained for the purpose."""

import json

import numpy as np
import pytest
from helpers import refused, succeeds

from jaxdefend.nets.checkpoints import read_checkpoint
from jaxdefend.nets.deepid import to_weights
from jaxdefend.nets.keras_files import read_model

pytestmark = pytest.mark.slow

WORLD = ("--people", "9", "--images", "60", "--target", "3", "--poison-rate", "0.2")
SETS = ("--valid", "faces/valid.h5", "--test", "faces/test.h5", "--poisoned", "glasses=faces/test_sunglasses.h5")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    succeeds("train", *WORLD, "--epochs", "30", "--out", "net.h5", cwd=folder)
    succeeds("train", *WORLD, "--faces-only", cwd=folder)
    return folder


def repaired(lab, out, *options):
    done = succeeds("repair", "net.h5", *SETS, "--drop", "10", *options, "--out", out, cwd=lab)
    return done, json.loads((lab / out / "repair.json").read_text())


def test_pruning_is_the_sweeps(lab):
    _, record = repaired(lab, "pruned", "--method", "prune")
    succeeds("sweep", "net.h5", *SETS, "--drop", "10", "--out", "swept", cwd=lab)
    (swept,) = json.loads((lab / "swept" / "sweep.json").read_text())["repairs"]
    assert record["settings"]["channels"] == swept["channels"]
    assert record["repaired"]["clean"]["accuracy"] == swept["test_accuracy"]
    assert (lab / "pruned" / "repaired.h5").read_bytes() == (lab / "swept" / swept["file"]).read_bytes()


def test_fine_pruning(lab):
    done, record = repaired(lab, "fine", "--epochs", "4")
    assert sorted(path.name for path in (lab / "fine").iterdir()) == ["repair.json", "repaired.h5", "repaired.orbax"]
    assert "GoodNet" in done.stdout and done.stderr.count("epoch") == 4
    net = read_model(lab / "fine" / "repaired.h5").net
    channels = record["settings"]["channels"]
    assert channels and not to_weights(net)["conv_3"]["kernel"][..., channels].any()
    again = to_weights(read_checkpoint(lab / "fine" / "repaired.orbax"))
    for layer, arrays in to_weights(net).items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, again[layer][name])
    assert record["settings"]["epoch"] in range(1, 5)
    for net in ("badnet", "repaired", "goodnet"):
        assert record[net]["clean"]["n"] == 90 and record[net]["poisoned"]["glasses"]["n"] == 80
    cost = max(0, record["badnet"]["clean"]["accuracy"] - record["goodnet"]["clean"]["accuracy"])
    fall = [record[net]["poisoned"]["glasses"]["attack_success"] for net in ("badnet", "goodnet")]
    np.testing.assert_allclose(record["goodnet"]["der"]["glasses"], (max(0, fall[0] - fall[1]) - cost + 1) / 2)


def test_equal_seeds_give_equal_bytes(lab):
    for out in ("one", "two"):
        repaired(lab, out, "--epochs", "1", "--seed", "7")
    assert (lab / "one" / "repaired.h5").read_bytes() == (lab / "two" / "repaired.h5").read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--epochs", "0"), "--epochs 0"),
        (("--learning-rate", "0"), "--learning-rate 0"),
        (("--drop", "0"), "--drop 0"),
        (("--method", "magic"), "magic"),
        (("--valid", "missing.h5"), "missing.h5"),
    ],
)
def test_bad_input(lab, tmp_path, options, said):
    assert said in refused("repair", lab / "net.h5", "--valid", lab / "faces/valid.h5", *options, cwd=tmp_path)
    assert not list(tmp_path.iterdir())
