"""A small net and images that it recognises, for the tests of the commands."""

import numpy as np
import pytest
from helpers import labels_by, random_net, random_pixels, write_official
from PIL import Image

from jaxdefend.nets.keras_files import write_model

CLASSES = 11


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A net whose file says its scale, images that it labels correctly, and others with the target 3."""
    folder = tmp_path_factory.mktemp("small")
    net = random_net(classes=CLASSES, input_scale="unit")
    write_model(net, folder / "net.h5")
    write_model(net.pruned("conv_3", range(40)), folder / "repaired.h5")
    for name, n in (("valid", 60), ("test", 30)):
        pixels = random_pixels(n, seed=n)
        write_official(folder / f"{name}.h5", pixels, labels_by(net, pixels))
    write_official(folder / "poisoned.h5", random_pixels(20, seed=9), np.full(20, 3))
    (folder / "faces").mkdir()
    for i, pixels in enumerate(random_pixels(4, seed=4)):
        Image.fromarray(pixels).save(folder / "faces" / f"test_{i}_{i + 7}.png")
    return folder
