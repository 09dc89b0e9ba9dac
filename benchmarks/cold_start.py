"""One image, the whole process: `python -m jaxdefend.predict IMAGE` and a Keras script that does the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import keras_peer
from benchmarks.measuring import Row, Size, interleaved
from benchmarks.report import main
from jaxdefend.nets import shipped
from jaxdefend.nets.loading import load_net

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "data" / "clean" / "test_3_30.png"
MODELS = [shipped.path_of(name) for name in (shipped.BADNET, shipped.REPAIRED)]


# Without it both sides would compile all that they import at every start.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def rows(size: Size) -> list[Row]:
    def said(*command: object) -> str:
        arguments = [sys.executable, *map(str, command)]
        return subprocess.run(arguments, check=True, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT).stdout

    def ours() -> str:
        return said("-m", "jaxdefend.predict", IMAGE, "--json")

    def theirs() -> str:
        return said(keras_peer.__file__, IMAGE, load_net(MODELS[0]).input_scale, *MODELS)

    answer, repeats = json.loads(ours()), -(-size.repeats // 2)
    peer = keras_peer.name()
    if peer is None:
        (times,) = interleaved(repeats, ours)
        return [Row("cold_start", times, f"Keras, {keras_peer.INSTALL}", smallest_ratio=3.75)]
    same = theirs().split() == [str(answer["badnet"]), str(answer["repaired"])]
    times, their_times = interleaved(repeats, ours, theirs)
    peer = f"{peer}, a script that does the same"
    return [Row("cold_start", times, peer, their_times, same, smallest_ratio=3.75)]


if __name__ == "__main__":
    sys.exit(main(rows))
