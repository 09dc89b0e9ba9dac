"""Commands over two processes: what one finds, and what is said where the other ends."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from helpers import command, write_official
from PIL import Image
from small import small_images, small_net, small_pixels
from together import ended, started, together

from jaxdefend.nets.keras_files import read_model, write_model

pytestmark = pytest.mark.slow

IMAGES = ("--valid", "clean.h5", "--poisoned", "poisoned.h5")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    (folder / "models").mkdir()
    for seed in (0, 1):
        write_model(small_net(seed), folder / f"models/net_{seed}.h5")
    (folder / "models/broken.h5").write_bytes(b"no model")
    write_model(small_net(), folder / "net.h5")
    write_official(folder / "clean.h5", *small_images(101, 1))
    write_official(folder / "poisoned.h5", small_pixels(21, 2), np.zeros(21))
    return folder


def alike(one, other, of=""):
    """The same record but for rounding, and for what tells one run from another."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), of
        for key in one.keys() - {"command", "device", "seconds", "sha256"}:
            alike(one[key], other[key], f"{of}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), of
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            alike(a, b, f"{of}/{number}")
    else:
        assert one == (pytest.approx(other, abs=1e-6) if isinstance(one, float) else other), of


def both(world, name, file, *arguments, status=0):
    """The results of one process and of two, in their folders."""
    folders = [world / f"{name}_{processes}" for processes in (1, 2)]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    said = [
        together(processes, *arguments, "--out", folder, cwd=world, status=status)
        for processes, folder in enumerate(folders, 1)
    ]
    lines = [[len(text.splitlines()) for text in each] for each in said]
    assert lines[0] == lines[1], said
    texts = [(folder / file).read_text().splitlines() for folder in folders]
    for one, other in zip(*texts, strict=True) if file.endswith("l") else [map("".join, texts)]:
        alike(json.loads(one), json.loads(other))
    assert not list(world.glob(".*"))
    return folders


def close(one, other, name="repaired.h5"):
    weights = [read_model(folder / name).net.weights for folder in (one, other)]
    for layer, arrays in weights[0].items():
        for kind, array in arrays.items():
            assert np.allclose(array, weights[1][layer][kind], atol=1e-4), (layer, kind)


def test_files_that_differ_are_refused(world, tmp_path):
    shutil.copytree(world / "models", tmp_path / "models")
    for name in ("net.h5", "poisoned.h5"):
        shutil.copy(world / name, tmp_path)
    write_official(tmp_path / "clean.h5", *small_images(60, 1))
    write_model(small_net(7), tmp_path / "models/one_more.h5")
    write_model(small_net(8), tmp_path / "models/net_1.h5")
    for folder, seed in ((world, 3), (tmp_path, 4)):
        write_official(folder / "same.h5", *small_images(20, 1))
        write_official(folder / "other.h5", small_pixels(20, seed), np.zeros(20))
        (folder / "pictures").mkdir()
        for number, image in enumerate(small_pixels(40, seed)):
            # The first and the last are the same everywhere.
            shown = image if 0 < number < 39 else np.zeros_like(image)
            Image.fromarray(shown).save(folder / f"pictures/{number:02}.png")
    commands = {
        "clean.h5 is ": ("sweep", "net.h5", *IMAGES),
        "other.h5 is ": ("evaluate", "net.h5", "--clean", "same.h5", "--poisoned", "p=other.h5"),
        "p is 40 images (": ("evaluate", "net.h5", "--clean", "same.h5", "--poisoned", "p=pictures", "--target", "0"),
        "models/net_1.h5 is ": ("evaluate", "net.h5", "--clean", "same.h5", "--repaired", "models/net_1.h5"),
        "the list of files is ": ("audit", "models"),
    }
    for told, arguments in commands.items():
        for status, output, errors in ended(started(2, *arguments, "--out", "out", cwd=[world, tmp_path])):
            assert (status, output) == (2, "") and errors.startswith(f"jaxdefend: process 1: {told}"), errors
            assert len(errors.splitlines()) == 1
    assert not (world / "out").exists() and not (tmp_path / "out").exists()


def test_files_of_an_audit(world):
    _, out = both(world, "audit", "audits.jsonl", "audit", "models", status=2)
    again = command("audit", "models", "--out", out, cwd=world)
    assert again.returncode == 2 and again.stderr.count("audited before") == 2


def test_images_of_detectors(world):
    few = ("--masks", "8", "--overlays", "9", "--repaired", "models/net_1.h5")
    one, two = both(
        world, "detect", "detect.json", "detect", "evaluate", "net.h5", *IMAGES, "--clean", "clean.h5", *few
    )
    rows = [np.genfromtxt(folder / "detect.csv", delimiter=",", skip_header=1) for folder in (one, two)]
    assert len(rows[0]) == 101 + 21 and np.allclose(*rows, atol=1e-6, equal_nan=True)


def test_steps_and_cells_of_repairs(world):
    few = ("--epochs", "3", "--batch", "16")
    found = both(world, "repair", "repair.json", "repair", "net.h5", *IMAGES, "--channels", "1", *few)
    close(*found)
    grid = ("--grid", "--learning-rates", "0.001", "0.005", "--fractions", "0.5")
    close(*both(world, "grid", "repair.json", "repair", "net.h5", *IMAGES, *grid, *few))


def test_cells_of_a_comparison(world):
    repairs = ("--repair", "prune:channels=1", "fine-prune:epochs=2,channels=1,batch=16")
    detectors = ("--detector", "persistence:masks=8", "strip:overlays=7")
    _, out = both(world, "compare", "compare.json", "compare", "net.h5", *IMAGES, *repairs, *detectors)
    before = {path: path.stat().st_mtime_ns for path in (out / "cells").iterdir() if path.name != "scores.npz"}
    again = command("compare", "net.h5", *IMAGES, *repairs, *detectors, "--out", out, cwd=world)
    assert again.returncode == 0 and "epoch" not in again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_page(world):
    arguments = ("report", "net.h5", *IMAGES, "--out", world / "page.html", "--files")
    for processes in (1, 2):
        together(processes, *arguments, world / f"files_{processes}", cwd=world)
    for name in ("measurement.json", "detect.json", "confusions.json", "gallery.json"):
        alike(*(json.loads((world / folder / name).read_text()) for folder in ("files_1", "files_2")))


def test_a_repair_whose_other_process_is_killed_goes_on(world):
    arguments = ("repair", "net.h5", *IMAGES, "--method", "fine-prune", "--channels", "1", "--batch", "16")
    arguments += ("--epochs", "60", "--out", out := world / "killed")
    running, saved = started(2, *arguments, cwd=world), world / "killed.checkpoint"
    while running[0].poll() is None and not any(path.name.isdigit() for path in saved.glob("*")):
        time.sleep(0.01)
    running[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    status, output, errors = ended(running)[0]
    assert time.monotonic() - began < 30
    assert (status, output) == (2, "")
    assert errors.splitlines()[-1].startswith("jaxdefend: another process of the run has ended")
    assert "Traceback" not in errors and not out.exists()

    together(2, *arguments, "--resume", cwd=world)
    assert not saved.exists()
    assert command(*arguments[:-1], world / "whole", cwd=world).returncode == 0
    close(world / "whole", out)


def test_where_one_of_two_processes_is_killed_the_one_that_waits_says_so(world):
    """The second has no file of its own: it waits for the first, which audits, or is told that it is alone."""
    for killed in (0, 1):
        running = started(2, "audit", "sunglasses_bd_net", "--out", "waited", cwd=world)
        # As long as the two need to meet.
        time.sleep(8)
        if running[0].poll() is not None:
            pytest.skip("this machine audits in the time that two processes need to meet")
        running[killed].send_signal(signal.SIGKILL)
        began = time.monotonic()
        status, output, errors = ended(running)[1 - killed]
        assert time.monotonic() - began < 30
        assert status == 2
        assert errors.splitlines()[-1].startswith("jaxdefend: another process of the run has ended")
        # The first may have done all of it before it asks for the other.
        assert bool(output) == (world / "waited").exists() and not (output and killed == 0)
        shutil.rmtree(world / "waited", ignore_errors=True)
        assert not list(world.glob(".*"))
