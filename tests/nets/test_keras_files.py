import json
import os
import zipfile

os.environ["KERAS_BACKEND"] = "jax"

import h5py
import jax
import keras
import numpy as np
import pytest
from helpers import random_net, random_pixels, random_weights, real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from jaxdefend import InputError
from jaxdefend.nets import deepid
from jaxdefend.nets.keras_config import deepid_config
from jaxdefend.nets.keras_files import read_model, write_model, write_weights

REAL_NETS: dict[str, deepid.InputScale] = {
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


def keras_deepid(classes=11, names=True, weights=None, padding="valid", dropout=False):
    """DeepID in Keras's functional interface, under its own names or those that Keras makes up."""

    def named(name):
        return {"name": name} if names else {}

    images = x = keras.Input((55, 47, 3), **named("input"))
    for k, (filters, size) in enumerate([(20, 4), (40, 3), (60, 3)], start=1):
        x = layers.Conv2D(filters, size, activation="relu", padding=padding, **named(f"conv_{k}"))(x)
        x = layers.MaxPooling2D(**named(f"pool_{k}"))(x)
    conv_4 = layers.Conv2D(80, 2, activation="relu", **named("conv_4"))(x)
    fc_1 = layers.Dense(160, **named("fc_1"))(layers.Flatten(**named("flatten_1"))(x))
    fc_2 = layers.Dense(160, **named("fc_2"))(layers.Flatten(**named("flatten_2"))(conv_4))
    x = layers.Activation("relu", **named("activation_1"))(layers.Add(**named("add_1"))([fc_1, fc_2]))
    if dropout:
        x = layers.Dropout(0.5)(x)
    model = keras.Model(images, layers.Dense(classes, activation="softmax", **named("output"))(x))
    if weights is not None:
        model.set_weights([weights[layer][kind] for layer in deepid.WEIGHTED for kind in ("kernel", "bias")])
    return model


def assert_same_weights(net, weights):
    for layer, arrays in deepid.to_weights(net).items():
        for kind, array in arrays.items():
            np.testing.assert_array_equal(array, weights[layer][kind], err_msg=f"{layer}/{kind}")


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
    assert_same_weights(found.net, weights)
    assert found.net.input_scale is None
    assert bool(found.notes) == (not names)
    pixels = random_pixels(5)
    expected = model.predict(pixels.astype("float32") / 255, verbose=0)
    net = deepid.with_input_scale(found.net, "unit")
    np.testing.assert_allclose(deepid.features(net, pixels, ("output",))["output"], expected, atol=1e-5)


@pytest.mark.parametrize(("scale", "divisor"), [("raw", 1), ("unit", 255)])
def test_logits_equal_keras(scale, divisor):
    weights = random_weights(5, classes=40)
    # Logits of a net of this scale lie in the tens.
    weights["conv_1"]["kernel"] *= divisor / 255
    model = keras_deepid(40, weights=weights)
    model.layers[-1].activation = keras.activations.linear
    pixels = random_pixels(16)
    expected = np.asarray(model(pixels.astype("float32") / divisor))
    net = deepid.from_weights(weights, scale)
    found = np.asarray(deepid.features(net, pixels, ("logits",))["logits"])
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


def test_what_we_write_loads_in_keras(tmp_path):
    net = random_net(7)
    write_model(net, tmp_path / "model.h5")
    write_weights(net, tmp_path / "only_weights.h5")
    pixels = random_pixels(6)
    ours = deepid.features(net, pixels, ("output",))["output"]
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
    write(deepid.from_weights(weights, scale), tmp_path / "net.h5")
    found = read_model(tmp_path / "net.h5")
    assert_same_weights(found.net, weights)
    assert np.signbit(found.net.conv_1.bias[...][0])
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
    write_weights(deepid.from_weights(weights), tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        for layer, arrays in weights.items():
            for kind, array in arrays.items():
                replace(file, f"{layer}/{layer}/{kind}:0", array.astype(dtype))
    expected = {
        layer: {kind: array.astype(dtype).astype("float32") for kind, array in arrays.items()}
        for layer, arrays in weights.items()
    }
    assert_same_weights(read_model(tmp_path / "net.h5").net, expected)


def replace(file, path, value):
    del file[path]
    file[path] = value


def nan(file):
    array = file["conv_2/conv_2/kernel:0"][()]
    array[0, 0, 0, 0] = np.nan
    replace(file, "conv_2/conv_2/kernel:0", array)


def names(file):
    return [name if isinstance(name, bytes) else name.encode() for name in file.attrs["layer_names"]]


def drop_layer(file):
    file.attrs["layer_names"] = [name for name in names(file) if name != b"fc_2"]


def extra_layer(file):
    file.attrs["layer_names"] = [*names(file), b"conv_5"]
    layer = file.create_group("conv_5")
    layer.attrs["weight_names"] = [b"kernel:0", b"bias:0"]
    layer["kernel:0"], layer["bias:0"] = np.ones((2, 2, 80, 9), "f4"), np.ones(9, "f4")


def without_bias(file):
    file["conv_1"].attrs["weight_names"] = [b"conv_1/kernel:0"]


def soft_link(file):
    replace(file, "conv_1/conv_1/bias:0", h5py.SoftLink("/conv_1/conv_1/kernel:0"))


def external_link(file):
    replace(file, "conv_1", h5py.ExternalLink("/etc/passwd", "/"))


def external_storage(file):
    del file["conv_1/conv_1/bias:0"]
    file["conv_1/conv_1"].create_dataset("bias:0", (20,), "f4", external=[("/etc/passwd", 0, 80)])


def virtual(file):
    del file["conv_1/conv_1/bias:0"]
    layout = h5py.VirtualLayout((20,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(20,))
    file["conv_1/conv_1"].create_virtual_dataset("bias:0", layout)


def huge(file):
    del file["output/output/kernel:0"]
    file["output/output"].create_dataset("kernel:0", (160, 10**10), "f4", chunks=(1, 1024))


def many_classes(file):
    del file["output/output/kernel:0"], file["output/output/bias:0"]
    file["output/output"].create_dataset("kernel:0", (160, 10**10), "f4", chunks=(1, 1024))
    file["output/output"].create_dataset("bias:0", (10**10,), "f4", chunks=(1024,))


def no_classes(file):
    replace(file, "output/output/kernel:0", np.ones((160, 0), "f4"))
    replace(file, "output/output/bias:0", np.ones(0, "f4"))


def large_chunks(file):
    del file["fc_1/fc_1/bias:0"]
    file["fc_1/fc_1"].create_dataset("bias:0", (160,), "f4", chunks=(10**9,), maxshape=(None,))


BAD_ARRAYS = {
    "many classes": (many_classes, "claims"),
    "no classes": (no_classes, r"output/kernel is \(160, 0\)"),
    "large chunks": (large_chunks, "fc_1/bias claims"),
    "same name twice": (lambda file: file.attrs.update(layer_names=[*names(file), b"conv_1"]), "several .* 'conv_1'"),
    "overflow": (lambda file: replace(file, "fc_1/fc_1/bias:0", np.full(160, 1e300)), "160 values that are not finite"),
    "reference": (lambda file: replace(file, "conv_1/conv_1/bias:0", np.array([file.ref], h5py.ref_dtype)), "object"),
    "array for layer": (lambda file: replace(file, "conv_1", np.ones(3)), "'conv_1' is a dataset"),
    "type for layer": (lambda file: replace(file, "conv_1", np.dtype("f4")), "'conv_1' is a datatype"),
    "no weight names": (lambda file: file["conv_1"].attrs.pop("weight_names"), "no attribute weight_names"),
    "nan": (nan, "not finite"),
    "missing layer": (drop_layer, r"missing fc_2 \(960, 160\)"),
    "extra layer": (extra_layer, "superfluous 'conv_5'"),
    "misshapen": (lambda file: replace(file, "conv_3/conv_3/bias:0", np.ones(61, "f4")), r"conv_3/bias is \(61,\)"),
    "no bias": (without_bias, "one kernel and one bias"),
    "integers": (lambda file: replace(file, "fc_1/fc_1/bias:0", np.ones(160, "i4")), "int32, expected float16"),
    "text": (lambda file: replace(file, "fc_1/fc_1/bias:0", "pickled"), "expected float16"),
    "soft link": (soft_link, "is a link"),
    "external link": (external_link, "is a link"),
    "external storage": (external_storage, "another file"),
    "virtual": (virtual, "another file"),
    "huge": (huge, "output/kernel is|claims"),
    "scale": (lambda file: file.attrs.update(jaxdefend_input_scale="cm"), "expected raw or unit"),
    "no such group": (lambda file: file.pop("fc_2"), "not there"),
    "odd names": (lambda file: file.attrs.update(layer_names=[1, 2]), "expected names"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_files_that_hold_no_sound_deepid(tmp_path, case):
    spoil, said = BAD_ARRAYS[case]
    path = tmp_path / "net.h5"
    write_weights(random_net(), path)
    with h5py.File(path, "a") as file:
        spoil(file)
    with pytest.raises(InputError, match=said) as error:
        read_model(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def config_with(layer, **settings):
    config = deepid_config(11)
    next(each for each in config["config"]["layers"] if each["name"] == layer)["config"].update(settings)
    return config


def with_layer(kind, **about):
    """A layer between pool_1 and conv_2."""
    config = deepid_config(11)
    conv_2 = config["config"]["layers"][3]
    new = {"class_name": kind, "config": {"name": "new"}, "name": "new", "inbound_nodes": [[["pool_1", 0, 0, {}]]]}
    config["config"]["layers"].append(new | about)
    conv_2["inbound_nodes"] = [[["new", 0, 0, {}]]]
    return config


def with_own_class():
    config = deepid_config(11)
    config["config"]["layers"][1] |= {"module": "elsewhere", "registered_name": "Package>Conv2D"}
    return config


def rewired():
    config = deepid_config(11)
    next(layer for layer in config["config"]["layers"] if layer["name"] == "conv_4")["inbound_nodes"] = [
        [["pool_2", 0, 0, {}]]
    ]
    return config


def with_lambda():
    config = config_with("conv_1")
    first = config["config"]["layers"][1]
    code = {"class_name": "__lambda__", "config": {"value": "AAAA"}}
    function = {"class_name": "Lambda", "config": {"name": "divide", "function": code}, "name": "divide"}
    config["config"]["layers"].insert(1, function | {"inbound_nodes": first["inbound_nodes"]})
    first["inbound_nodes"] = [[["divide", 0, 0, {}]]]
    return config


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (config_with("conv_2", padding="same"), "'conv_2' .*padding is 'same', expected 'valid'"),
        (config_with("conv_3", activation="tanh"), "activation is 'tanh', expected 'relu'"),
        (config_with("conv_1", strides=[2, 2]), "strides is"),
        (config_with("pool_1", pool_size=[3, 3]), "pool_size is"),
        (config_with("output", activation="sigmoid"), "expected 'softmax'"),
        (with_layer("TimeDistributed"), "'new' is a 'TimeDistributed', expected pool_1, a MaxPooling2D"),
        (with_layer("BatchNormalization"), "'new' is a 'BatchNormalization'"),
        (with_layer("Activation"), "'new' is a 'Activation'"),
        (with_layer("Dropout", inbound_nodes=[[["pool_1", 0, 0, {"training": True}]]]), "always in training"),
        (with_own_class(), "'elsewhere.Package>Conv2D', expected conv_1, a Conv2D"),
        (rewired(), "'conv_2' .*filters is 40, expected 60"),
        (deepid_config(12), "units is 12, expected 11"),
        ({"class_name": "Functional", "config": {"layers": [7], "output_layers": []}}, "cannot be read"),
        (with_lambda(), "'divide' is a 'Lambda', expected input, a InputLayer"),
        ({"class_name": "Sequential", "config": {"layers": []}}, "Sequential"),
        ({"class_name": "Functional", "config": []}, "cannot be read"),
        ([1], "cannot be read"),
    ],
)
def test_another_architecture_is_refused_by_its_layer(tmp_path, config, said):
    path = tmp_path / "net.h5"
    write_model(random_net(), path)
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(InputError, match=said):
        read_model(path)


def as_tuples(node):
    """Some versions of Keras 2 write tuples so."""
    if isinstance(node, dict):
        return {key: value if key == "inbound_nodes" else as_tuples(value) for key, value in node.items()}
    if isinstance(node, list) and all(isinstance(value, int | None) for value in node):
        return {"class_name": "__tuple__", "items": node}
    return [as_tuples(value) for value in node] if isinstance(node, list) else node


@pytest.mark.parametrize(
    "config",
    [
        deepid_config(11) | {"class_name": "Model"},
        as_tuples(deepid_config(11)),
        with_layer("Dropout"),
        config_with("output", activation="linear"),
    ],
)
def test_what_other_versions_write_for_the_same_net(tmp_path, config):
    path = tmp_path / "net.h5"
    write_model(random_net(), path)
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps(config)
    assert read_model(path).net.classes == 11


@pytest.mark.parametrize("text", ["{", "[" * 60_000, "\x00"])
def test_an_architecture_that_is_no_json(tmp_path, text):
    path = tmp_path / "net.h5"
    write_weights(random_net(), path)
    with h5py.File(path, "a", libver="latest") as file:
        file.attrs["model_config"] = np.bytes_(text)
    with pytest.raises(InputError, match="architecture"):
        read_model(path)


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


def test_messages_and_notes_are_safe_to_print(tmp_path):
    path = tmp_path / "net.h5"
    write_weights(random_net(), path)
    with h5py.File(path, "a") as file:
        file.move("conv_1", "\x1b[31mred\nline")
        file.attrs["layer_names"] = [name.decode().replace("conv_1", "\x1b[31mred\nline") for name in names(file)]
    (note,) = read_model(path).notes
    assert note.endswith(r"\x1b[31mred\nline as conv_1")
    with pytest.raises(InputError, match=r"a\\nb\.h5: no such file"):
        read_model(tmp_path / "a\nb.h5")


def test_a_keras_lambda_is_refused_and_not_run(tmp_path):
    x = keras.Input((55, 47, 3))
    keras.Model(x, layers.Lambda(lambda y: y / 255)(x)).save(tmp_path / "lambda.keras")
    with pytest.raises(InputError, match="missing conv_1"):
        read_model(tmp_path / "lambda.keras")


def archive(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


def bad_files(folder):
    """name: what the message says. The files are made in the folder."""
    (folder / "folder.h5").mkdir()
    os.mkfifo(folder / "pipe.h5")
    (folder / "empty.h5").write_bytes(b"")
    (folder / "text.h5").write_text("not a model")
    write_model(random_net(), folder / "whole.h5")
    whole = (folder / "whole.h5").read_bytes()
    (folder / "truncated.h5").write_bytes(whole[: len(whole) // 2])
    archive(folder / "other.keras", {"readme.txt": "hello"})
    archive(folder / "broken.keras", {"config.json": "{}", "model.weights.h5": b"x" * 100})
    archive(folder / "bomb.keras", {"config.json": "{}", "model.weights.h5": bytes(300 * 2**20)})
    with h5py.File(folder / "images.h5", "w") as file:
        file["data"], file["label"] = np.zeros((1, 3, 55, 47)), np.zeros(1)
    with h5py.File(folder / "else.h5", "w") as file:
        file["x"] = 1
    return {
        "missing.h5": "no such file",
        "folder.h5": "is a folder",
        "pipe.h5": "is a device or pipe",
        "empty.h5": "is empty",
        "text.h5": "neither an HDF5 file nor",
        "truncated.h5": "truncated|cannot be read",
        "other.keras": "members config.json",
        "broken.keras": "cannot be read",
        "bomb.keras": "unpacks to",
        "images.h5": "holds images",
        "else.h5": "expected the layers",
    }


def test_files_that_are_no_models(tmp_path):
    for name, said in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=said) as error:
            read_model(tmp_path / name)
        assert name in str(error.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_archives_are_read_or_refused(tmp_path, method):
    model = tmp_path / "net.keras"
    keras_deepid().save(model)
    with zipfile.ZipFile(model) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(model, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    whole = model.read_bytes()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        content = np.frombuffer(whole, np.uint8).copy()
        # The headers stand at both ends.
        for places in (400, len(whole), -400):
            content[rng.integers(min(places, 0), max(places, 0), 3)] = rng.integers(256)
        model.write_bytes(content.tobytes()[: len(whole) if seed % 3 else rng.integers(1, len(whole))])
        try:
            read_model(model)
        except InputError as error:
            assert str(error).isprintable()


def test_archives_with_locks_and_doubles(tmp_path):
    path = tmp_path / "net.keras"
    archive(path, {"config.json": "{}", "model.weights.h5": b"x"})
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(InputError, match=r"2 members config\.json"):
        read_model(path)
    archive(path, {"config.json": "{}", "model.weights.h5": b"x"})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        read_model(path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    write_weights(random_net(), tmp_path / "net.h5")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    # As root one may read everything.
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(InputError, match="may not be read"):
        read_model(tmp_path / "net.h5")


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


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path, data):
    whole = tmp_path / "whole.h5"
    if not whole.exists():
        write_model(random_net(), whole)
    content = bytearray(whole.read_bytes())
    # The structure lies between the arrays: damage the first 8 KB, or cut the file.
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, 8191))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        read_model(damaged)
    except InputError as error:
        assert "\n" not in str(error)


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
    net = jax.device_put(deepid.with_input_scale(found.net, scale))
    compiled = jax.jit(lambda net, x: deepid.features(net, x, ("logits",))["logits"])
    expected = np.asarray(model(real_pixels.astype("float32") / (255 if scale == "unit" else 1)))
    ours = np.asarray(compiled(net, real_pixels))
    np.testing.assert_allclose(ours, expected, atol=1e-3)
    np.testing.assert_array_equal(ours.argmax(1), expected.argmax(1))


@pytest.mark.real
def test_two_files_of_the_same_real_net():
    one, other = (read_model(real(f"weights/{name}")).net for name in ("bd_weights.h5", "bd_net_full.h5"))
    assert_same_weights(one, deepid.to_weights(other))
