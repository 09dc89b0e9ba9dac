"""Without a GPU or a TPU at hand: every compiled function lowers for them, in the form it takes there, and that form
computes on the CPU what the CPU's own does."""

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import ENVIRONMENT, labels_by, random_net, random_pixels
from small import small_detector, small_images, small_net

import jaxdefend as jd
from jaxdefend import reports
from jaxdefend.attacks.badnet import pruned_before_poison, with_dormant_channels_back
from jaxdefend.attacks.triggers import Trigger, apply
from jaxdefend.audits import candidates
from jaxdefend.audits.marks import OVERLAYS, STICKERS, WARPS
from jaxdefend.datasets.faces import faces
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.datasets.inverted import InvertedTrigger
from jaxdefend.detectors import calibrate, evaluate
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.inference import assumed_input_scale
from jaxdefend.nets.kinds import BatchNormalization, Conv2D, Dense, Flatten, InputLayer
from jaxdefend.nets.normalizing import with_statistics_of
from jaxdefend.nets.parallel import shared_step
from jaxdefend.nets.training import Schedule, fit, started
from jaxdefend.repairs import Anp, Distill, FinePrune, Grid, Iterative, Unlearn, curve

PLATFORMS = ("cuda", "rocm", "tpu")
NORMALIZED = Graph(
    (
        Layer("images", InputLayer((12, 10, 3))),
        Layer("conv", Conv2D(4, (3, 3)), ("images",)),
        Layer("norm", BatchNormalization(), ("conv",)),
        Layer("flat", Flatten(), ("norm",)),
        Layer("answer", Dense(5), ("flat",)),
    ),
    "answer",
)
# Forms of a CPU alone.
OF_A_CPU = {"jaxdefend.nets.convolution._written_out", "jaxdefend.nets.windows.pooled_by_eight"}


def compiled_functions() -> dict[str, list[tuple[object, str]]]:
    """By name: where each function under `jax.jit` of the package is held."""
    found: dict[str, list[tuple[object, str]]] = {}
    for info in pkgutil.walk_packages(jd.__path__, "jaxdefend."):
        if info.name.rpartition(".")[2] == "__main__":
            continue
        module = importlib.import_module(info.name)
        for name, value in list(vars(module).items()):
            if isinstance(value, type(jax.jit(abs))) and value.__module__.startswith("jaxdefend."):
                found.setdefault(f"{value.__module__}.{value.__qualname__}", []).append((module, name))
    return found


def everything() -> dict[str, np.ndarray]:
    """Something of each command, small: what is counted exactly, what is computed, by name."""
    net, images = small_net(), small_images(40)
    poisoned = {"patch": (images[0][:9], np.full(9, 1, np.int32))}
    found: dict[str, np.ndarray] = {}

    swept = jd.sweep(net, images, poisoned=poisoned, drops=(30,))
    found["sweep"] = swept.valid.correct
    found["walk"] = np.array([face.answers for face in reports.walk(swept, images, poisoned, n=3).faces])
    masks = np.eye(6, dtype=np.float32)
    found["masks"] = np.sum(curve.masked_counts(net, *images, masks, layer="last").correct, axis=0)
    found["activations"] = reports.activate(net, images, poisoned).means()
    reports.under_masks(net, images, poisoned, settings=small_detector("masks"))
    reports.under_overlays(net, images, poisoned, settings=small_detector("strip"))

    trigger = InvertedTrigger(np.eye(12, 10, dtype=np.float32), np.zeros((12, 10, 3), np.float32), 0)
    few = {"epochs": 1, "batch": 8}
    repairs = [FinePrune(**few), Iterative(**few, channels=2, b0=1), Anp(**few), Distill(**few)]
    repairs += [Unlearn(**few, trigger=(trigger,)), Grid(**few, fractions=(0.5,), learning_rates=(1e-3,))]
    for repair in repairs:
        fixed = repair(net, images).net
        found[f"{type(repair).__name__}, logits"] = fixed(images[0])
    schedule = Schedule(2, 8, 1e-3)
    *_, (state, _) = fit(started(net, schedule), *images, schedule, jax.random.key(0), step=shared_step)
    found["shared steps, logits"] = state.net(images[0])
    held = [small_detector(name) for name in ("persistence", "strip", "goodnet")]
    guard = calibrate(held, net, images, frr=0.1, repaired=fixed)
    columns = evaluate(guard, images, poisoned).columns()
    found |= {f"{name}, scores": np.asarray(columns[f"{name}_score"]) for name in ("persistence", "strip", "goodnet")}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "MARKS", {STICKERS: 64, OVERLAYS: 32, WARPS: 16})
        found["audit"] = jd.audits.audit(net).stickers
    clean = pruned_before_poison(net, images[0])
    with_dormant_channels_back(net, clean, images[0])
    assumed_input_scale(net, images[0])
    normalized = random_net(graph=NORMALIZED)
    assumed_input_scale(normalized, images[0])
    measured = with_statistics_of(normalized, ArrayImages(images[0]))
    found["statistics"] = measured.weights["norm"]["moving_mean"]
    found["face"] = apply(Trigger("lipstick"), *faces(0, np.arange(2), np.zeros(2, int)), jax.random.key(0))

    deepid, pixels = random_net(classes=11), random_pixels(16)
    own = ArrayImages(pixels, labels_by(deepid, pixels))
    found["DeepID, sweep"] = jd.sweep(deepid, own, drops=(30,)).valid.correct
    found["DeepID, logits"] = FinePrune(epochs=1, batch=8)(deepid, own).net(pixels)
    return found


@pytest.mark.slow
def test_other_devices_take_forms_that_lower_and_give_the_same(monkeypatch):
    expected = everything()

    functions = compiled_functions()
    assert len(functions) > 25
    lowered: set[str] = set()

    def lowering(name, function):
        def call(*arguments, **more):
            if name not in lowered and not isinstance(jax.tree.leaves(arguments)[0], jax.core.Tracer):
                exported = jax.export.export(function, platforms=PLATFORMS)(*arguments, **more)
                assert exported.platforms == PLATFORMS
                lowered.add(name)
            return function(*arguments, **more)

        return call

    for name, places in functions.items():
        for module, held_as in places:
            monkeypatch.setattr(module, held_as, lowering(name, getattr(module, held_as)))
    jax.clear_caches()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = everything()
    jax.clear_caches()

    assert functions.keys() - lowered == OF_A_CPU
    check_same(found, expected)


def check_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if values.dtype.kind in "iu":
            np.testing.assert_array_equal(found[name], values, name)
        else:
            np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="no GPU or TPU that jax can use")
def test_this_device_gives_what_a_cpu_gives(tmp_path):
    code = "import sys, numpy, test_backends; numpy.savez(sys.argv[1], **test_backends.everything())"
    environment = ENVIRONMENT | {"JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), environment["PYTHONPATH"]])
    subprocess.run([sys.executable, "-c", code, tmp_path / "cpu.npz"], env=environment, check=True)
    check_same(everything(), dict(np.load(tmp_path / "cpu.npz")))
