"""Keras files of other graphs than DeepID, of other systems and versions, and with layers wrapped or at the front."""

import json
import zipfile

import h5py
import numpy as np
import pytest
from helpers import random_net
from nets.helpers_keras import DEEPID, archive, assert_same_weights, check_small, names, small_model
from nets.helpers_nets import filled, keras, layers

from jaxdefend import InputError
from jaxdefend.nets.keras_config import write_config
from jaxdefend.nets.keras_files import read_architecture, read_model, write_model, write_weights


@pytest.mark.parametrize("given", ["json", "h5", "keras"])
@pytest.mark.parametrize("kept", ["weights.h5", "old.h5"])
def test_weights_alone_of_another_graph(tmp_path, kept, given):
    model = small_model()
    weights, architecture = tmp_path / f"net.{kept}", tmp_path / f"other.{given}"
    if kept == "old.h5":
        from keras.src.legacy.saving import legacy_h5_format

        with h5py.File(weights, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    else:
        model.save_weights(weights)
    if given == "json":
        architecture.write_text(model.to_json())
    else:
        filled(model, 5).save(architecture)
        filled(model, 0)
    with pytest.raises(InputError, match=r"weights alone, and not DeepID's.*model\.to_json") as error:
        read_model(weights)
    assert len(str(error.value)) <= 500
    check_small(read_model(weights, architecture).net, model)
    with pytest.raises(InputError, match=r"other layers than|holds no arrays|expected|superfluous"):
        read_model(weights, write_other(tmp_path / "deepid.h5"))


def write_other(path):
    write_model(random_net(), path)
    return path


def test_an_architecture_that_is_not_needed_or_none(tmp_path):
    model = small_model()
    model.save(tmp_path / "net.keras")
    check_small(read_model(tmp_path / "net.keras", tmp_path / "net.keras").net, model)
    with pytest.raises(InputError, match="of another architecture than the one given"):
        read_model(tmp_path / "net.keras", write_other(tmp_path / "deepid.h5"))
    write_weights(random_net(), tmp_path / "weights.h5")
    with pytest.raises(InputError, match="holds weights alone"):
        read_architecture(tmp_path / "weights.h5")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"nested too deeply|cannot be read"):
        read_architecture(tmp_path / "deep.json")


def test_a_model_in_a_model_with_normalizations_keeps_its_arrays_apart(tmp_path):
    """Keras 2 keeps what is trained first, and then the statistics of all layers of the inner model."""
    keras.utils.clear_session()
    inner = keras.Sequential(
        [
            keras.Input((10, 9, 3)),
            layers.Conv2D(3, 2),
            layers.BatchNormalization(),
            layers.Conv2D(3, 2),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    )
    start = keras.Input((10, 9, 3))
    x = layers.Dense(6, activation="softmax")(layers.Flatten()(inner(start)))
    model = filled(keras.Model(start, x))
    for name in ("net.h5", "net.keras"):
        model.save(tmp_path / name)
        check_small(read_model(tmp_path / name).net, model)


def test_a_frozen_model_in_a_model(tmp_path):
    keras.utils.clear_session()
    inner = keras.Sequential(
        [keras.Input((10, 9, 3)), layers.Conv2D(3, 2), layers.BatchNormalization(), layers.Conv2D(3, 2)]
    )
    inner.layers[0].trainable = False
    start = keras.Input((10, 9, 3))
    model = filled(keras.Model(start, layers.Dense(6)(layers.Flatten()(inner(start)))))
    model.save(tmp_path / "net.h5")
    check_small(read_model(tmp_path / "net.h5").net, model)


def windows(path):
    """As Keras writes an archive on Windows: `layers\\conv2d`."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    (path.parent / "weights.h5").write_bytes(members["model.weights.h5"])
    with h5py.File(path.parent / "weights.h5") as old, h5py.File(path.parent / "new.h5", "w") as new:
        for name in old["layers"]:
            old.copy(old["layers"][name], new, f"layers\\{name}")
    archive(path, members | {"model.weights.h5": (path.parent / "new.h5").read_bytes()})


def tensorflow_2_13(path):
    """Counting twice the layers that have arrays."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    (path.parent / "weights.h5").write_bytes(members["model.weights.h5"])
    with h5py.File(path.parent / "weights.h5", "a") as file:
        file.move("layers", "_layer_checkpoint_dependencies")
        place = file["_layer_checkpoint_dependencies"]
        for number in (3, 2, 1):
            if f"conv2d_{number}" in place:
                place.move(f"conv2d_{number}", f"conv2d_{2 * number}")
    archive(path, members | {"model.weights.h5": (path.parent / "weights.h5").read_bytes()})


@pytest.mark.parametrize("change", [windows, tensorflow_2_13])
def test_archives_of_other_systems_and_versions(tmp_path, change):
    keras.utils.clear_session()
    steps = [keras.Input((10, 9, 3)), *(layers.Conv2D(3, 2, activation="relu") for _ in range(4))]
    model = filled(keras.Sequential([*steps, layers.Flatten(), layers.Dense(6, activation="softmax")]))
    model.save(tmp_path / "net.keras")
    change(tmp_path / "net.keras")
    check_small(read_model(tmp_path / "net.keras").net, model)


def wrapped(config, arrays_of):
    """Every layer in a pruning wrapper that was not stripped."""
    for layer in config["config"]["layers"][1:]:
        name = f"prune_low_magnitude_{layer['name']}"
        layer["config"] = {"name": name, "layer": {"class_name": layer["class_name"], "config": layer["config"]}}
        layer |= {"class_name": "PruneLowMagnitude", "name": name}
        layer["inbound_nodes"] = [
            [[before if before == "input" else f"prune_low_magnitude_{before}", *rest] for before, *rest in node]
            for node in layer["inbound_nodes"]
        ]
    config["config"]["output_layers"] = [["prune_low_magnitude_output", 0, 0]]
    return config


def test_pruning_wrappers_that_were_not_stripped(tmp_path):
    net = random_net()
    masks = {
        layer: np.random.default_rng(1).random(arrays["kernel"].shape) < 0.5 for layer, arrays in net.weights.items()
    }
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(wrapped(write_config(DEEPID), net.weights))
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = ["input", *(f"prune_low_magnitude_{layer.name}" for layer in DEEPID.layers[1:])]
        group.create_group("input").attrs["weight_names"] = np.array([], "S")
        for layer in DEEPID.layers[1:]:
            wrapper = f"prune_low_magnitude_{layer.name}"
            place, arrays = group.create_group(wrapper), {f"{wrapper}/pruning_step:0": np.int64(3)}
            if layer.name in masks:
                inner = {f"{layer.name}/{name}:0": array for name, array in net.weights[layer.name].items()}
                mask = {f"{wrapper}/mask:0": masks[layer.name].astype("f4"), f"{wrapper}/threshold:0": np.float32(0)}
                arrays = inner | mask | arrays
            place.attrs["weight_names"] = np.array([name.encode() for name in arrays], "S")
            for name, array in arrays.items():
                place[name] = array
    found = read_model(tmp_path / "net.h5")
    assert "multiplied by their masks" in found.notes[0]
    expected = {
        layer: {"kernel": arrays["kernel"] * masks[layer], "bias": arrays["bias"]}
        for layer, arrays in net.weights.items()
    }
    assert_same_weights(found.net, expected)


def test_a_rescaling_in_front_of_weights_alone(tmp_path):
    write_weights(random_net(input_scale=None), tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        file.attrs["layer_names"] = ["rescaling_1", *(name.decode() for name in names(file))]
        file.create_group("rescaling_1").attrs["weight_names"] = np.array([], "S")
    found = read_model(tmp_path / "net.h5")
    assert found.net.input_scale == "unit"
    assert "a Rescaling stands in front" in found.notes[0]


@pytest.mark.parametrize(
    ("front", "scale"),
    [
        (lambda: layers.Rescaling(1 / 255), "raw"),
        (lambda: layers.Rescaling(1 / 127.5, -1), "raw"),
        (lambda: layers.Rescaling(2.0, -1), "unit"),
        (lambda: layers.Normalization(mean=[120.0, 110, 100], variance=[3000.0, 3000, 3000]), "raw"),
        (lambda: layers.Normalization(mean=0.5, variance=0.05, axis=None), "unit"),
        (lambda: layers.Normalization(), "raw"),
        (lambda: layers.ReLU(), None),
    ],
)
def test_what_a_layer_at_the_front_says_about_the_input_scale(tmp_path, front, scale):
    keras.utils.clear_session()
    start = keras.Input((10, 9, 3))
    first = front()
    x = first(layers.Dropout(0.1)(start))
    model = filled(keras.Model(start, layers.Dense(6)(layers.Flatten()(x))))
    if isinstance(first, layers.Normalization) and first.input_mean is None:
        for variable in first.weights:
            if "variance" in variable.path:
                variable.assign(np.full(3, 3000.0))
        first.finalize_state()
    for name in ("net.keras", "net.h5"):
        model.save(tmp_path / name)
        net = read_model(tmp_path / name).net
        assert net.input_scale == scale
        check_small(net, model)
        write_model(net.with_input_scale("raw"), tmp_path / "again.h5")
        check_small(read_model(tmp_path / "again.h5").net, model)
