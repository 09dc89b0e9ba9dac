"""The same counts on any number of devices and processes."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import ENVIRONMENT, random_net, random_pixels, refused, write_official
from together import together

from jaxdefend.cli import jax_setup
from jaxdefend.nets.devices import alone, gathered, of_first, own_rows, place, told, tree_of_first
from jaxdefend.nets.keras_files import write_model

N = 37

# One image is too few for all devices, 37 are no multiple of any number of them.
COUNT = f"""
import json, sys
from jaxdefend.cli import jax_setup
jax_setup.set_up_jax()
import jax, numpy as np
from helpers import random_net, random_pixels
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets.batches import padded
from jaxdefend.repairs import curve as pruning
from jaxdefend.nets.inference import measured_input_scale, predictions

assert jax.local_device_count() == int(sys.argv[1]), jax.local_devices()
net, images = random_net(), ArrayImages(random_pixels({N}), np.arange({N}) % 11)
results = [measured_input_scale(net, padded(images, 16)).correct]
for size in (1, 16):
    results.append(predictions(net, padded(images, size))[0].tolist())
means = pruning.mean_activations(net, padded(images, 16), "conv_3")
order = pruning.ascending(means)
for layer, order in (("conv_3", order), ("conv_4", np.arange(80))):
    curve = pruning.curve(net, padded(images, 16), order, layer)
    results += [order.tolist(), curve.n, curve.correct.tolist(), curve.agreed.tolist(), curve.agreed_correct.tolist()]
print(json.dumps(results))
"""


@pytest.mark.slow
def test_the_same_counts_on_1_2_and_8_devices():
    def start(devices):
        environment = ENVIRONMENT | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
        environment["PYTHONPATH"] += os.pathsep + os.path.dirname(__import__("helpers").__file__)
        command = [sys.executable, "-c", COUNT, str(devices)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    found = []
    for devices in (1, 2, 8):
        output, errors = start(devices).communicate(timeout=600)
        assert output, errors
        found.append(json.loads(output))
    assert found[0] == found[1] == found[2]


TRAIN = f"""
import json
import sys

import jax
import numpy as np
from helpers import random_net, random_pixels

from jaxdefend.nets.training import Schedule, fit, started

assert jax.local_device_count() == int(sys.argv[1]), jax.local_devices()
schedule = Schedule(steps=3, batch=20, peak=1e-4, optimizer="sgd")
labels = (np.arange({N}) % 11).astype(np.int32)
for _ in range(2):
    steps = fit(started(random_net(), schedule), random_pixels({N}), labels, schedule, jax.random.key(0))
    *_, (last, loss) = steps
    kernels = [float(np.abs(last.net.weights[layer]["kernel"]).sum(dtype=float)) for layer in ("conv_1", "output")]
    print(json.dumps([float(loss), *kernels]))
"""


@pytest.mark.slow
def test_the_same_training_on_1_2_and_8_devices():
    found = []
    for devices in (1, 2, 8):
        environment = ENVIRONMENT | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
        environment["PYTHONPATH"] += os.pathsep + os.path.dirname(__import__("helpers").__file__)
        command = [sys.executable, "-c", TRAIN, str(devices)]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=True)
        first, again = ended.stdout.splitlines()
        assert first == again
        found.append(json.loads(first))
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_model(random_net(), folder / "net.h5")
    write_model(random_net(1), folder / "repaired.h5")
    write_official(folder / "clean.h5", random_pixels(N), np.arange(N) % 11)
    write_official(folder / "poisoned.h5", random_pixels(9, 1), np.zeros(9))
    return folder


def run_of(processes, folder, name, *arguments):
    """JSON that `processes` processes of a command leave together, and what the first prints."""
    out = f"{name}_{processes}"
    printed, _ = together(processes, name, "net.h5", *arguments, "--out", out, cwd=folder)
    record = json.loads((folder / out / f"{name}.json").read_text())
    return {key: value for key, value in record.items() if key not in ("command", "device", "seconds")}, printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sweep", ["--valid", "clean.h5", "--poisoned", "poisoned.h5"]),
        ("evaluate", ["--clean", "clean.h5", "--poisoned", "poisoned.h5", "--repaired", "repaired.h5"]),
    ],
)
def test_two_processes_find_what_one_finds(world, name, arguments):
    assert run_of(2, world, name, *arguments) == run_of(1, world, name, *arguments)
    assert not list(world.glob(".*"))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="what cores a process has is known on Linux")
@pytest.mark.parametrize("chosen", [None, "3"])
def test_a_command_has_one_device_for_each_core_unless_told_otherwise(world, chosen):
    unset = {name: value for name, value in ENVIRONMENT.items() if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    environment = unset | {"JAX_PLATFORMS": "cpu"} | ({"JAX_NUM_CPU_DEVICES": chosen} if chosen else {})
    out = f"on_{chosen}"
    command = [sys.executable, "-m", "jaxdefend.evaluate", "net.h5", "--clean", "clean.h5", "--out", out]
    subprocess.run(command, check=True, capture_output=True, cwd=world, env=environment)
    count = json.loads((world / out / "evaluate.json").read_text())["device"]["count"]
    assert count == int(chosen or max(devices for devices in (1, 2, 4, 8) if devices <= jax_setup.cores()))
    assert chosen or count <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "most"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None), ("90000000 100000", None)],
)
def test_a_container_s_share_of_cpu_time_counts_as_cores(tmp_path, quota, most):
    (tmp_path / "cpu.max").write_text(quota)
    bound = jax_setup.cores(tmp_path / "none")
    assert jax_setup.cores(tmp_path / "cpu.max") == (most or bound)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--processes", "2"], "--coordinator"),
        (["--coordinator", "a:1", "--processes", "2"], "--process I"),
        (["--coordinator", "a:1", "--processes", "2", "--process", "2"], "0…N − 1"),
        (["--coordinator", "a", "--processes", "2", "--process", "0"], "HOST:PORT"),
        (["--coordinator", "auto"], "did not meet"),
    ],
)
def test_processes_that_cannot_meet(options, said, tmp_path):
    assert said in refused("sweep", "net.h5", *options, cwd=tmp_path)


def test_one_process_alone_has_everything(monkeypatch):
    values = np.arange(5.0)
    assert told("all") == ["all"] and of_first("mine") == "mine"
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert place() == (1, 3) and own_rows(5) == slice(1, 3)
    with alone():
        assert place() == (0, 1) and own_rows(5) == slice(0, 5)
        assert gathered(values, 5) is values and tree_of_first([values])[0] is values
    assert place() == (1, 3)
