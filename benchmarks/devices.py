"""The curve on 1, 2 and 8 virtual CPU devices: the same counts, and what the split costs or gains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.measuring import Row, Size, interleaved
from benchmarks.report import main
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets import shipped
from jaxdefend.nets.batches import padded
from jaxdefend.nets.loading import load_net
from jaxdefend.repairs import curve as curves

# The same for all: as many for each device are too few, or too many for the cache.
BATCH = 1024


def rows(size: Size) -> list[Row]:
    one, *others = (_measured(devices, size) for devices in (1, 2, 8))
    return [
        Row(f"devices_{devices}", found["seconds"], "1 device", one["seconds"], found["right"] == one["right"])
        for devices, found in zip((2, 8), others, strict=True)
    ]


def _measured(devices: int, size: Size) -> dict:
    command = [sys.executable, "-m", "benchmarks.devices", "--child", str(size.images), str(size.repeats)]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root, env=environment)
    return json.loads(done.stdout)


def _measure(n: int, repeats: int) -> dict:
    net = load_net(shipped.BADNET)
    images = ArrayImages(np.random.default_rng(0).integers(0, 256, (n, *net.image_shape), dtype=np.uint8), np.arange(n))

    def curve() -> curves.Curve:
        return curves.curve(net, padded(images, BATCH), np.arange(60), "conv_3")

    found = curve()
    return {"right": found.correct.tolist(), "seconds": interleaved(repeats, curve)[0]}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_measure(*map(int, sys.argv[2:]))))
    else:
        sys.exit(main(rows))
