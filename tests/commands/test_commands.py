"""The commands as a user types them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import h5py
import jax
import numpy as np
import pytest
from helpers import random_net, random_pixels, real, refused, succeeds, write_official
from PIL import Image

from jaxdefend.datasets.batches import padded
from jaxdefend.datasets.files import open_images
from jaxdefend.defenses import pruning
from jaxdefend.nets import deepid
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.keras_files import read_model, write_model

CLASSES = 11


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A net whose scale its file tells, images that it labels rightly, and others with the target 3."""
    folder = tmp_path_factory.mktemp("world")
    net = random_net(classes=CLASSES, input_scale="unit")
    write_model(net, folder / "net.h5")
    write_model(deepid.with_channels_zeroed(net, "conv_3", range(40)), folder / "repaired.h5")
    for name, n in (("valid", 60), ("test", 30)):
        images = write_official(folder / f"{name}.h5", random_pixels(n, seed=n), np.zeros(n))
        labels, _ = predictions(net, padded(open_images([images])))
        write_official(images, random_pixels(n, seed=n), labels)
    write_official(folder / "poisoned.h5", random_pixels(20, seed=9), np.full(20, 3))
    (folder / "faces").mkdir()
    for i, pixels in enumerate(random_pixels(4, seed=4)):
        Image.fromarray(pixels).save(folder / "faces" / f"test_{i}_{i + 7}.png")
    return folder


@pytest.fixture(scope="module")
def sweep(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "out"
    data = ("--valid", world / "valid.h5", "--test", world / "test.h5")
    sets = ("--poisoned", f"patch={world / 'poisoned.h5'}", "--poisoned", world / "poisoned.h5")
    done = succeeds("sweep", world / "net.h5", *data, *sets, "--drop", "2", "30", "2.5", "--out", out)
    return done, out, json.loads((out / "sweep.json").read_text())


def test_sweep_writes_what_the_manual_says(sweep):
    done, out, record = sweep
    assert sorted(path.name for path in out.iterdir()) == ["repaired", "sweep.csv", "sweep.json", "sweep.png"]
    assert (record["layer"], record["input_scale"], record["seed"]) == ("conv_3", "unit", 0)
    assert sorted(record["order"]) == list(range(60))
    assert record["pruned"] == list(range(61))
    assert set(record["attack_success"]) == {"patch", "poisoned"}
    for key in ("valid_accuracy", "test_accuracy"):
        assert len(record[key]) == len(record["intervals"][key]) == 61
        assert all(
            low <= share <= high for share, (low, high) in zip(record[key], record["intervals"][key], strict=True)
        )
    assert record["valid_accuracy"][0] == record["test_accuracy"][0] == 1
    assert len(record["model"]["sha256"]) == 64
    assert done.stdout.startswith(" ") and "drop 30" in done.stdout


def test_sweep_orders_by_mean_activation(sweep):
    _, _, record = sweep
    activation = np.array(record["activation"])[record["order"]]
    assert (np.diff(activation) >= 0).all()


def test_repairs_are_nets_with_those_channels_zeroed(sweep, world):
    _, out, record = sweep
    assert [repair["drop"] for repair in record["repairs"]] == [2, 30, 2.5]
    for repair in record["repairs"]:
        found = read_model(out / repair["file"])
        channels = repair["channels"]
        assert channels == record["order"][: repair["pruned"]]
        expected = deepid.with_channels_zeroed(random_net(classes=CLASSES), "conv_3", channels)
        assert np.array_equal(found.net.conv_3.kernel[...], expected.conv_3.kernel[...])
        assert not np.asarray(found.net.conv_3.bias[...])[channels].any()
        assert found.net.input_scale == "unit"
        k = repair["pruned"]
        assert repair["valid_accuracy"] == record["valid_accuracy"][k] <= 1 - repair["drop"] / 100
        assert record["valid_accuracy"][k - 1] > 1 - repair["drop"] / 100


def test_evaluate_agrees_with_sweep(sweep, world, tmp_path):
    _, out, record = sweep
    repair = record["repairs"][1]
    data = ("--clean", world / "test.h5", "--poisoned", f"patch={world / 'poisoned.h5'}")
    succeeds("evaluate", world / "net.h5", *data, "--repaired", out / repair["file"], "--out", tmp_path)
    found = json.loads((tmp_path / "evaluate.json").read_text())
    assert found["clean"] | {"interval": 0} == {"n": 30, "correct": 30, "accuracy": 1.0, "interval": 0}
    assert found["poisoned"]["patch"]["attack_success"] == record["attack_success"]["patch"][0]
    assert found["repaired"]["clean"]["accuracy"] == repair["test_accuracy"]
    assert found["repaired"]["poisoned"]["patch"]["attack_success"] == repair["attack_success"]["patch"]
    assert found["goodnet"]["clean"]["accuracy"] == repair["goodnet"]["test_accuracy"]
    assert found["goodnet"]["clean"]["flagged"] == repair["goodnet"]["flagged_clean"]
    assert found["goodnet"]["poisoned"]["patch"]["flagged"] == repair["goodnet"]["flagged_poisoned"]["patch"]


def test_csv_holds_the_curve(sweep):
    _, out, record = sweep
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert [float(row["test_accuracy"]) for row in rows] == record["test_accuracy"]
    assert [float(row["attack_success_patch_low"]) for row in rows] == [
        low for low, _ in record["intervals"]["attack_success"]["patch"]
    ]
    assert [row["channel"] for row in rows] == ["", *map(str, record["order"])]
    assert [float(row["goodnet_flagged_clean"]) for row in rows] == record["goodnet"]["flagged_clean"]


@pytest.mark.parametrize("layer", ["conv_1", "conv_2", "conv_4"])
def test_sweep_at_other_layers(world, tmp_path, layer):
    channels = {"conv_1": 20, "conv_2": 40, "conv_4": 80}[layer]
    succeeds("sweep", world / "net.h5", "--valid", world / "test.h5", "--layer", layer, "--out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert len(record["order"]) == channels
    assert record["valid_accuracy"] == record["test_accuracy"]
    assert len(record["valid_accuracy"]) == channels + 1


@pytest.mark.slow
def test_orders(world, tmp_path):
    def order(name, *more):
        succeeds("sweep", world / "net.h5", "--valid", world / "test.h5", "--order", name, *more, "--out", tmp_path)
        return json.loads((tmp_path / "sweep.json").read_text())["order"]

    means = pruning.mean_activations(random_net(classes=CLASSES), padded(open_images([world / "test.h5"])), "conv_3")
    assert order("descending") == np.argsort(-means, kind="stable").tolist()
    assert order("random", "--seed", "5") == jax.random.permutation(jax.random.key(5), 60).tolist()
    norms = np.abs(random_net(classes=CLASSES).conv_3.kernel[...]).sum((0, 1, 2))
    assert order("l1") == np.argsort(norms, kind="stable").tolist()
    (tmp_path / "order.txt").write_text("\n".join(map(str, range(59, -1, -1))))
    assert order(tmp_path / "order.txt") == list(range(59, -1, -1))


def test_predict(world):
    pair = ("--model", world / "net.h5", "--repaired", world / "repaired.h5")
    done = succeeds("predict", world / "faces", world / "test.h5", *pair, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 34
    for row in rows:
        assert set(row) == {"image", "badnet", "repaired", "goodnet", "backdoored", "confidence"}
        assert row["goodnet"] == (row["badnet"] if row["badnet"] == row["repaired"] else CLASSES)
        assert row["backdoored"] == (row["goodnet"] == CLASSES)
        assert 0 < row["confidence"] <= 1
    with h5py.File(world / "test.h5") as file:
        assert [row["badnet"] for row in rows[4:]] == file["label"][:].tolist()
    table = succeeds("predict", world / "faces" / "test_0_7.png", *pair).stdout
    assert str(rows[0]["badnet"]) in table


def test_predict_says_what_it_assumes(world, tmp_path):
    write_model(random_net(classes=CLASSES, input_scale=None), tmp_path / "net.h5")
    done = succeeds("predict", world / "faces", "--model", tmp_path / "net.h5")
    assert "assuming" in done.stderr and "--input-scale" in done.stderr
    quiet = succeeds("predict", world / "faces", "--model", tmp_path / "net.h5", "--input-scale", "raw")
    assert "assuming" not in quiet.stderr


def test_the_scale_is_measured_where_the_file_does_not_tell(world, tmp_path):
    for scale in ("raw", "unit"):
        write_model(random_net(classes=CLASSES, input_scale=None), tmp_path / "net.h5")
        labels, _ = predictions(
            random_net(classes=CLASSES, input_scale=scale), padded(open_images([world / "valid.h5"]))
        )
        write_official(tmp_path / "valid.h5", random_pixels(60, seed=60), labels)
        done = succeeds("evaluate", tmp_path / "net.h5", "--clean", tmp_path / "valid.h5", "--out", tmp_path)
        record = json.loads((tmp_path / "evaluate.json").read_text())
        assert (record["input_scale"], record["clean"]["accuracy"]) == (scale, 1)
        assert "clean accuracy is" in done.stderr


def test_a_scale_that_convinces_nobody_is_a_warning(world, tmp_path):
    write_model(random_net(classes=CLASSES, input_scale=None), tmp_path / "net.h5")
    write_official(tmp_path / "valid.h5", random_pixels(5), np.arange(5))
    done = succeeds("evaluate", tmp_path / "net.h5", "--clean", tmp_path / "valid.h5", "--out", tmp_path)
    assert "warning: " in done.stderr and "neither is convincing" in done.stderr


def test_results_go_under_runs_by_default(world, tmp_path):
    succeeds("evaluate", world / "net.h5", "--clean", world / "test.h5", cwd=tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "evaluate.json").exists()


def test_targets_override_labels(world, tmp_path):
    sets = ("--poisoned", f"a={world / 'poisoned.h5'}", f"b={world / 'poisoned.h5'}", "--target", "a=5")
    succeeds("evaluate", world / "net.h5", "--clean", world / "test.h5", *sets, "--out", tmp_path)
    found = json.loads((tmp_path / "evaluate.json").read_text())["poisoned"]
    labels, _ = predictions(random_net(classes=CLASSES), padded(open_images([world / "poisoned.h5"])))
    assert (found["a"]["hits"], found["b"]["hits"]) == ((labels == 5).sum(), (labels == 3).sum())


def test_a_net_that_is_not_shipped_needs_images(world, tmp_path):
    assert "--valid" in refused("sweep", world / "net.h5", cwd=tmp_path)
    assert "--clean" in refused("evaluate", world / "net.h5", cwd=tmp_path)


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
}


def test_several_repaired_nets_decide_together(world):
    pair = ("--repaired", world / "repaired.h5", world / "net.h5")
    for rule in ("goodnet", "anti"):
        done = succeeds("predict", world / "test.h5", "--model", world / "net.h5", *pair, "--rule", rule, "--json")
        for row in map(json.loads, done.stdout.splitlines()):
            assert row["repaired_2"] == row["badnet"]
            both = row["repaired"] == row["badnet"]
            assert row["goodnet"] == (row["badnet"] if both and rule == "goodnet" else CLASSES)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(world, tmp_path, case):
    arguments = BAD[case](world, tmp_path)
    before = set(tmp_path.rglob("*"))
    line = refused("evaluate", *arguments, "--out", tmp_path / "out", cwd=tmp_path)
    assert set(tmp_path.rglob("*")) == before, line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--drop", "0"), "--drop 0"),
        (("--drop", "x"), "--drop x"),
        (("--order", "missing.txt"), "missing.txt"),
        (("--layer", "conv_5"), "conv_5"),
        (("--seed", "x"), "--seed"),
    ],
)
def test_bad_sweep_options(world, tmp_path, options, said):
    assert said in refused("sweep", world / "net.h5", "--valid", world / "test.h5", *options, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_order_that_misses_a_channel(world, tmp_path):
    (tmp_path / "order.txt").write_text("0 1 1 2")
    assert "repeated [1]" in refused(
        "sweep",
        world / "net.h5",
        "--valid",
        world / "test.h5",
        "--order",
        tmp_path / "order.txt",
        "--out",
        tmp_path / "o",
    )


def test_an_output_folder_that_cannot_be_written(world, tmp_path):
    (tmp_path / "file").write_text("mine")
    data = (world / "net.h5", "--clean", world / "test.h5")
    assert "is a file" in refused("evaluate", *data, "--out", tmp_path / "file")
    assert "cannot be written" in refused("evaluate", *data, "--out", tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_bad_pixel_found_late_leaves_nothing(world, tmp_path):
    pixels = random_pixels(600).astype("f8")
    pixels[599, 0, 0, 0] = np.nan
    write_official(tmp_path / "nan.h5", pixels, np.zeros(600))
    line = refused("sweep", world / "net.h5", "--valid", tmp_path / "nan.h5", "--out", tmp_path / "out")
    assert "nan.h5" in line
    assert [path.name for path in tmp_path.iterdir()] == ["nan.h5"]


@pytest.mark.parametrize("delay", [0, 0.3, 1.0])
def test_ctrl_c_leaves_nothing(world, tmp_path, delay):
    write_official(tmp_path / "many.h5", random_pixels(6000), np.zeros(6000), dtype="uint8")
    arguments = (
        "sweep",
        world / "net.h5",
        "--valid",
        tmp_path / "many.h5",
        "--layer",
        "conv_1",
        "--out",
        tmp_path / "o",
    )
    running = subprocess.Popen(
        [sys.executable, "-m", f"jaxdefend.{arguments[0]}", *map(str, arguments[1:])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    while running.poll() is None and not list(tmp_path.glob(".o.*")):
        time.sleep(0.01)
    time.sleep(delay)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == 2, errors
    assert output == ""
    assert errors.splitlines()[-1].startswith("jaxdefend: interrupted")
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["many.h5"]


def test_an_interrupt_that_python_swallows_comes_again():
    program = """
import gc, os, signal, time
from jaxdefend import _command

def interrupted_in_a_callback(*_):
    gc.callbacks.clear()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)

def command(_):
    gc.callbacks.append(interrupted_in_a_callback)
    gc.collect()
    time.sleep(30)

_command.run(command)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=25)
    assert done.returncode == 2
    assert done.stderr == "jaxdefend: interrupted; nothing was written\n"


def test_the_console_script_has_the_same_commands(world, tmp_path):
    def script(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "jaxdefend", *map(str, arguments)], capture_output=True, text=True, check=False
        )

    assert "sweep" in script("--help").stdout
    assert script("nothing").returncode == 2
    assert script("evaluate", world / "net.h5", "--clean", world / "test.h5", "--out", tmp_path).returncode == 0


@pytest.mark.parametrize("name", ["evaluate", "sweep", "predict"])
def test_help_is_the_manual(name):
    done = succeeds(name, "--help")
    assert f"python -m jaxdefend.{name} " in done.stdout and "examples:" in done.stdout


def test_a_reader_that_stops_early_is_no_error(world):
    done = subprocess.run(
        f"{sys.executable} -m jaxdefend.predict {world / 'faces'} --model {world / 'net.h5'} --json | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.slow
def test_memory_of_a_sweep_over_the_official_sizes(world, tmp_path):
    """11,547 float64 images, 716 MB: the whole process stays under 900 MB."""
    labels = np.zeros(11_547)
    with h5py.File(tmp_path / "valid.h5", "w") as file:
        data = file.create_dataset("data", (11_547, 3, 55, 47), "float64")
        for start in range(0, 11_547, 1000):
            rows = slice(start, min(start + 1000, 11_547))
            data[rows] = np.moveaxis(random_pixels(rows.stop - start, start), -1, 1)
        file["label"] = labels
    arguments = ["sweep", world / "net.h5", "--valid", tmp_path / "valid.h5", "--out", tmp_path / "out"]
    code = (
        "import re, sys; from jaxdefend.sweep import main; status = main(sys.argv[1:]); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr); sys.exit(status)"
    )
    if not os.path.exists("/proc/self/status"):
        pytest.skip("peak memory is read from /proc")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments[1:])], capture_output=True, text=True, check=True
    )
    assert int(done.stderr.splitlines()[-1]) * 1024 < 900e6


@pytest.mark.real
def test_the_published_curve_of_bd_net(tmp_path):
    clean = ("--valid", real("data/clean.h5"), real("data/clean_more.h5"), "--test", real("data/clean.h5"))
    poisoned = ("--poisoned", f"sunglasses={real('data/sunglasses_poisoned.h5')}")
    done = succeeds("sweep", real("weights/bd_weights.h5"), *clean, *poisoned, "--out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert record["input_scale"] == "raw" and "taking raw" in done.stderr

    from scipy.stats import binom

    published = list(csv.DictReader(real("bd_net_published_curve.csv").open()))
    channels = [int(row["channel"]) for row in published[1:]]
    for pruned in (45, 48, 52, 54):
        assert set(record["order"][:pruned]) == set(channels[:pruned])

    def outside(shares, column, n):
        limits = [binom.interval(0.999, n, float(row[column]) / 100) for row in published]
        return {k for k, (low, high) in enumerate(limits) if not low <= round(shares[k] * n) <= high}

    assert not outside(record["test_accuracy"], "Bprime_clean_valid_acc", 50)
    assert outside(record["attack_success"]["sunglasses"], "Bprime_bd_valid_ASR", 50) <= {50, 56, 57}


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
    found = json.loads((tmp_path / "evaluate.json").read_text())
    assert (found["input_scale"], found["clean"]["correct"]) == (scale, correct)
    assert {name: block["hits"] for name, block in found["poisoned"].items()} == hits
