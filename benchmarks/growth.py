"""The curve over more and more images: time grows as their number does, memory does not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.measuring import Row, Size, clean_faces
from benchmarks.report import main
from jaxdefend.cli import terminal
from jaxdefend.nets import shipped
from jaxdefend.nets.batches import Batch, padded
from jaxdefend.nets.devices import batch_size
from jaxdefend.nets.loading import load_net
from jaxdefend.repairs import curve as curves

FEW = 1000


def rows(size: Size) -> list[Row]:
    command = [sys.executable, "-m", "benchmarks.growth", "--child", str(size.growth_images), str(size.repeats)]
    # glibc gives its threads arenas of their own. A buffer that goes from one to another makes the peak higher by 25
    # MiB, sooner or later, whatever the number of images.
    environment = os.environ | {"MALLOC_ARENA_MAX": "2"}
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=environment)
    found = json.loads(done.stdout)
    few, many = found["peak_mib"]
    factor = size.growth_images // FEW
    half, rest = factor // 2 * FEW, size.growth_images
    terminal.say(f"growth: peak memory {few:,.0f} MiB after {half:,} images, {many:,.0f} after {rest:,} more")
    return [
        Row(
            "growth",
            [found["many_s"]] * size.repeats,
            f"{factor} × the time of {FEW:,} images; same result: counts × {factor}, peak memory within 5 %",
            [factor * seconds for seconds in found["few_s"]],
            found["same"] and many <= 1.05 * few,
            smallest_ratio=0.95,
        )
    ]


@dataclass(frozen=True)
class Repeated:
    """`times` over the same images, as a set that needs no more memory."""

    pixels: np.ndarray
    labels: np.ndarray
    times: int

    def chunks(self, size: int, rows: slice) -> Iterator[Batch]:
        for start in range(0, self.times * len(self.pixels), size):
            chosen = np.arange(start, min(start + size, self.times * len(self.pixels))) % len(self.pixels)
            yield self.pixels[chosen], self.labels[chosen]


def _measure(most: int, repeats: int) -> dict:
    import resource

    net, (pixels, labels) = load_net(shipped.BADNET), clean_faces(FEW)
    order = np.arange(60)

    def passed(times: int) -> tuple[float, curves.Curve]:
        start = perf_counter()
        curve = curves.curve(net, padded(Repeated(pixels, labels, times), batch_size()), order, "conv_3")
        return perf_counter() - start, curve

    def peak() -> float:
        # Linux hands the maximum of getrusage down from the process that started this one.
        status = Path("/proc/self/status")
        if status.exists():
            return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)

    # Half first: buffers of batches that are under way at once meet by chance, 388 → 437 MiB in the first 40,000 images
    # and no more in 100,000.
    passed(most // FEW // 2)
    few_s = [passed(1)[0] for _ in range(repeats - 1)]
    before = peak()
    many_s, many = passed(most // FEW)
    after = peak()
    last, few = passed(1)
    same = np.array_equal(many.correct, most // FEW * few.correct)
    return {"few_s": [*few_s, last], "many_s": many_s, "peak_mib": [before, after], "same": bool(same)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(_measure(*map(int, sys.argv[2:]))))
    else:
        sys.exit(main(rows))
