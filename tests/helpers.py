"""Nets and images made from a seed, and the real ones where they are at hand."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import jaxdefend
from jaxdefend.nets import deepid


def random_weights(seed: int = 0, classes: int = 11) -> dict[str, dict[str, np.ndarray]]:
    """He-scaled arrays for every layer, so that activations neither vanish nor explode."""
    rng = np.random.default_rng(seed)

    def drawn(shape):
        fan_in = np.prod(shape[:-1]) if len(shape) > 1 else 100
        return rng.normal(scale=np.sqrt(2 / fan_in), size=shape).astype(np.float32)

    return {
        layer: {name: drawn(shape) for name, shape in shapes.items()}
        for layer, shapes in deepid.weight_shapes(classes).items()
    }


def random_net(seed: int = 0, classes: int = 11, input_scale: deepid.InputScale | None = "unit") -> deepid.DeepID:
    return deepid.from_weights(random_weights(seed, classes), input_scale)


def random_pixels(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 55, 47, 3), dtype=np.uint8)


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


def command(name, *arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", f"jaxdefend.{name}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=ENVIRONMENT,
        check=False,
    )


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
