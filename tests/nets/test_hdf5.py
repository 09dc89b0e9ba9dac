"""Files made to fill memory or to take for ever: one line, within 2 GB and 20 seconds."""

import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import ENVIRONMENT, random_net

from jaxdefend import InputError
from jaxdefend.nets import hdf5, kinds
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.keras_config import write_config
from jaxdefend.nets.keras_files import write_model, write_weights

READ = """
import json, pathlib, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
from jaxdefend import InputError
from jaxdefend.nets.keras_files import read_architecture, read_model
found = {}
for path in sys.argv[1:]:
    start = time.monotonic()
    try:
        read = read_architecture if path.endswith(".json") else read_model
        said = repr(type(read(path)))
    except InputError as error:
        said = str(error)
    # On Linux getrusage would hand down what the process that started this one took.
    status = pathlib.Path("/proc/self/status")
    told = status.read_text().partition("VmHWM:")[2].split() if status.exists() else ()
    memory = int(told[0]) if told else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found[path] = said, time.monotonic() - start, memory * (1 if sys.platform == "darwin" else 1024)
print(json.dumps(found))
"""


def packed_chunk(file, packed):
    """fc_1's bias in one piece of 160 numbers that unpacks to whatever `packed` holds."""
    del file["fc_1/fc_1/bias:0"]
    dataset = file["fc_1/fc_1"].create_dataset("bias:0", (160,), "f4", chunks=(160,), compression="gzip")
    dataset.id.write_direct_chunk((0,), packed)


@cache
def quarter_of_a_gigabyte():
    packer = zlib.compressobj(1)
    return b"".join([*(packer.compress(bytes(2**24)) for _ in range(16)), packer.flush()])


def with_packed_chunk(path):
    write_weights(random_net(), path)
    with h5py.File(path, "a") as file:
        packed_chunk(file, zlib.compress(bytes(2**20), 9))


def packed_chunk_that_claims_more(path):
    """The piece is larger than the numbers that it holds."""
    write_weights(random_net(), path)
    with h5py.File(path, "a") as file:
        packed_chunk(file, os.urandom(5000))


def archive(path, config, weights, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("config.json", config)
        file.writestr("model.weights.h5", weights)


def with_packed_chunk_in_an_archive(path):
    inner, shape = path.with_suffix(".inner"), (4, 4, 3, 20)
    with h5py.File(inner, "w") as file:
        dataset = file.create_dataset("layers/conv2d/vars/0", shape, "f4", chunks=shape, compression="gzip")
        dataset.id.write_direct_chunk((0, 0, 0, 0), quarter_of_a_gigabyte())
    graph = Graph(
        (
            Layer("input", kinds.InputLayer((9, 9, 3))),
            Layer("conv", kinds.Conv2D(20, (4, 4), use_bias=False), ("input",)),
            Layer("pool", kinds.GlobalAveragePooling2D(), ("conv",)),
        ),
        "pool",
    )
    archive(path, json.dumps(write_config(graph)), inner.read_bytes())


def packed_by(method):
    def make(path):
        archive(path, b"{}" + bytes(2**25), b"", method)

    return make


def config(text):
    def make(path):
        with h5py.File(path, "w", libver="latest") as file:
            file.create_group("model_weights")
            file.attrs["model_config"] = np.bytes_(text)

    return make


def text(content):
    return lambda path: path.write_text(content)


def names_of_one_layer(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_group("conv_1").attrs["weight_names"] = np.array([], "S")
        file.attrs["layer_names"] = np.array([b"conv_1"] * 60_000)


def names_that_may_be_long(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("filler", data=np.ones(2**20))
        file.attrs["layer_names"] = ["conv_1"] * 5_000


def many_groups(path):
    with h5py.File(path, "w") as file:
        layers = file.create_group("layers")
        for number in range(10_001):
            layers.create_group(f"dense_{number}")


def sparse(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    os.truncate(path, 60 * 2**30)


def sparse_model(path):
    write_model(random_net(), path)
    os.truncate(path, 60 * 2**30)


def table_of_contents(path):
    with zipfile.ZipFile(path, "w") as file:
        for number in range(4_000):
            file.writestr(f"{number:0300}", b"")


def long_names(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_group("x" * 60_000).attrs["weight_names"] = np.array([], "S")
        file.attrs["layer_names"] = np.array([b"x" * 60_000, b"y\x1b[31m" * 9_000])


def huge_claims(path):
    write_weights(random_net(), path)
    with h5py.File(path, "a") as file:
        del file["output/output/kernel:0"], file["output/output/bias:0"]
        file["output/output"].create_dataset("kernel:0", (160, 10**6), "f8", chunks=(160, 10**6), compression="gzip")
        file["output/output"].create_dataset("bias:0", (10**6,), "f8", chunks=(1,))


def many_pieces(path):
    write_weights(random_net(), path)
    with h5py.File(path, "a") as file:
        del file["fc_1/fc_1/kernel:0"]
        file["fc_1/fc_1"].create_dataset("kernel:0", (1200, 160), "f4", chunks=(1, 1))


def deep(depth):
    return '{"class_name": "Sequential", "config": {"layers": [' * depth


HOSTILE = {
    "packed_chunk.h5": (with_packed_chunk, "unpacks to other than"),
    "random_chunk.h5": (packed_chunk_that_claims_more, "expected at most"),
    "packed_chunk.keras": (with_packed_chunk_in_an_archive, "expected at most"),
    "bzip2.keras": (packed_by(zipfile.ZIP_BZIP2), "packed with bzip2"),
    "lzma.keras": (packed_by(zipfile.ZIP_LZMA), "packed with lzma"),
    "lists.h5": (config("[" + "[]," * 1_000_000 + "[]]"), "expected an object"),
    "keys.h5": (config("{" + '"a": {}, ' * 500_000 + '"a": 1}'), "cannot be read"),
    "deep.h5": (config(deep(20_000)), "nested too deeply|cannot be read"),
    "layers.h5": (config('{"class_name":"Model","config":{"layers":[' + "0," * 1_000_000 + "0]}}"), "1,000,001 layers"),
    "deep.json": (text("[" * 100_000), "nested too deeply|cannot be read"),
    "long.json": (text(" " * (2**23 + 1)), "expected the JSON"),
    "one_layer.h5": (names_of_one_layer, "60,000 names, expected at most"),
    "long_names_perhaps.h5": (names_that_may_be_long, "names as Keras writes them"),
    "groups.h5": (many_groups, "holds 10,001 groups"),
    "sparse.h5": (sparse, "has 64,424,509,440 bytes"),
    "sparse_model.h5": (sparse_model, "has 64,424,509,440 bytes"),
    "contents.keras": (table_of_contents, "table of contents"),
    "long_names.h5": (long_names, "not there"),
    "claims.h5": (huge_claims, "never stored|claims"),
    "pieces.h5": (many_pieces, "lies in 192,000 pieces"),
}


def read_in_a_child(paths):
    command = [sys.executable, "-c", READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """What the child says of every file, how long it took, and the most memory it had until then."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (make, _) in HOSTILE.items():
        make(folder / name)
    return {Path(path).name: told for path, told in read_in_a_child(folder / name for name in HOSTILE).items()}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_line_and_in_time(read, name):
    said, seconds, memory = read[name]
    assert len(said) <= 500 and said.isprintable()
    assert name in said and re.search(HOSTILE[name][1], said), said
    assert seconds < 20 and memory < 2 * 2**30


@pytest.mark.real
def test_small_files_that_unpack_to_gigabytes():
    from helpers import real_folder

    folder = real_folder()
    files = sorted((folder.parent / "failing" / "hostile").glob("*model*")) if folder else []
    files += sorted((folder.parent / "failing" / "hostile").glob("*.keras")) if folder else []
    if not files:
        pytest.skip("no such files here")
    for said, seconds, memory in read_in_a_child(files).values():
        assert len(said) <= 500 and seconds < 20 and memory < 2 * 2**30


@pytest.mark.parametrize("chunks", [None, (4, 3), (10, 7), (1, 7)])
@pytest.mark.parametrize(
    "packing", [{}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True, "fletcher32": True}]
)
@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8"])
def test_arrays_are_read_as_hdf5_reads_them(tmp_path, chunks, packing, dtype):
    values = np.random.default_rng(0).normal(size=(10, 7)).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", data=values, chunks=chunks or (bool(packing) or None), **packing)
        found = hdf5.array(dataset, "x")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, dataset[()].astype(np.float32))


def test_one_number_and_none(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        assert hdf5.array(file.create_dataset("one", data=np.float32(3)), "one") == 3
        assert hdf5.array(file.create_dataset("none", (0, 3), "f4"), "none").shape == (0, 3)
        with pytest.raises(InputError, match="never stored"):
            hdf5.array(file.create_dataset("empty", (2, 3), "f4"), "empty")


def test_many_names_are_cut_into_several_attributes(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"a", b"b"], [b"c"]
        assert hdf5.strings(file, "layer_names") == ["a", "b", "c"]
