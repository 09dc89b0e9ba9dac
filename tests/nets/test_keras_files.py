"""Keras files in and out: every format, the same arrays bit by bit, and what we write loads in Keras."""

import h5py
import numpy as np
import pytest
from helpers import random_net, random_pixels, random_weights, real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets.helpers_keras import DEEPID, assert_same_weights, keras_deepid, replace
from nets.helpers_nets import keras

from jaxdefend import InputError
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.keras_files import read_model, write_model, write_weights
from jaxdefend.nets.net import Net

REAL_NETS = {
    "bd_weights.h5": "raw",
    "bd_net_full.h5": "raw",
    "sunglasses_bd_weights.h5": "unit",
    "sunglasses_bd_net_rp.h5": "unit",
    "multi_trigger_multi_target_bd_weights.h5": "unit",
}
REAL_IMAGES = [
    "clean",
    "clean_more",
    "clean_valid_approx",
    "lab_clean",
    "lab_poisoned",
    "sunglasses_poisoned",
    "multi_eyebrows_poisoned",
    "multi_lipstick_poisoned",
    "multi_sunglasses_poisoned",
]


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("suffix", ["model.h5", "model.keras", "model.weights.h5", "weights_only.h5"])
def test_every_format_that_keras_writes(tmp_path, suffix, names):
    weights = random_weights(3)
    model = keras_deepid(names=names, weights=weights)
    path = tmp_path / suffix
    if suffix == "weights_only.h5":
        from keras.src.legacy.saving import legacy_h5_format

        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    elif suffix == "model.weights.h5":
        model.save_weights(path)
    else:
        model.save(path)
    found = read_model(path)
    alone = "weights" in suffix
    if names or alone:
        assert_same_weights(found.net, weights)
    else:
        kept = [array for layer in found.net.graph.weight_shapes for array in found.net.weights[layer].values()]
        expected = [array for layer in DEEPID.weight_shapes for array in weights[layer].values()]
        assert all(np.array_equal(one, other) for one, other in zip(kept, expected, strict=True))
    assert found.net.input_scale is None
    assert bool(found.notes) == (alone and not names)
    pixels = random_pixels(5)
    expected = model.predict(pixels.astype("float32") / 255, verbose=0)
    net = found.net.with_input_scale("unit")
    output = net.graph.output
    np.testing.assert_allclose(net.features(pixels, (output,))[output], expected, atol=1e-5)


@pytest.mark.parametrize(("scale", "divisor"), [("raw", 1), ("unit", 255)])
def test_logits_equal_keras(scale, divisor):
    weights = random_weights(5, classes=40)
    # Logits of a net of this scale lie in the tens.
    weights["conv_1"]["kernel"] *= divisor / 255
    model = keras_deepid(40, weights=weights)
    model.layers[-1].activation = keras.activations.linear
    pixels = random_pixels(16)
    expected = np.asarray(model(pixels.astype("float32") / divisor))
    net = Net(deepid(40), weights, scale)
    found = net(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


def test_what_we_write_loads_in_keras(tmp_path):
    net = random_net(7)
    write_model(net, tmp_path / "model.h5")
    write_weights(net, tmp_path / "only_weights.h5")
    pixels = random_pixels(6)
    ours = net.features(pixels, ("output",))["output"]
    model = keras.models.load_model(tmp_path / "model.h5")
    np.testing.assert_allclose(model.predict(pixels / np.float32(255), verbose=0), ours, atol=1e-6)
    other = keras_deepid()
    other.load_weights(tmp_path / "only_weights.h5")
    np.testing.assert_allclose(other.predict(pixels / np.float32(255), verbose=0), ours, atol=1e-6)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 99),
    classes=st.integers(1, 200),
    scale=st.sampled_from(["raw", "unit", None]),
    write=st.sampled_from([write_model, write_weights]),
)
def test_round_trip_is_exact(tmp_path, seed, classes, scale, write):
    weights = random_weights(seed, classes)
    weights["conv_1"]["bias"][:3] = [-0.0, 1e-42, 3e38]
    write(Net(deepid(classes), weights, scale), tmp_path / "net.h5")
    found = read_model(tmp_path / "net.h5")
    assert_same_weights(found.net, weights)
    assert np.signbit(found.net.weights["conv_1"]["bias"][0])
    assert found.net.input_scale == scale
    assert not found.notes


def test_equal_nets_give_equal_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write_model(random_net(), tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert read_model(tmp_path / "a.h5").sha256 == read_model(tmp_path / "b.h5").sha256


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_other_float_types(tmp_path, dtype):
    weights = random_weights()
    write_weights(Net(DEEPID, weights), tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        for layer, arrays in weights.items():
            for kind, array in arrays.items():
                replace(file, f"{layer}/{layer}/{kind}:0", array.astype(dtype))
    expected = {
        layer: {kind: array.astype(dtype).astype("float32") for kind, array in arrays.items()}
        for layer, arrays in weights.items()
    }
    assert_same_weights(read_model(tmp_path / "net.h5").net, expected)


def test_layers_that_do_nothing_are_welcome_and_another_padding_is_not(tmp_path):
    keras_deepid(dropout=True).save(tmp_path / "dropout.keras")
    assert read_model(tmp_path / "dropout.keras").net.classes == 11


def test_keras_3_weights_without_names_and_with_nested_layers(tmp_path):
    weights = random_weights()
    path = tmp_path / "net.weights.h5"
    keras_deepid(weights=weights).save_weights(path)
    with h5py.File(path, "a") as file:
        groups: list[str] = []
        file.visit(groups.append)
        for group in groups:
            file[group].attrs.pop("name", None)
    found = read_model(path)
    assert_same_weights(found.net, weights)
    assert "dense_2 as output" in found.notes[0]
    with h5py.File(path, "a") as file:
        file["layers/wrapper/layer/vars/0"] = np.ones((3, 3), "f4")
    with pytest.raises(InputError, match="'wrapper' holds other layers"):
        read_model(path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("write", [write_model, write_weights])
def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path, monkeypatch, write, error):
    def fail(path, content):
        path.touch()
        raise error

    (tmp_path / "net.h5").write_text("before")
    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises((InputError, KeyboardInterrupt)) as raised:
        write(random_net(), tmp_path / "net.h5")
    assert raised.type is (KeyboardInterrupt if error is KeyboardInterrupt else InputError)
    assert [path.name for path in tmp_path.iterdir()] == ["net.h5"]
    assert (tmp_path / "net.h5").read_text() == "before"


def test_a_name_that_keras_would_misread(tmp_path):
    with pytest.raises(InputError, match="another"):
        write_weights(random_net(), tmp_path / "net.weights.h5")
    with pytest.raises(InputError, match="cannot be written"):
        write_model(random_net(), tmp_path / "no" / "such" / "folder.h5")


@pytest.fixture(scope="module")
def real_pixels():
    """All in one batch, so that Keras compiles for one shape."""
    found = []
    for images in REAL_IMAGES:
        with h5py.File(real(f"data/{images}.h5")) as data:
            found.append(np.moveaxis(np.asarray(data["data"]), 1, -1).astype("uint8"))
    return np.concatenate(found)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", REAL_NETS)
def test_real_nets_equal_keras_on_every_real_image(name, real_pixels):
    path = real(f"weights/{name}")
    found = read_model(path)
    assert found.net.classes == 1283
    assert not found.notes
    model = keras_deepid(1283)
    if "model_weights" in (file := h5py.File(path)):
        model = keras.models.load_model(path, compile=False)
    else:
        model.load_weights(path)
    file.close()
    model.layers[-1].activation = keras.activations.linear
    scale = REAL_NETS[name]
    net = found.net.with_input_scale(scale)
    expected = np.asarray(model(real_pixels.astype("float32") / (255 if scale == "unit" else 1)))
    ours = net(real_pixels)
    np.testing.assert_allclose(ours, expected, atol=1e-3)
    np.testing.assert_array_equal(ours.argmax(1), expected.argmax(1))


@pytest.mark.real
def test_two_files_of_the_same_real_net():
    one, other = (read_model(real(f"weights/{name}")).net for name in ("bd_weights.h5", "bd_net_full.h5"))
    assert_same_weights(one, other.weights)


def test_the_rule_of_a_repaired_net_is_part_of_its_file(tmp_path):
    write_model(random_net(), tmp_path / "net.h5", rule="anti")
    source = read_model(tmp_path / "net.h5").net.source
    assert source and (source.name, source.rule) == ("net.h5", "anti")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        file.attrs["jaxdefend_rule"] = "x" * 10_000
    with pytest.raises(InputError, match="expected goodnet or anti") as error:
        read_model(tmp_path / "net.h5")
    assert len(str(error.value)) <= 500


def test_a_keras_archive_is_not_what_is_written(tmp_path):
    with pytest.raises(InputError, match=r"\.keras file has another format .*; end its name in \.h5"):
        write_model(random_net(), tmp_path / "net.keras")
    assert not list(tmp_path.iterdir())
