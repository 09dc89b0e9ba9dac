"""Compressed HDF5 files: every kind that is read, and damaged chunks."""

import time
import zlib

import h5py
import helpers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend import InputError
from jaxdefend.datasets import chunks as module
from jaxdefend.datasets.files import open_images

PIXELS = helpers.random_pixels(80)
LABELS = np.arange(80) % 11


def test_gzipped_chunks_are_unpacked_once_a_pass(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = np.moveaxis(helpers.random_pixels(512) // 16, -1, 1).astype(np.float64)
        file.create_dataset("data", data=data, chunks=(512, 1, 14, 12), compression="gzip", compression_opts=1)
        file["label"] = np.zeros(512)

    def seconds(size):
        start = time.perf_counter()
        assert sum(len(pixels) for pixels, _ in open_images([path]).chunks(size)) == 512
        return time.perf_counter() - start

    assert seconds(8) < 6 * seconds(512)  # 64 reads; about 60 times as long where every read unpacks again


PACKINGS = {
    "gzip": {"compression": "gzip"},
    "shuffled": {"compression": "gzip", "shuffle": True},
    "checked": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "only checked": {"fletcher32": True},
    "only shuffled": {"shuffle": True},
    "lzf": {"compression": "lzf"},
    "shuffled lzf": {"compression": "lzf", "shuffle": True, "fletcher32": True},
    "not packed": {},
}


@settings(max_examples=40, deadline=None)
@given(
    packing=st.sampled_from(sorted(PACKINGS)),
    chunks=st.tuples(st.integers(1, 25), st.integers(1, 3), st.integers(14, 55), st.integers(20, 47)),
    dtype=st.sampled_from(["uint8", "<f4", ">f4", "float64", "float16", "int16"]),
    rows=st.slices(20),
    keeps=st.booleans(),
)
def test_every_packing_gives_the_same_rows(tmp_path_factory, packing, chunks, dtype, rows, keeps):
    path = tmp_path_factory.mktemp("packed") / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "data",
            data=np.moveaxis(PIXELS[:20], -1, 1).astype(dtype),
            chunks=chunks,
            maxshape=(None,) * 4,
            **PACKINGS[packing],
        )
        file["label"] = LABELS[:20]
    with pytest.MonkeyPatch.context() as patch:
        if not keeps:
            patch.setattr(module, "_MAX_CACHE_BYTES", 0)
        np.testing.assert_array_equal(open_images(path)[rows], PIXELS[:20][rows])


@pytest.mark.parametrize("packing", PACKINGS)
def test_noise_in_large_chunks_gets_larger_and_is_read(tmp_path, packing):
    noise = np.random.default_rng(0).integers(0, 256, (300, 3, 55, 47), dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=noise, chunks=(300, 3, 55, 47), **PACKINGS[packing])
        file["label"] = np.zeros(300)
    np.testing.assert_array_equal(open_images(tmp_path / "a.h5")[:], np.moveaxis(noise, 1, -1))


def test_chunks_that_were_never_written_hold_the_fill_value(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", (8, 3, 55, 47), "uint8", chunks=(2, 3, 55, 47), compression=9, fillvalue=7)
        data[:4] = np.moveaxis(PIXELS[:4], -1, 1)
        file["label"] = LABELS[:8]
    images = open_images(tmp_path / "a.h5")
    np.testing.assert_array_equal(images[:4], PIXELS[:4])
    assert (images[4:] == 7).all()


@pytest.mark.parametrize("content, says", [(b"nothing", "cannot be read"), (zlib.compress(bytes(7755))[:-9], "early")])
def test_damaged_chunks_are_input_errors(tmp_path, content, says):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", (2, 3, 55, 47), "uint8", chunks=(1, 3, 55, 47), compression="gzip")
        data[:] = np.moveaxis(PIXELS[:2], -1, 1)
        data.id.write_direct_chunk((1, 0, 0, 0), content)
        file["label"] = [0, 0]
    images = open_images(tmp_path / "a.h5")
    np.testing.assert_array_equal(images[0], PIXELS[0])
    with pytest.raises(InputError, match=rf"a\.h5.*{says}"):
        images[1]


def test_a_wrong_checksum_is_an_input_error(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", (1, 3, 55, 47), "uint8", chunks=(1, 3, 55, 47), fletcher32=True)
        data[:] = np.moveaxis(PIXELS[:1], -1, 1)
        _, chunk = data.id.read_direct_chunk((0, 0, 0, 0))
        data.id.write_direct_chunk((0, 0, 0, 0), bytes([chunk[0] ^ 1]) + chunk[1:])
        file["label"] = [0]
    with pytest.raises(InputError, match="checksum"):
        open_images(tmp_path / "a.h5")[:]


@pytest.mark.parametrize(
    "number, name", [(32015, "zstd"), (32001, "blosc"), (32008, "bitshuffle"), (1234, "number 1234")]
)
def test_filters_that_are_not_read_are_named(tmp_path, number, name):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 3, 55, 47))
        properties.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple((1, 3, 55, 47))
        data = h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT8, space, properties)
        data.write_direct_chunk((0, 0, 0, 0), bytes(100))
        file["label"] = [0]
    with pytest.raises(InputError, match=rf"a\.h5.*{name}.*hdf5plugin"):
        open_images(tmp_path / "a.h5")
