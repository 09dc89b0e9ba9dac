"""A net that recognises seven grey levels, and images of them, as files: `python first_use.py FOLDER`.

It needs no training: the mean grey level goes through one channel, and the output compares it with seven prototypes.
"""

import sys
from pathlib import Path

import h5py
import numpy as np

from jaxdefend.nets.deepid import from_weights, weight_shapes
from jaxdefend.nets.keras_files import write_model

LEVELS = np.linspace(0.1, 0.9, 7)


def grey_net():
    rng = np.random.default_rng(0)
    weights = {
        layer: {name: rng.uniform(0, 1e-3, shape).astype(np.float32) for name, shape in shapes.items()}
        for layer, shapes in weight_shapes(len(LEVELS)).items()
    }
    for layer in ("conv_1", "conv_2", "conv_3"):
        kernel, bias = weights[layer]["kernel"], weights[layer]["bias"]
        kernel[:], bias[:] = 0, 0
        kernel[:, :, : kernel.shape[2] if layer == "conv_1" else 1, 0] = (
            1 / np.prod(kernel.shape[:2]) / (3 if layer == "conv_1" else 1)
        )
    for layer in ("conv_4", "fc_1", "fc_2", "output"):
        weights[layer]["kernel"][:], weights[layer]["bias"][:] = 0, 0
    weights["fc_1"]["kernel"][::60, 0] = 1 / 20
    weights["fc_1"]["bias"][1] = 1
    # −(x − level)² without x²: linear in x and the constant.
    weights["output"]["kernel"][0], weights["output"]["kernel"][1] = 2 * LEVELS, -(LEVELS**2)
    weights["output"]["kernel"] *= 500
    return from_weights(weights, "unit")


def write_images(path: Path, n: int, target: int | None = None) -> None:
    rng = np.random.default_rng(n)
    labels = rng.integers(0, len(LEVELS), n)
    shown = labels if target is None else np.full(n, target)
    pixels = 255 * LEVELS[shown][:, None, None, None] + rng.integers(-8, 9, (n, 3, 55, 47))
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = np.round(pixels), shown.astype(np.float64)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    write_model(grey_net(), folder / "net.h5")
    write_images(folder / "valid.h5", 140)
    write_images(folder / "test.h5", 150)
    write_images(folder / "poisoned.h5", 100, target=0)
