"""Keras files that are refused: damaged, hostile, or saying different things in different places."""

import json
import os
import zipfile

import h5py
import numpy as np
import pytest
from helpers import random_net
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets.helpers_keras import DEEPID, archive, assert_same_weights, keras_deepid, names, replace, small_model
from nets.helpers_nets import keras, layers

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.keras_config import write_config
from jaxdefend.nets.keras_files import read_model, write_model, write_weights


def nan(file):
    array = file["conv_2/conv_2/kernel:0"][()]
    array[0, 0, 0, 0] = np.nan
    replace(file, "conv_2/conv_2/kernel:0", array)


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
