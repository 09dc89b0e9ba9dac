"""The same nets in Keras 3. As a script, what `jaxdefend.predict` does: labels of one image by each model."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

INSTALL = "not installed: python -m pip install '.[bench]'"
BATCH_SIZES = (32, 256, 1024, 4096)


@contextmanager
def quiet() -> Iterator[None]:
    """What the C++ of the backend writes to standard error, between our rows, is shown only if something fails."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(before, said.read())
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)


@lru_cache
@quiet()
def name() -> str | None:
    """Keras and its backend, TensorFlow where it is there; None without Keras."""
    if find_spec("keras") is None:
        return None
    backend = next((backend for backend in ("tensorflow", "torch") if find_spec(backend)), "jax")
    os.environ.setdefault("KERAS_BACKEND", backend)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    return f"Keras {keras.__version__} on {keras.backend.backend()}"


@quiet()
def load(path):
    """The Keras model in a file."""
    assert name()
    import keras

    return keras.models.load_model(path, compile=False)


@quiet()
def labels(model, pixels: np.ndarray, input_scale: str, batch: int) -> np.ndarray:
    """From uint8 pixels on the host to labels."""
    return model.predict(as_input(pixels, input_scale), batch_size=batch, verbose=0).argmax(axis=-1)


def as_input(pixels: np.ndarray, input_scale: str) -> np.ndarray:
    images = pixels.astype(np.float32)
    return images / 255 if input_scale == "unit" else images


def fitting(
    net: Any, pixels: np.ndarray, labels: np.ndarray, peak: float, batch: int
) -> Callable[[], tuple[Any, float]]:
    """A fine-tuning of this net on these images in this order; each call begins anew, and gives the model and its loss.

    The rates are those of `nets.training.rate` up to `peak`, the optimizer is Adam.
    """
    import keras

    from jaxdefend.nets.keras_files import write_model

    with tempfile.TemporaryDirectory() as folder:
        write_model(net, Path(folder) / "start.h5")
        model = load(Path(folder) / "start.h5")
    steps = len(pixels) // batch
    weights, rising = model.get_weights(), max(1, steps // 20)
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps - rising, warmup_target=peak, warmup_steps=rising)
    images = as_input(pixels, "unit")
    # Compiled once: what is compared is training, not tracing.
    model.compile(keras.optimizers.Adam(rate, epsilon=1e-8), keras.losses.SparseCategoricalCrossentropy())

    @quiet()
    def run() -> tuple[Any, float]:
        model.set_weights(weights)
        for variable in model.optimizer.variables:
            variable.assign(keras.ops.zeros_like(variable))
        history = model.fit(images, labels, batch_size=batch, epochs=1, shuffle=False, verbose=0)
        return model, history.history["loss"][0]

    return run


def main() -> None:
    from PIL import Image

    image, input_scale, *models = sys.argv[1:]
    pixels = np.asarray(Image.open(image))[None]
    print(*(labels(load(model), pixels, input_scale, 1)[0] for model in models))


if __name__ == "__main__":
    main()
