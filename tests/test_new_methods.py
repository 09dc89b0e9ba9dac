"""A new repair or detector is two files: a module, and its settings in the table of contents."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import small_images, small_net, small_pixels

import jaxdefend
from jaxdefend.nets.keras_files import read_model, write_model

REPAIR = '''
"""The toy: every bias is scaled."""

import numpy as np

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.net import Net
from jaxdefend.repairs import Toy
from jaxdefend.repairs.base import Repair, Run


def repair(settings: Toy, net: Net, clean: ImageSet, run: Run) -> Repair:
    weights = {
        layer: arrays | {"bias": np.asarray(arrays["bias"]) * np.float32(settings.toy_factor)}
        for layer, arrays in net.weights.items()
    }
    return Repair("toy", settings, net.with_weights(weights), settings.record())
'''

REPAIR_SETTINGS = '''
@dataclass(frozen=True)
class Toy(Method):
    """Scales every bias by `toy_factor`; a toy."""

    toy_factor: float = setting(0.5, "what biases are scaled by", metavar="F", **share())


# Every method by the name of its option'''

DETECTOR = '''
"""The toy: bright images are suspicious."""

import numpy as np

from jaxdefend.detectors.base import Measure

LABEL = "brightness"


def measure(settings, net, images, scene):
    return {"dark": Measure(np.array([-settings.toy_weight * image.mean() for image in images[:].astype(float)]))}


def score(measures, clean):
    return -measures["dark"].values
'''

DETECTOR_SETTINGS = '''
@dataclass(frozen=True)
class Toy(Detector):
    """The mean of the pixels times `toy_weight`; a toy."""

    toy_weight: int = setting(1, "how much a pixel counts", **whole(1))


# Every detector by the name of its option'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package with a toy in both rooms, and a net with images."""
    folder = tmp_path_factory.mktemp("copy")
    package = folder / "jaxdefend"
    shutil.copytree(Path(jaxdefend.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    for room, module, table, settings in (
        ("repairs", REPAIR, "METHODS: dict[str, type[Method]] = {", REPAIR_SETTINGS),
        ("detectors", DETECTOR, "DETECTORS: dict[str, type[Detector]] = {", DETECTOR_SETTINGS),
    ):
        (package / room / "toy.py").write_text(module.lstrip(), encoding="utf-8")
        contents = (package / room / "__init__.py").read_text(encoding="utf-8")
        heading = settings.splitlines()[-1]
        assert contents.count(table) == contents.count(heading) == 1
        contents = contents.replace(heading, settings.lstrip()).replace(table, f'{table}\n    "toy": Toy,')
        (package / room / "__init__.py").write_text(contents, encoding="utf-8")
    write_model(small_net(), folder / "net.h5")
    pixels, labels = small_images(40)
    np.savez(folder / "clean.npz", data=pixels, label=labels)
    return folder


def run(copy, name, *words):
    environment = os.environ | {"PYTHONPATH": str(copy), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", f"jaxdefend.{name}", *words],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done


def test_a_repair_of_two_files(copy):
    manual = run(copy, "repair", "--help")
    assert manual.returncode == 0, manual.stderr
    text = " ".join(manual.stdout.split())
    assert "toy Scales every bias by --toy-factor; a toy." in text
    assert "--toy-factor F what biases are scaled by; for toy (default: 0.5)" in text
    words = ("net.h5", "--valid", "clean.npz", "--method", "toy")
    done = run(copy, "repair", *words, "--toy-factor", "0.25", "--out", "out")
    assert done.returncode == 0, done.stderr
    record = json.loads((copy / "out" / "repair.json").read_text())
    assert record["method"] == "toy" and record["settings"]["toy_factor"] == 0.25
    bias = read_model(copy / "out" / "repaired.h5").net.weights["last"]["bias"]
    np.testing.assert_array_equal(bias, small_net().weights["last"]["bias"] * np.float32(0.25))
    for more, said in (
        (("--toy-factor", "2"), "--toy-factor 2: expected a number between 0 and 1"),
        (("--epochs", "3"), "--epochs: toy does not read it"),
    ):
        refused = run(copy, "repair", *words, *more)
        assert refused.returncode == 2 and said in refused.stderr
    assert "--toy-factor: clp does not read it" in run(copy, "repair", *words[:-1], "clp", "--toy-factor", "0.1").stderr


def test_a_detector_of_two_files(copy):
    manual = run(copy, "detect", "calibrate", "--help")
    assert manual.returncode == 0, manual.stderr
    assert "--toy-weight N how much a pixel counts; for toy (default: 1)" in " ".join(manual.stdout.split())
    assert "toy The mean of the pixels times --toy-weight; a toy." in " ".join(
        run(copy, "detect", "--help").stdout.split()
    )
    words = ("net.h5", "--clean", "clean.npz", "--detector", "toy", "--toy-weight", "2", "--frr", "0.1")
    done = run(copy, "detect", "calibrate", *words, "--out", "guard")
    assert done.returncode == 0, done.stderr
    record = json.loads((copy / "guard" / "guard.json").read_text())
    assert record["detector"] == "toy" and record["detectors"]["toy"]["settings"] == {"toy_weight": 2}
    pixels = small_pixels(3, 8)
    pixels[1] = 255
    np.savez(copy / "some.npz", data=pixels, label=np.zeros(3, int))
    done = run(copy, "detect", "score", "net.h5", "some.npz", "--guard", "guard/guard.json", "--out", "scores")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    np.testing.assert_allclose([float(row["score"]) for row in rows], 2 * pixels.mean(axis=(1, 2, 3)), rtol=1e-5)
    assert [row["rejected"] for row in rows][1] == "True"
