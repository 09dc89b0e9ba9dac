import numpy as np
import pytest
from helpers import random_net, random_weights

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.checkpoints import read_checkpoint, write_checkpoint
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.net import Net


@pytest.mark.parametrize(("classes", "scale"), [(3, "raw"), (11, None), (1283, "unit")])
def test_round_trip_is_exact_and_quiet(tmp_path, capfd, classes, scale):
    weights = random_weights(1, classes)
    weights["conv_1"]["bias"][:3] = [-0.0, 1e-42, 3e38]
    write_checkpoint(Net(deepid(classes), weights, scale), tmp_path / "new" / "net")
    found = read_checkpoint(tmp_path / "new" / "net")
    for layer, arrays in found.weights.items():
        for kind, array in arrays.items():
            assert array.tobytes() == weights[layer][kind].tobytes(), f"{layer}/{kind}"
    assert (found.classes, found.input_scale) == (classes, scale)
    assert capfd.readouterr() == ("", "")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "net").mkdir()
    with pytest.raises(InputError, match="is there already"):
        write_checkpoint(random_net(), tmp_path / "net")
    assert not list((tmp_path / "net").iterdir())
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="cannot be written"):
        write_checkpoint(random_net(), tmp_path / "file" / "net")


def test_folders_that_hold_no_net(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    write_checkpoint(random_net(), tmp_path / "damaged")
    (tmp_path / "damaged" / "_METADATA").write_text("{")
    for name in ("missing", "empty", "file", "damaged"):
        with pytest.raises(InputError, match="holds no net") as error:
            read_checkpoint(tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(error.value)


def test_values_that_are_not_finite(tmp_path):
    weights = random_weights()
    weights["fc_2"]["bias"][0] = np.nan
    write_checkpoint(Net(deepid(11), weights), tmp_path / "net")
    with pytest.raises(InputError, match="fc_2/bias holds values that are not finite"):
        read_checkpoint(tmp_path / "net")


def test_any_graph_and_scale(tmp_path):
    graph = Graph(
        (
            Layer("start", kinds.InputLayer((4, 4, 3))),
            Layer("shifted", kinds.Normalization(), ("start",)),
            Layer("flat", kinds.Flatten(), ("shifted",)),
            Layer("end", kinds.Dense(2, activation="softmax"), ("flat",)),
        ),
        "end",
    )
    weights = random_weights(graph=graph)
    weights["shifted"]["variance"] = np.array([1, 2, 3], np.float32)
    write_checkpoint(Net(graph, weights, "0.5,0.4,0.3/0.2"), tmp_path / "net")
    found = read_checkpoint(tmp_path / "net")
    assert (found.graph, found.input_scale) == (graph, "0.5,0.4,0.3/0.2")
    np.testing.assert_array_equal(found.weights["shifted"]["mean"], weights["shifted"]["mean"])


def test_checkpoints_of_earlier_versions(tmp_path):
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(
            (tmp_path / "net").absolute(), {"weights": random_weights(), "input_scale": np.array(1, np.int32)}
        )
    found = read_checkpoint(tmp_path / "net")
    assert (found.graph, found.input_scale) == (deepid(11), "unit")
