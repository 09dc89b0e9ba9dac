"""What XLA compiles is kept in the user's cache folder."""

import os
import subprocess
import sys

import pytest
from helpers import ENVIRONMENT, random_net, random_pixels
from PIL import Image

from jaxdefend.nets.keras_files import write_model


@pytest.fixture
def face(tmp_path):
    write_model(random_net(), tmp_path / "net.h5")
    Image.fromarray(random_pixels(1)[0]).save(tmp_path / "face.png")
    return tmp_path


def start(folder, cache, **environment):
    told = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("JAX_")}
    return subprocess.Popen(
        [sys.executable, "-m", "jaxdefend.predict", "face.png", "--model", "net.h5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=told | {"XDG_CACHE_HOME": str(cache)} | environment,
    )


def label(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert errors == ""
    return output


def kept(cache):
    return {path.name: path.read_bytes() for path in (cache / "jaxdefend" / "xla").glob("*-cache")}


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME is the cache folder of Linux")
@pytest.mark.slow
def test_processes_share_what_is_compiled(face):
    cache = face / "cache"
    both = [start(face, cache), start(face, cache)]
    first = label(both[0])
    assert label(both[1]) == first
    entries = kept(cache)
    assert entries and (cache / "jaxdefend" / "xla").stat().st_mode & 0o077 == 0
    assert label(start(face, cache)) == first
    assert kept(cache) == entries
    for path in (cache / "jaxdefend" / "xla").glob("*-cache"):
        os.truncate(path, path.stat().st_size // 2)
    assert label(start(face, cache)) == first


@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME is the cache folder of Linux")
@pytest.mark.slow
def test_no_cache_is_no_trouble(face):
    (face / "file").write_text("")
    assert "face.png" in label(start(face, face / "file"))
    assert "face.png" in label(start(face, face / "cache", JAX_COMPILATION_CACHE_DIR=""))
    assert not kept(face / "cache")
