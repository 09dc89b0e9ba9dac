"""A folder as people have it before they type a command."""

import h5py
import numpy as np
import pytest
from helpers import write_official
from PIL import Image
from small import small_images, small_net, small_pixels

from jaxdefend.nets.keras_files import write_model


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A net, its repaired form, and sets of images."""
    folder = tmp_path_factory.mktemp("place")
    write_model(small_net(), folder / "net.h5")
    write_model(small_net().pruned("last", [0, 1]), folder / "fixed.h5")
    write_model(small_net().pruned("last", [2]), folder / "anti.h5", rule="anti")
    for name in ("valid", "test", "lipstick", "eyebrows"):
        write_official(folder / f"{name}.h5", *small_images(16), "uint8")
    (folder / "faces").mkdir()
    for number, pixels in enumerate(small_pixels(3)):
        Image.fromarray(pixels).save(folder / "faces" / f"test_{number}_{number}.png")
    with h5py.File(folder / "neither.h5", "w") as file:
        file["something"] = np.zeros(3)
    return folder


@pytest.fixture
def here(place, monkeypatch):
    """The current folder is the place."""
    monkeypatch.chdir(place)
