"""The pruning curve as a user types it."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time

import h5py
import jax
import numpy as np
import pytest
from helpers import ENVIRONMENT, random_net, random_pixels, real, refused, succeeds, write_official

from jaxdefend.datasets.files import open_images
from jaxdefend.nets.batches import padded
from jaxdefend.nets.keras_files import read_model
from jaxdefend.repairs.curve import mean_activations

CLASSES = 11


@pytest.fixture(scope="module")
def sweep(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "out"
    data = ("--valid", small / "valid.h5", "--test", small / "test.h5")
    sets = ("--poisoned", f"patch={small / 'poisoned.h5'}", "--poisoned", small / "poisoned.h5")
    done = succeeds("sweep", small / "net.h5", *data, *sets, "--drop", "2", "30", "2.5", "--out", out)
    return done, out, json.loads((out / "sweep.json").read_text())


def test_it_writes_what_the_manual_says(sweep):
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
    assert done.stderr.splitlines()[-1].endswith(f"open {out / 'sweep.png'}")


def test_the_record_says_what_was_typed(sweep, small):
    _, out, record = sweep
    command = record["command"]
    assert command.startswith(f"python -m jaxdefend.sweep {small / 'net.h5'} --valid ")
    assert command.endswith(f"--drop 2 30 2.5 --out {out}")


def test_channels_go_by_mean_activation(sweep):
    _, _, record = sweep
    activation = np.array(record["activation"])[record["order"]]
    assert (np.diff(activation) >= 0).all()


def test_repairs_are_nets_with_those_channels_zeroed(sweep):
    _, out, record = sweep
    assert [repair["drop"] for repair in record["repairs"]] == [2, 30, 2.5]
    for repair in record["repairs"]:
        found = read_model(out / repair["file"])
        channels = repair["channels"]
        assert channels == record["order"][: repair["pruned"]]
        expected = random_net(classes=CLASSES).pruned("conv_3", channels)
        assert np.array_equal(found.net.weights["conv_3"]["kernel"], expected.weights["conv_3"]["kernel"])
        assert not np.asarray(found.net.weights["conv_3"]["bias"])[channels].any()
        assert found.net.input_scale == "unit"
        k = repair["pruned"]
        assert repair["valid_accuracy"] == record["valid_accuracy"][k] <= 1 - repair["drop"] / 100
        assert record["valid_accuracy"][k - 1] > 1 - repair["drop"] / 100


def test_csv_holds_the_curve(sweep):
    _, out, record = sweep
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert [float(row["test_accuracy"]) for row in rows] == record["test_accuracy"]
    assert [float(row["attack_success_patch_low"]) for row in rows] == [
        low for low, _ in record["intervals"]["attack_success"]["patch"]
    ]
    assert [row["channel"] for row in rows] == ["", *map(str, record["order"])]
    assert [float(row["goodnet_flagged_clean"]) for row in rows] == record["goodnet"]["flagged_clean"]


@pytest.mark.parametrize("layer", [pytest.param("conv_1", marks=pytest.mark.slow), "conv_2", "conv_4"])
def test_other_layers(small, tmp_path, layer):
    channels = {"conv_1": 20, "conv_2": 40, "conv_4": 80}[layer]
    succeeds("sweep", small / "net.h5", "--valid", small / "test.h5", "--layer", layer, "--out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert len(record["order"]) == channels
    assert record["valid_accuracy"] == record["test_accuracy"]
    assert len(record["valid_accuracy"]) == channels + 1


def test_orders(small, tmp_path):
    def order(name, *more):
        succeeds("sweep", small / "net.h5", "--valid", small / "test.h5", "--order", name, *more, "--out", tmp_path)
        return json.loads((tmp_path / "sweep.json").read_text())["order"]

    means = mean_activations(random_net(classes=CLASSES), padded(open_images([small / "test.h5"])), "conv_3")
    assert order("descending") == np.argsort(-means, kind="stable").tolist()
    assert order("random", "--seed", "5") == jax.random.permutation(jax.random.key(5), 60).tolist()
    norms = np.abs(random_net(classes=CLASSES).weights["conv_3"]["kernel"]).sum((0, 1, 2))
    assert order("l1") == np.argsort(norms, kind="stable").tolist()
    (tmp_path / "order.txt").write_text("\n".join(map(str, range(59, -1, -1))))
    assert order(tmp_path / "order.txt") == list(range(59, -1, -1))


def test_each_poisoned_file_is_a_set_and_shares_of_one_are_noted(small, tmp_path):
    for name in ("lipstick", "eyebrows"):
        write_official(tmp_path / f"{name}.h5", random_pixels(5), np.full(5, 3))
    sets = ("--poisoned", tmp_path / "lipstick.h5", tmp_path / "eyebrows.h5", "--drop", "0.02", "0.1")
    done = succeeds("sweep", small / "net.h5", "--valid", small / "test.h5", *sets, "--out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert record["n"]["poisoned"] == {"lipstick": 5, "eyebrows": 5}
    assert "note: --drop 0.02 0.1: these are percentage points" in done.stderr


def test_a_second_run_takes_the_place_of_the_first(small, tmp_path):
    run = ("sweep", small / "net.h5", "--valid", small / "test.h5", "--out", tmp_path / "out")
    first = succeeds(*run, "--drop", "2", "30")
    assert "earlier run" not in first.stderr
    (tmp_path / "out" / "mine.txt").write_text("stays")
    second = succeeds(*run, "--drop", "30")
    assert f"note: {tmp_path / 'out'}: 5 files of an earlier run were replaced" in second.stderr
    assert [path.name for path in (tmp_path / "out" / "repaired").iterdir()] == ["drop_30.h5"]
    assert (tmp_path / "out" / "mine.txt").read_text() == "stays"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--drop", "0"), "--drop 0"),
        (("--drop", "x"), "--drop x"),
        (("--drop", "1e999999999"), "--drop 1e999999999"),
        (("--order", "missing.txt"), "missing.txt"),
        (("--layer", "conv_5"), "conv_5"),
        (("--seed", "x"), "--seed"),
        (("--target", "1" * 5000), "--target 1"),
        (("--out", "o" * 5000), "--out ooo"),
        (("--poisoned", "p" * 5000), "ppp"),
    ],
)
def test_bad_options(small, tmp_path, options, said):
    line = refused("sweep", small / "net.h5", "--valid", small / "test.h5", *options, cwd=tmp_path)
    assert said in line and len(line) <= 500
    assert not list(tmp_path.iterdir())


def test_an_order_that_misses_a_channel(small, tmp_path):
    (tmp_path / "order.txt").write_text("0 1 1 2")
    line = refused(
        "sweep",
        small / "net.h5",
        "--valid",
        small / "test.h5",
        "--order",
        tmp_path / "order.txt",
        "--out",
        tmp_path / "o",
    )
    assert "repeated [1]" in line and "order.txt" in line


def test_a_net_that_is_not_shipped_needs_images(small, tmp_path):
    assert "--valid" in refused("sweep", small / "net.h5", cwd=tmp_path)


def test_a_bad_pixel_found_late_leaves_nothing(small, tmp_path):
    pixels = random_pixels(600).astype("f8")
    pixels[599, 0, 0, 0] = np.nan
    write_official(tmp_path / "nan.h5", pixels, np.zeros(600))
    line = refused("sweep", small / "net.h5", "--valid", tmp_path / "nan.h5", "--out", tmp_path / "out")
    assert "nan.h5" in line
    assert [path.name for path in tmp_path.iterdir()] == ["nan.h5"]


@pytest.mark.parametrize("delay", [0, 0.3, 1.0])
def test_ctrl_c_leaves_nothing(small, tmp_path, delay):
    write_official(tmp_path / "many.h5", random_pixels(6000), np.zeros(6000), dtype="uint8")
    options = ("--valid", tmp_path / "many.h5", "--layer", "conv_1", "--out", tmp_path / "o")
    running = subprocess.Popen(
        [sys.executable, "-m", "jaxdefend.sweep", *map(str, (small / "net.h5", *options))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"},
    )
    while running.poll() is None and not list(tmp_path.glob(".*")):
        time.sleep(0.01)
    time.sleep(delay)
    running.send_signal(signal.SIGINT)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == 2, errors
    assert output == ""
    assert errors.splitlines()[-1].startswith("jaxdefend: interrupted")
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["many.h5"]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_of_two_processes_is_killed_the_other_says_so(small, tmp_path, killed):
    write_official(tmp_path / "many.h5", random_pixels(12_000), np.zeros(12_000), dtype="uint8")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    options = ("--valid", tmp_path / "many.h5", "--layer", "conv_1", "--coordinator", address, "--processes", 2)
    runs = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "jaxdefend.sweep", str(small / "net.h5"), *map(str, options)),
                *("--process", str(number), "--out", str(tmp_path / "out")),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for number in range(2)
    ]
    while runs[0].poll() is None and not list(tmp_path.glob(".*")):
        time.sleep(0.01)
    time.sleep(1)
    runs[killed].kill()
    began = time.monotonic()
    output, errors = runs[1 - killed].communicate(timeout=120)
    runs[killed].communicate()
    assert (runs[1 - killed].returncode, output) == (2, "")
    assert errors.splitlines()[-1].startswith("jaxdefend: another process of the run has ended")
    assert not [line for line in errors.splitlines()[:-1] if not line.startswith(("note: ", "warning: "))]
    assert time.monotonic() - began < 60
    # Whoever is killed leaves what he was writing.
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert left == {"many.h5"} and (killed == 0 or not list(tmp_path.glob(".*")))


@pytest.mark.slow
def test_memory_over_the_official_sizes(small, tmp_path):
    """11,547 float64 images, 716 MB: the whole process stays under 900 MB."""
    labels = np.zeros(11_547)
    with h5py.File(tmp_path / "valid.h5", "w") as file:
        data = file.create_dataset("data", (11_547, 3, 55, 47), "float64")
        for start in range(0, 11_547, 1000):
            rows = slice(start, min(start + 1000, 11_547))
            data[rows] = np.moveaxis(random_pixels(rows.stop - start, start), -1, 1)
        file["label"] = labels
    arguments = [small / "net.h5", "--valid", tmp_path / "valid.h5", "--out", tmp_path / "out"]
    code = (
        "import re, sys; from jaxdefend.sweep import main; status = main(sys.argv[1:]); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr); sys.exit(status)"
    )
    if not os.path.exists("/proc/self/status"):
        pytest.skip("peak memory is read from /proc")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True, env=ENVIRONMENT
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
