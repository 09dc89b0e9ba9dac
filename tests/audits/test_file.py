"""What is in a model file beside the arrays: every kind of finding, files that are refused, and clean ones."""

import io
import json
import pickle
import time
import zipfile
from importlib import import_module

import h5py
import numpy as np
import pytest
from helpers import random_net, real
from small import small_net

from jaxdefend import InputError
from jaxdefend.audits.file import file_findings
from jaxdefend.audits.findings import suspicious
from jaxdefend.nets.keras_files import config_of_net, read_model, write_model, write_weights
from jaxdefend.nets.shipped import NAMES, path_of


@pytest.fixture
def model(tmp_path):
    write_model(small_net(), tmp_path / "net.h5", rule="anti")
    return tmp_path / "net.h5"


def found(path) -> dict[str, str]:
    """The messages by kind."""
    facts = file_findings(path)
    for finding in facts.findings:
        assert finding.message.isprintable() and len(finding.message) <= 500
        assert len(finding.where) <= 100
    assert json.loads(json.dumps(facts.record()))["findings"] == [finding.record() for finding in facts.findings]
    return {finding.kind: finding.message for finding in facts.findings}


def kinds_of_suspicion(path) -> list[str]:
    return [finding.kind for finding in suspicious(file_findings(path).findings)]


def archive(path, config: dict | None = None, **members: bytes):
    """A .keras archive of the small net."""
    content, net = io.BytesIO(), small_net()
    with h5py.File(content, "w") as file:
        for name, layer in (("conv2d", "first"), ("conv2d_1", "last"), ("dense", "answer")):
            for number, array in enumerate(net.weights[layer].values()):
                file[f"layers/{name}/vars/{number}"] = array
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config or config_of_net(net)))
        file.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        file.writestr("model.weights.h5", content.getvalue())
        for name, member in members.items():
            file.writestr(name, member)
    return path


def with_layer(**layer) -> dict:
    """The small net's architecture with one more layer in front of its answer."""
    config = config_of_net(small_net())
    layers = config["config"]["layers"]
    layers.insert(-1, {"name": "odd", "inbound_nodes": [[["flat", 0, 0, {}]]], **layer})
    layers[-1]["inbound_nodes"] = [[["odd", 0, 0, {}]]]
    return config


def with_config(path, config: dict):
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps(config)
    return path


def test_what_we_write_has_nothing_beside_the_arrays(model, tmp_path):
    facts = file_findings(model)
    assert facts.findings == () and facts.code == ()
    assert (facts.name, facts.format, facts.bytes) == ("net.h5", "Keras 2 model", model.stat().st_size)
    assert facts.sha256 == read_model(model).sha256
    write_weights(random_net(), tmp_path / "weights.h5")
    assert file_findings(tmp_path / "weights.h5").format == "Keras 2 weights"
    assert found(tmp_path / "weights.h5") == {}
    assert file_findings(archive(tmp_path / "net.keras")).format == "Keras 3 archive"
    assert found(tmp_path / "net.keras") == {}
    read_model(tmp_path / "net.keras")


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_files_have_nothing_beside_the_arrays(name):
    assert file_findings(path_of(name)).findings == ()


@pytest.mark.real
def test_the_real_files_hold_states_of_training_at_most():
    for path in [*real("weights").glob("*.h5"), *real("other").glob("*.h*5")]:
        if path.name != "cifar_50.h5":
            assert found(path).keys() <= {"optimizer-state", "training-configuration"}, path.name


def test_state_and_configuration_of_the_training(model):
    with h5py.File(model, "a") as file:
        file.attrs["training_config"] = "{}"
        file["optimizer_weights/Adam/m:0"] = np.zeros(10, np.float32)
        file["optimizer_weights"].attrs["weight_names"] = [b"Adam/m:0"]
    told = found(model)
    assert told.keys() == {"optimizer-state", "training-configuration"}
    assert told["optimizer-state"].startswith("optimizer_weights: 1 array of 40 bytes, the optimizer's state")
    assert kinds_of_suspicion(model) == []


def test_what_no_layer_reads(model):
    with h5py.File(model, "a") as file:
        file["model_weights/last/payload"] = np.zeros(100, np.uint8)
        file["notes/more"] = np.zeros(3, np.float32)
        file.attrs["author"] = "somebody"
        file["model_weights/last/last/kernel:0"].attrs["hidden"] = np.zeros(16)
        file["empty"] = h5py.Empty("f")
    told = found(model)
    assert told.keys() == {"unknown-array", "unknown-group", "unknown-attribute"}
    assert told["unknown-array"].startswith("3 arrays that no layer of the net reads, 112 bytes: ")
    assert "model_weights/last/payload" in told["unknown-array"] and told["unknown-group"].endswith(": notes")
    assert "model_weights/last/last/kernel:0@hidden" in told["unknown-attribute"]
    assert kinds_of_suspicion(model) == []
    read_model(model)


def test_links_are_not_followed(model, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.zeros(3)
    with h5py.File(model, "a") as file:
        file["around"] = file["/"]
        file["soft"] = h5py.SoftLink("/model_weights")
        file["outside"] = h5py.ExternalLink("other.h5", "secret")
        file.create_dataset("raw", (4,), "u1", external=[(str(tmp_path / "other.h5"), 0, 4)])
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "secret", (3,))
        file.create_virtual_dataset("virtual", layout)
    told = found(model)
    assert told["link"].startswith("soft leads to another place in the file")
    assert told["external-link"] == "outside leads to another file and is not followed"
    assert "keeps its values in another file" in told["external-array"] and "1 more" in told["external-array"]
    assert kinds_of_suspicion(model) == ["external-link", "external-array"]


@pytest.mark.parametrize("layout", ["archive", "HDF5"])
@pytest.mark.parametrize(
    ("layer", "kind", "said"),
    [
        (
            {"class_name": "Lambda", "config": {"name": "odd", "function": ["4wEAAAAA", None, None]}},
            "code",
            "odd: a Lambda layer, which runs code (6 bytes of it lie in the file)",
        ),
        (
            {
                "class_name": "Lambda",
                "config": {"name": "odd", "function": {"class_name": "__lambda__", "config": {"code": "4wEA"}}},
            },
            "code",
            "odd: a Lambda layer, which runs code (3 bytes",
        ),
        (
            {"class_name": "TFSMLayer", "config": {"name": "odd", "filepath": "/elsewhere"}},
            "code",
            "odd: a TFSMLayer layer, which runs code;",
        ),
        (
            {
                "class_name": "Dense",
                "config": {
                    "name": "odd",
                    "units": 3,
                    "activation": {"module": "os", "class_name": "function", "config": "system"},
                },
            },
            "code",
            "odd: names the function system of the module os, which loading may import",
        ),
        (
            {
                "class_name": "Dense",
                "config": {
                    "name": "odd",
                    "units": 3,
                    "activation": {
                        "module": "builtins",
                        "class_name": "function",
                        "config": "mine",
                        "registered_name": "function",
                    },
                },
            },
            "custom-function",
            "odd: names the function mine, whose code is not in the file",
        ),
        (
            {
                "module": "mine.layers",
                "class_name": "Dense",
                "registered_name": "Mine>Dense",
                "config": {"name": "odd"},
            },
            "custom-layer",
            "odd: a Mine>Dense, no layer of Keras",
        ),
        ({"class_name": "Trapdoor", "config": {"name": "odd"}}, "custom-layer", "odd: a Trapdoor, no layer of Keras"),
        ({"class_name": "LSTM", "config": {"name": "odd"}}, "unsupported-layer", "odd: a LSTM of Keras"),
    ],
)
def test_layers_that_are_not_read_are_named(model, tmp_path, layout, layer, kind, said):
    config = with_layer(**layer)
    path = archive(tmp_path / "net.keras", config) if layout == "archive" else with_config(model, config)
    with pytest.raises(InputError):
        read_model(path)
    told = found(path)
    assert list(told) == [kind] and told[kind].startswith(said)
    assert bool(suspicious(file_findings(path).findings)) == bool(file_findings(path).code) == (kind == "code")


def test_layers_in_models_in_models(model):
    inner = with_layer(class_name="Lambda", config={"name": "odd", "function": ["4wEA", None, None]})
    config = with_layer(class_name="Functional", config=inner["config"] | {"name": "inner"})
    assert found(with_config(model, config))["code"].startswith("odd: a Lambda layer")
    listed = {"class_name": "Sequential", "config": inner["config"]["layers"]}
    assert found(with_config(model, listed))["code"].startswith("odd: a Lambda layer")


@pytest.mark.slow
def test_what_keras_itself_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = import_module("keras")

    def own(x):
        return 2 * x

    start = keras.Input((8, 8, 3))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(start)))
    x = keras.layers.Dense(5, activation=own)(keras.layers.Flatten()(x))
    plain = keras.Model(start, keras.layers.Dense(5)(x))
    with_code = keras.Model(start, keras.layers.Lambda(lambda x: 2 * x, name="odd")(x))
    for net, expected in ((plain, set()), (with_code, {"code"})):
        net.compile("adam", "mse")
        net.fit(np.zeros((4, 8, 8, 3)), np.zeros((4, 5)), verbose=0)
        for name in ("net.keras", "net.h5"):
            net.save(tmp_path / name)
            rest = {"custom-function", "optimizer-state", "training-configuration"}
            assert found(tmp_path / name).keys() - rest == expected
            assert set(kinds_of_suspicion(tmp_path / name)) == expected
        net.save_weights(tmp_path / "net.weights.h5")
        assert found(tmp_path / "net.weights.h5").keys() == {"optimizer-state"}


def test_members_beside_the_net(tmp_path):
    path = archive(tmp_path / "net.keras", **{"assets/words.txt": b"a b c", "run.sh": b"#!"})
    assert found(path) == {
        "extra-member": "2 members beside the net, of 7 bytes as they claim: assets/words.txt, run.sh"
    }
    path = archive(tmp_path / "pickled.keras", **{"innocent.txt": pickle.dumps([1])})
    assert kinds_of_suspicion(path) == ["pickle"] and "innocent.txt is a pickle" in found(path)["pickle"]
    with zipfile.ZipFile(path, "a") as file:
        file.comment = b"hello"
    assert found(path)["foreign-bytes"] == "the archive has a comment of 5 bytes"


def test_bytes_around_the_net(model, tmp_path):
    content = model.read_bytes()
    longer = tmp_path / "longer.h5"
    longer.write_bytes(content + 100 * b"x")
    assert found(longer) == {"foreign-bytes": "100 bytes follow behind the end of the HDF5 content"}
    (tmp_path / "front.h5").write_bytes(512 * b"#" + content)
    assert found(tmp_path / "front.h5")["foreign-bytes"].startswith("512 bytes stand in front of the net")
    both = archive(tmp_path / "net.keras")
    both.write_bytes(content + both.read_bytes())
    assert kinds_of_suspicion(both) == ["two-formats"]
    front = archive(tmp_path / "front.keras")
    front.write_bytes(10 * b"#" + front.read_bytes())
    assert found(front)["foreign-bytes"].startswith("10 bytes stand in front of the net")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_are_not_read(tmp_path, protocol):
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit",)

    (tmp_path / "net.h5").write_bytes(pickle.dumps(Bomb(), protocol))
    facts = file_findings(tmp_path / "net.h5")
    assert facts.format == "pickle" and facts.code[0].is_suspicious
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as file:
        file.writestr("net/data.pkl", pickle.dumps(Bomb(), protocol))
    assert file_findings(tmp_path / "net.pt").format == "archive with a pickle"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"nothing", "neither an HDF5 file nor a .keras archive"),
        (b"<html>", "a web page"),
        (b"\x89HDF\r\n\x1a\n" + 50 * b"\xff", "cannot be read as a Keras model"),
        (b"PK\x03\x04", "neither an HDF5 file nor a .keras archive"),
    ],
)
def test_files_of_no_known_format(tmp_path, content, said):
    (tmp_path / "net.h5").write_bytes(content)
    refused(tmp_path / "net.h5", said)


def refused(path, said):
    with pytest.raises(InputError, match=said) as error:
        file_findings(path)
    assert str(error.value).isprintable() and len(str(error.value)) <= 500


def test_files_that_are_refused(model, tmp_path):
    refused(tmp_path, "is a folder")
    refused(tmp_path / "none.h5", "no such file")
    content = model.read_bytes()
    (tmp_path / "half.h5").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "half.h5", "truncated")
    with h5py.File(model, "a") as file:
        file.attrs["model_config"] = 50_000 * "["
    refused(model, "cannot be read as JSON")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("words.txt", "a")
    refused(tmp_path / "other.zip", "0 members config.json")


def test_a_broken_index_is_said_and_the_rest_still_looked_at(model):
    with h5py.File(model, "a") as file:
        file["model_weights"].attrs["layer_names"] = [b"nowhere"]
        file.attrs["author"] = "somebody"
    assert found(model).keys() == {"unreadable-index", "unknown-attribute"}


@pytest.mark.slow
def test_very_many_groups_take_no_time(model):
    with h5py.File(model, "a", libver="latest") as file:
        for number in range(25_000):
            file.create_group(f"many/{number // 5_000}/{number}")
    start = time.monotonic()
    refused(model, "holds more than 20,000 groups and arrays")
    assert time.monotonic() - start < 20


def test_names_are_safe_to_print(model):
    with h5py.File(model, "a") as file:
        file["\x1b[2J" + 5_000 * "x"] = np.zeros(3)
        file.attrs["\n" + 5_000 * "y"] = 1
    found(with_config(model, with_layer(class_name="\x1b" + 500 * "z", config={"name": "\r" + 500 * "n"})))
