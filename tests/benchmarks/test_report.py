"""The table and the file of `python -m benchmarks`; what it measures is measured elsewhere."""

import json

import numpy as np
import pytest

from benchmarks import keras_peer, report
from benchmarks.measuring import Row, interleaved, multiply_adds

ROWS = [
    Row("fast", [1.0, 2.0, 1.0], "Keras", [3.0, 6.0, 4.0], True, smallest_ratio=2.5),
    Row("slow", [1.0], "Keras", [2.0], True, smallest_ratio=2.5),
    Row("alone", [0.0005], f"Keras, {keras_peer.INSTALL}", longest_seconds=1e-3),
    Row("unknown", [1.0], f"Keras, {keras_peer.INSTALL}", smallest_ratio=2),
]


def test_the_file_has_the_agreed_keys(tmp_path, capsys):
    assert report.main(lambda size: ROWS, arguments=["--quick", "--out", str(tmp_path / "new")]) == 0
    record = json.loads((tmp_path / "new" / "benchmarks.json").read_text())
    assert {"machine", "versions", "date", "rows"} <= set(record)
    keys = ["name", "ours_s", "peer", "peer_s", "ratio", "goal", "same_result"]
    assert all(list(row) == keys for row in record["rows"])
    assert record["rows"][0] == dict(zip(keys, ["fast", 1, "Keras", 4, 3, "ratio ≥ 2.5", True], strict=True))
    assert record["rows"][3]["ratio"] is None and "pip install" in record["rows"][3]["peer"]
    assert (tmp_path / "new" / "benchmarks.png").read_bytes().startswith(b"\x89PNG")
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(ROWS)


def test_a_goal_is_met_or_not_or_not_known():
    assert [row.met for row in ROWS] == [True, False, True, None]


def test_contestants_take_turns():
    turns = []
    times = interleaved(2, lambda: turns.append("a"), lambda: turns.append("b"))
    assert turns == ["a", "b", "a", "b"]
    assert [len(own) for own in times] == [2, 2]


def test_multiply_adds_are_those_of_the_layers():
    from helpers import random_net

    net = random_net(classes=1283)
    assert multiply_adds(net, "conv_1", "conv_2", "conv_3", "conv_4") == 2_196_480 + 3_456_000 + 1_728_000 + 230_400
    assert multiply_adds(net, "fc_1", "fc_2", "output") == 160 * (1200 + 960 + 1283)


@pytest.mark.parametrize(("scale", "largest"), [("raw", 255), ("unit", 1)])
def test_the_peer_sees_the_scale_of_the_net(scale, largest):
    assert keras_peer.as_input(np.full((1, 55, 47, 3), 255, np.uint8), scale).max() == largest
