"""What is no set of images is named, with the way out."""

import gzip
import io
import os
import tarfile
import zipfile

import helpers
import pytest
from helpers_data import fill, write_hdf5
from PIL import Image

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images

PIXELS = helpers.random_pixels(2)


def holds(content: bytes):
    return lambda path: path.write_bytes(content)


def archive(**members: bytes):
    def make(path):
        with zipfile.ZipFile(path, "w") as file:
            for name, content in members.items():
                file.writestr(name.replace("_", "."), content)

    return make


def packed_hdf5(path):
    path.write_bytes(gzip.compress(write_hdf5(path.with_name("plain"), data=PIXELS, label=[0, 1]).read_bytes()))


def tar(path):
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("a.h5"), io.BytesIO())


def picture(kind):
    return lambda path: Image.fromarray(PIXELS[0]).save(path, kind)


FILES = {
    "pointer.h5": (holds(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"), "git lfs pull"),
    "page.h5": (holds(b"\n<!DOCTYPE html><html><head>"), "web page"),
    "page.png": (holds(b"<HTML><body>"), "web page"),
    "text.h5": (holds(b"hello"), "not an HDF5 file"),
    "packed.h5.gz": (packed_hdf5, "an HDF5 file compressed with gzip; .*gunzip"),
    "packed.h5": (packed_hdf5, "gunzip packed.h5"),
    "text.gz": (holds(gzip.compress(b"hello, hello")), "compressed with gzip"),
    "cut.gz": (holds(gzip.compress(b"hello, hello")[:9]), "complete"),
    "a.zip": (archive(a_h5=b"1", b_h5=b"2"), "a zip archive of a.h5, b.h5; extract it"),
    "none.zip": (archive(), "a zip archive of nothing"),
    "net.keras": (archive(config_json=b"{}", metadata_json=b"{}"), "a net"),
    "cut.zip": (holds(b"PK\3\4" + bytes(100)), "complete"),
    "a.bz2": (holds(b"BZh91AY&SY"), "bzip2"),
    "a.xz": (holds(b"\xfd7zXZ\0\0\4"), "xz"),
    "a.zst": (holds(b"\x28\xb5\x2f\xfd\0\0"), "zstd"),
    "a.7z": (holds(b"7z\xbc\xaf\x27\x1c"), "7z"),
    "a.rar": (holds(b"Rar!\x1a\7\0"), "RAR"),
    "a.tar": (tar, "tar archive"),
    "data_batch_1": (holds(b"\x80\x03}q\0(X"), "pickle.*np.savez"),
    "a.mat": (holds(b"MATLAB 5.0 MAT-file, Platform: GLNXA64"), "v7.3"),
    "a.parquet": (holds(b"PAR1\x15\4"), "Parquet"),
    "a.pdf": (holds(b"%PDF-1.7"), "PDF"),
    "a.ppm": (picture("PPM"), "PPM picture; convert it to PNG"),
    "a.heic": (holds(b"\0\0\0\x18ftypheic\0\0\0\0"), "HEIC picture; convert"),
    "a.avif": (holds(b"\0\0\0\x18ftypavif\0\0\0\0"), "AVIF picture; convert"),
    "labels.csv": (holds(b"a.png,1\n"), "pass the folder"),
    "a.png": (holds(b"hello"), "cannot identify"),
    "a": (holds(b"hello"), "cannot identify"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("labelled", [False, True])
def test_what_is_not_read_is_named(tmp_path, name, labelled):
    make, says = FILES[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=says) as raised:
        open_images(tmp_path / name, labelled=labelled)
    message = str(raised.value)
    assert name in message and message.isprintable() and len(message) <= 500


def test_pictures_are_known_by_their_content(tmp_path):
    path = fill(tmp_path, PIXELS, "face.png") / "face.png"
    renamed = path.rename(tmp_path / "face.data")
    assert (open_images(renamed, target=0)[0] == PIXELS[0]).all()


def test_a_disk_is_no_file(tmp_path):
    for path in ("/dev/zero", "/dev/null"):
        if os.path.exists(path):
            with pytest.raises(InputError, match="neither a file nor a folder"):
                open_images(path)
