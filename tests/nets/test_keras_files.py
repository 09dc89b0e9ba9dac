"""Keras files in and out: every format, the same arrays bit by bit, and whatever else a file may hold is refused."""

import json
import os
import zipfile

import h5py
import numpy as np
import pytest
from helpers import random_net, random_pixels, random_weights, real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets.helpers_nets import filled, keras, keras_logits, layers

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.keras_config import write_config
from jaxdefend.nets.keras_files import read_architecture, read_model, write_model, write_weights
from jaxdefend.nets.net import Net

DEEPID = deepid(11)
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
        model.set_weights([weights[layer][kind] for layer in DEEPID.weight_shapes for kind in ("kernel", "bias")])
    return model


def assert_same_weights(net, weights):
    for layer, arrays in net.weights.items():
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


def never_stored(file):
    del file["fc_1/fc_1/bias:0"]
    file["fc_1/fc_1"].create_dataset("bias:0", (160,), "f4")


def never_stored_in_part(file):
    del file["fc_1/fc_1/bias:0"]
    file["fc_1/fc_1"].create_dataset("bias:0", (160,), "f4", chunks=(20,))[:20] = 1


def with_filter(file):
    del file["fc_1/fc_1/bias:0"]
    file["fc_1/fc_1"].create_dataset("bias:0", data=np.ones(160, "f4"), chunks=(160,), compression="lzf")


def packed_twice(file):
    del file["fc_1/fc_1/bias:0"]
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((160,))
    made.set_deflate(9)
    made.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
    space = h5py.h5s.create_simple((160,))
    h5py.h5d.create(file["fc_1/fc_1"].id, b"bias:0", h5py.h5t.IEEE_F32LE, space, made)
    file["fc_1/fc_1/bias:0"][:] = np.ones(160, "f4")


def two_sets(file):
    write_weights(random_net(1), "other.h5")
    with h5py.File("other.h5") as other:
        other.copy(other["/"], file, "model_weights")


def layers_beside(file):
    file["layers/conv2d/vars/0"] = np.ones((4, 4, 3, 20), "f4")


BAD_ARRAYS = {
    "many classes": (many_classes, "claims"),
    "no classes": (no_classes, r"output/kernel is \(160, 0\)|arrays of shapes|units"),
    "large chunks": (large_chunks, "fc_1/bias claims"),
    "same name twice": (lambda file: file.attrs.update(layer_names=[*names(file), b"conv_1"]), "several .* 'conv_1'"),
    "overflow": (lambda file: replace(file, "fc_1/fc_1/bias:0", np.full(160, 1e300)), "160 values that are not finite"),
    "reference": (
        lambda file: replace(file, "conv_1/conv_1/bias:0", np.array([file.ref], h5py.ref_dtype)),
        "bias is|object",
    ),
    "array for layer": (lambda file: replace(file, "conv_1", np.ones(3)), "'conv_1' is a dataset"),
    "type for layer": (lambda file: replace(file, "conv_1", np.dtype("f4")), "'conv_1' is a datatype"),
    "no weight names": (lambda file: file["conv_1"].attrs.pop("weight_names"), "no attribute weight_names"),
    "nan": (nan, "not finite"),
    "missing layer": (drop_layer, r"missing fc_2 \(960, 160\)"),
    "extra layer": (extra_layer, "superfluous 'conv_5'"),
    "misshapen": (lambda file: replace(file, "conv_3/conv_3/bias:0", np.ones(61, "f4")), r"conv_3/bias is \(61,\)"),
    "no bias": (without_bias, "one\\s+kernel and one bias"),
    "integers": (lambda file: replace(file, "fc_1/fc_1/bias:0", np.ones(160, "i4")), "int32, expected float16"),
    "text": (lambda file: replace(file, "fc_1/fc_1/bias:0", "pickled"), "expected float16|arrays of shapes"),
    "soft link": (soft_link, "is a link"),
    "external link": (external_link, "is a link"),
    "external storage": (external_storage, "another file"),
    "virtual": (virtual, "another file"),
    "huge": (huge, "output/kernel is|claims"),
    "never stored": (never_stored, "never stored"),
    "never stored in part": (never_stored_in_part, "never stored"),
    "another filter": (with_filter, "HDF5 filter lzf"),
    "packed twice": (packed_twice, "packed several times"),
    "two sets": (two_sets, "two sets of weights"),
    "two sets of Keras 2 and 3": (layers_beside, "two sets of weights"),
    "scale": (lambda file: file.attrs.update(jaxdefend_input_scale="cm"), "expected raw"),
    "no such group": (lambda file: file.pop("fc_2"), "not there"),
    "odd names": (lambda file: file.attrs.update(layer_names=[1, 2]), "expected names"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_files_that_hold_no_sound_deepid(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    spoil, said = BAD_ARRAYS[case]
    path = tmp_path / "net.h5"
    write_weights(random_net(), path)
    with h5py.File(path, "a") as file:
        spoil(file)
    with pytest.raises(InputError, match=said) as error:
        read_model(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


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
    with pytest.raises(InputError, match=r"'lambda.*', a Lambda: its code would have to be run"):
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
    (folder / "lfs.h5").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (folder / "page.h5").write_text("<!DOCTYPE html><html></html>")
    (folder / "net.json").write_text(json.dumps(write_config(DEEPID)))
    write_model(random_net(), folder / "whole.h5")
    whole = (folder / "whole.h5").read_bytes()
    (folder / "truncated.h5").write_bytes(whole[: len(whole) // 2])
    archive(folder / "other.keras", {"readme.txt": "hello"})
    archive(folder / "broken.keras", {"config.json": "{}", "model.weights.h5": b"x" * 100})
    archive(folder / "bomb.keras", {"config.json": "{}", "model.weights.h5": bytes(2**20)})
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
        "lfs.h5": "Git LFS pointer",
        "page.h5": "a web page",
        "net.json": "JSON, which holds no arrays",
        "truncated.h5": "truncated|cannot be read",
        "other.keras": "members config.json",
        "broken.keras": "cannot be read",
        "bomb.keras": "unpacks to",
        "images.h5": "holds images",
        "else.h5": "expected the layers",
    }


def test_files_that_are_no_models(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdefend.nets.keras_files.MEMBER_LIMIT", 2**20 - 1)
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


# --- Other graphs than DeepID ---------------------------------------------------------------------------------------


def small_model(**dense):
    keras.utils.clear_session()
    start = x = keras.Input((10, 9, 3), name="photo")
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="first")(x))
    x = layers.Flatten(name="flat")(layers.SeparableConv2D(5, 2, name="second")(layers.ReLU(name="relu")(x)))
    return filled(keras.Model(start, layers.Dense(6, **{"activation": "softmax", "name": "answer"} | dense)(x)))


SMALL_PIXELS = np.random.default_rng(0).integers(0, 256, (4, 10, 9, 3), dtype=np.uint8)


def check_small(net, model):
    expected = keras_logits(model, SMALL_PIXELS.astype("float32"))
    np.testing.assert_allclose(net.with_input_scale("raw")(SMALL_PIXELS), expected, rtol=1e-3, atol=1e-2)


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


def test_two_nets_in_one_file_are_named(tmp_path):
    """A subclassed GoodNet's weights: all layers of each net under its name."""
    write_weights(random_net(), tmp_path / "one.h5")
    with h5py.File(tmp_path / "both.h5", "w") as file, h5py.File(tmp_path / "one.h5") as one:
        file.attrs["layer_names"] = ["bad", "repaired"]
        for name in ("bad", "repaired"):
            place = file.create_group(name)
            arrays = [f"{layer}/{kind}:0" for layer in DEEPID.weight_shapes for kind in ("kernel", "bias")]
            for path in arrays:
                one.copy(f"{path.split('/')[0]}/{path}", place, path)
            place.attrs["weight_names"] = np.array([path.encode() for path in arrays], "S")
    with pytest.raises(InputError, match=r"holds the weights of 2 nets, 'bad' and 'repaired'.*get_layer"):
        read_model(tmp_path / "both.h5")
    with h5py.File(tmp_path / "both.h5", "a") as file:
        file.attrs["layer_names"] = ["repaired"]
    assert_same_weights(read_model(tmp_path / "both.h5").net, random_net().weights)


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


def disagreeing(path, change):
    small_model().save(path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    (path.parent / "weights.h5").write_bytes(members["model.weights.h5"])
    with h5py.File(path.parent / "weights.h5", "a") as file:
        change(file)
    archive(path, members | {"model.weights.h5": (path.parent / "weights.h5").read_bytes()})


def swap_names(file):
    file["layers/conv2d/vars"].attrs["name"] = "answer"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda file: file.create_dataset("layers/dense_1/vars/0", data=np.ones((2, 2), "f4")),
            "'dense_1' holds arrays",
        ),
        (lambda file: file.pop("layers/dense"), "holds no arrays of layer 'answer'"),
        (lambda file: file.move("layers/dense", "layers/dense_7"), "holds no arrays of layer 'answer'"),
        (lambda file: file.pop("layers/dense/vars/1"), "'answer' holds 1 arrays, expected 2: kernel, bias"),
        (
            lambda file: replace(file, "layers/dense/vars/1", np.ones(7, "f4")),
            r"answer/bias is \(7,\), expected \(6,\)",
        ),
        (swap_names, "architecture and weights disagree"),
        (lambda file: file.create_dataset("vars/0", data=np.ones(3)), "the model itself holds arrays"),
        (lambda file: file.attrs.update(layer_names=[b"conv2d"]), "two sets of weights"),
        (lambda file: file.create_group("model_weights"), "two sets of weights"),
        (lambda file: replace(file, "layers/batch_normalization/vars/3", -np.ones(4, "f4")), "moving_variance is -1"),
    ],
)
def test_an_archive_whose_parts_disagree(tmp_path, change, said):
    disagreeing(tmp_path / "net.keras", change)
    with pytest.raises(InputError, match=said):
        read_model(tmp_path / "net.keras")


def reordered(group):
    group.attrs["layer_names"] = [name.decode() for name in names(group)][::-1]


def renamed_weights(group):
    group["norm"].attrs["weight_names"] = [b"norm/beta", b"norm/gamma", b"norm/moving_mean", b"norm/moving_variance"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (reordered, "in another order than the architecture; Keras goes by the order"),
        (renamed_weights, "holds 'norm/beta' in the place of 'norm/gamma'"),
        (lambda group: group["norm"].attrs.update(weight_names=[b"norm/gamma"]), "'norm' holds the arrays norm/gamma"),
        (lambda group: group["flat"].attrs.update(weight_names=[b"x"]), "superfluous flat"),
    ],
)
def test_arrays_that_keras_would_take_for_others(tmp_path, change, said):
    small_model().save(tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        change(file["model_weights"])
    with pytest.raises(InputError, match=said):
        read_model(tmp_path / "net.h5")


def test_an_hdf5_file_that_is_an_archive_too(tmp_path):
    small_model().save(tmp_path / "net.keras")
    write_model(random_net(), tmp_path / "net.h5")
    with (tmp_path / "net.h5").open("ab") as file:
        file.write((tmp_path / "net.keras").read_bytes())
    with pytest.raises(InputError, match=r"HDF5 file and a \.keras archive at once"):
        read_model(tmp_path / "net.h5")


def test_the_rule_of_a_repaired_net_is_part_of_its_file(tmp_path):
    write_model(random_net(), tmp_path / "net.h5", rule="anti")
    source = read_model(tmp_path / "net.h5").net.source
    assert source and (source.name, source.rule) == ("net.h5", "anti")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        file.attrs["jaxdefend_rule"] = "x" * 10_000
    with pytest.raises(InputError, match="expected goodnet or anti") as error:
        read_model(tmp_path / "net.h5")
    assert len(str(error.value)) <= 500


def test_layers_that_keras_would_sort_otherwise_are_refused(tmp_path):
    """Two convolutions of one shape, exchanged in the config and in layer_names: Keras sorts them back and takes the
    arrays of one for those of the other."""
    conv = kinds.Conv2D(3, (3, 3), padding="same")
    chain = (
        Layer("input", kinds.InputLayer((8, 8, 3))),
        Layer("first", conv, ("input",)),
        Layer("second", conv, ("first",)),
        Layer("flat", kinds.Flatten(), ("second",)),
        Layer("end", kinds.Dense(4, activation="softmax"), ("flat",)),
    )
    path = tmp_path / "net.h5"
    write_model(random_net(graph=Graph(chain, "end")), path)
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        listed = config["config"]["layers"]
        listed[1], listed[2] = listed[2], listed[1]
        file.attrs["model_config"] = json.dumps(config)
        names = list(file["model_weights"].attrs["layer_names"])
        names[1], names[2] = names[2], names[1]
        file["model_weights"].attrs["layer_names"] = names
    with pytest.raises(InputError, match="in another order than Keras sorts them"):
        read_model(path)


def test_a_keras_archive_is_not_what_is_written(tmp_path):
    with pytest.raises(InputError, match=r"\.keras file has another format .*; end its name in \.h5"):
        write_model(random_net(), tmp_path / "net.keras")
    assert not list(tmp_path.iterdir())
