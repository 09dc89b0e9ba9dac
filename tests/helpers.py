"""Nets and images made from a seed, and the real ones where they are at hand."""

import io
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pytest

import jaxdefend
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import Graph
from jaxdefend.nets.net import Net


def random_weights(seed: int = 0, classes: int = 11, graph: Graph | None = None) -> dict[str, dict[str, np.ndarray]]:
    """He-scaled arrays for every layer, so that activations neither vanish nor explode."""
    rng = np.random.default_rng(seed)

    def drawn(name, shape):
        fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 100
        array = rng.normal(scale=np.sqrt(2 / fan_in), size=shape).astype(np.float32)
        return np.abs(array) + 0.5 if "variance" in name else array

    return {
        layer: {name: drawn(name, shape) for name, shape in shapes.items()}
        for layer, shapes in (graph or deepid(classes)).weight_shapes.items()
    }


def random_net(seed: int = 0, classes: int = 11, input_scale: str | None = "unit", graph: Graph | None = None) -> Net:
    """A net of random weights, DeepID unless another graph is given."""
    graph = graph or deepid(classes)
    return Net(graph, random_weights(seed, classes, graph), input_scale)


def random_pixels(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 55, 47, 3), dtype=np.uint8)


def labels_by(net: Net, pixels: np.ndarray) -> np.ndarray:
    """The labels that the net gives."""
    return net(pixels).argmax(axis=1).astype(np.int32)


def write_official(path: Path, pixels: np.ndarray, labels, dtype="float64") -> Path:
    """An official data file: `data` (N, 3, H, W), `label` (N,)."""
    with h5py.File(path, "w") as file:
        file["data"] = np.moveaxis(pixels, -1, 1).astype(dtype)
        file["label"] = np.asarray(labels).astype(dtype)
    return path


def real_folder() -> Path | None:
    folder = Path(os.environ.get("JAXDEFEND_REAL") or Path(__file__).parents[2] / "shared" / "real")
    return folder if folder.is_dir() else None


def real(name: str) -> Path:
    """A file of the real BadNets and faces; skips the test where they are not at hand."""
    folder = real_folder()
    if folder is None:
        pytest.skip("no real nets and faces: set JAXDEFEND_REAL to their folder")
    return folder / name


# So that the commands run in any folder, from a checkout too.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(jaxdefend.__file__).parents[1])}


def process(name, *arguments, cwd=None, **more):
    """`python -m jaxdefend.NAME`, to its end, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", f"jaxdefend.{name}", *map(str, arguments)],
        text=True,
        cwd=cwd,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT} | more,
    )


def command(name, *arguments, cwd=None):
    """The same in this process, which saves the start of jax."""
    out, err = io.StringIO(), io.StringIO()
    with chdir(cwd or os.curdir), redirect_stdout(out), redirect_stderr(err):
        status = import_module(f"jaxdefend.{name}").main([str(argument) for argument in arguments])
    return subprocess.CompletedProcess([name, *arguments], status, out.getvalue(), err.getvalue())


def succeeds(name, *arguments, cwd=None):
    done = command(name, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def refused(name, *arguments, cwd=None):
    """The one line on stderr of a command that ends with status 2."""
    done = command(name, *arguments, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(("note: ", "warning: "))]
    assert line.startswith("jaxdefend: ")
    return line
