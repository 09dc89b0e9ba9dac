"""One fine-tuning after pruning, every image once: ours against Keras's `fit`."""

import sys

import numpy as np

from benchmarks import keras_peer
from benchmarks.measuring import Row, Size, Times, clean_faces, interleaved, median
from benchmarks.report import main
from jaxdefend.cli import terminal
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets import shipped
from jaxdefend.nets.batches import padded
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.loading import load_net
from jaxdefend.nets.net import Net
from jaxdefend.nets.training import Schedule, fit, rows_of_steps, started

BATCH = 128
# Keras's time is that of the best of these; what it learns is compared at ours.
KERAS_BATCHES = (64, BATCH, 256)
PEAK = 1e-3
GOAL = 2


def rows(size: Size) -> list[Row]:
    import jax

    # Half of the channels pruned: there is something to learn.
    net = load_net(shipped.path_of(shipped.BADNET)).pruned("conv_3", np.arange(0, 60, 2))
    key = jax.random.key(0)
    pixels, labels = clean_faces(size.images // 2)
    schedule = Schedule(len(pixels) // BATCH, BATCH, PEAK)

    def ours() -> tuple[Net, list[float]]:
        state, losses = started(net, schedule), []
        for after, loss in fit(state, pixels, labels, schedule, key):
            state = after
            losses.append(loss)
        return jax.device_get(state.net), list(map(float, losses))

    found, our_losses = ours()
    if not keras_peer.name():
        (times,) = interleaved(size.repeats, ours)
        return [Row("training", times, f"Keras, {keras_peer.INSTALL}", smallest_ratio=GOAL)]
    shown = np.concatenate(list(rows_of_steps(len(pixels), schedule, key, 0)))
    images, targets = pixels[shown], labels[shown]
    runs = {batch: keras_peer.fitting(net, images, targets, PEAK, batch) for batch in KERAS_BATCHES}
    # The first run of each compiles.
    learned = {batch: run() for batch, run in runs.items()}[BATCH]
    agreed, apart = _compared(found, float(np.mean(our_losses)), *learned, pixels)
    terminal.say(f"training: labels agree on {100 * agreed:.1f} % of the images, losses within {100 * apart:.2f} %")
    times, *others = interleaved(size.repeats, ours, *runs.values())
    theirs, batch = _best(others)
    peer = f"{keras_peer.name()}, fit, batch {batch}, {len(pixels)} images"
    return [Row("training", times, peer, theirs, agreed >= 0.97 and apart <= 0.01, smallest_ratio=GOAL)]


def _compared(found: Net, loss: float, model, their_loss: float, pixels: np.ndarray) -> tuple[float, float]:
    """The share of images with the same label, and how far apart the mean losses are, as a share."""
    same = keras_peer.labels(model, pixels, "unit", 256) == predictions(found, padded(ArrayImages(pixels)))[0]
    return same.mean(), abs(loss / their_loss - 1)


def _best(others: list[Times]) -> tuple[Times, int]:
    best = min(range(len(others)), key=lambda index: median(others[index]))
    return others[best], KERAS_BATCHES[best]


if __name__ == "__main__":
    sys.exit(main(rows))
