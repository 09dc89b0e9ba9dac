"""The same nets in Keras 3. As a script, what `jaxdefend.predict` does: labels of one image by each model."""

import os
import sys
from functools import lru_cache
from importlib.util import find_spec

import numpy as np

INSTALL = "not installed: python -m pip install '.[bench]'"
BATCH_SIZES = (32, 256, 1024, 4096)


@lru_cache
def name() -> str | None:
    """Keras and its backend, TensorFlow where it is there; None without Keras."""
    if find_spec("keras") is None:
        return None
    backend = next((backend for backend in ("tensorflow", "torch") if find_spec(backend)), "jax")
    os.environ.setdefault("KERAS_BACKEND", backend)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    return f"Keras {keras.__version__} on {keras.backend.backend()}"


def load(path):
    """The Keras model in a file."""
    assert name()
    import keras

    return keras.models.load_model(path, compile=False)


def labels(model, pixels: np.ndarray, input_scale: str, batch: int) -> np.ndarray:
    """From uint8 pixels on the host to labels."""
    return model.predict(as_input(pixels, input_scale), batch_size=batch, verbose=0).argmax(axis=-1)


def as_input(pixels: np.ndarray, input_scale: str) -> np.ndarray:
    images = pixels.astype(np.float32)
    return images / 255 if input_scale == "unit" else images


def main() -> None:
    from PIL import Image

    image, input_scale, *models = sys.argv[1:]
    pixels = np.asarray(Image.open(image))[None]
    print(*(labels(load(model), pixels, input_scale, 1)[0] for model in models))


if __name__ == "__main__":
    main()
