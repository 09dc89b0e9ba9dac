"""Twelve fine-tunings: all in one compiled step, against one Keras `fit` after another."""

import sys
from collections.abc import Callable

import numpy as np

from benchmarks import keras_peer
from benchmarks.measuring import Row, Size, clean_faces, interleaved
from benchmarks.report import main
from jaxdefend.cli import terminal
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets import shipped
from jaxdefend.nets.batches import padded
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.loading import load_net
from jaxdefend.nets.net import Net
from jaxdefend.nets.training import Schedule, rows_of_steps
from jaxdefend.repairs import grid

BATCH = 128
CELLS = [
    grid.Cell(method, fraction, rate)
    for method in ("fine-prune", "magnitude")
    for fraction in (0.5, 0.7)
    for rate in (3e-4, 1e-3, 3e-3)
]


def rows(size: Size) -> list[Row]:
    import jax

    path, key, order = shipped.path_of(shipped.BADNET), jax.random.key(0), np.arange(60)
    net = load_net(path)
    pixels, labels = clean_faces(size.images // 2)
    schedule = Schedule(len(pixels) // BATCH, BATCH, 1.0)

    def at_once() -> list[Net]:
        state = grid.begun(net, CELLS, "conv_3", order)
        for after, _ in grid.trained(state, CELLS, pixels, labels, schedule, key):
            state = after
        return grid.nets(state, CELLS)

    nets = at_once()
    if not keras_peer.name():
        (ours,) = interleaved(size.repeats, at_once)
        return [Row("grid", ours, f"Keras, {keras_peer.INSTALL}", smallest_ratio=4)]
    shown = np.concatenate(list(rows_of_steps(len(pixels), schedule, key, 0)))
    runs = [_keras_run(net, cell, order, pixels[shown], labels[shown], schedule) for cell in CELLS]

    def one_by_one() -> list:
        return [run() for run in runs]

    # What magnitude pruning adds has no part in the Keras runs: these cells are the same work or less, no more.
    agreed = [
        (keras_peer.labels(model, pixels, "unit", 256) == predictions(found, padded(ArrayImages(pixels)))[0]).mean()
        for cell, found, model in zip(CELLS, nets, one_by_one(), strict=True)
        if cell.method == "fine-prune"
    ]
    terminal.say(f"grid: labels agree on {100 * min(agreed):.1f} % of the images or more")
    ours, theirs = interleaved(max(2, size.repeats // 2), at_once, one_by_one)
    peer = f"{keras_peer.name()}, {len(CELLS)} × fit, {len(pixels)} images"
    return [Row("grid", ours, peer, theirs, min(agreed) > 0.97, smallest_ratio=4)]


def _keras_run(net, cell: grid.Cell, order, pixels, labels, schedule: Schedule) -> Callable[[], object]:
    """A fine-tuning of the same start on the same images in the same order at the same rates."""
    import tempfile
    from pathlib import Path

    import keras

    from jaxdefend.nets.keras_files import write_model

    channels = order[: round(cell.fraction * len(order))] if cell.method == "fine-prune" else order[:0]
    with tempfile.TemporaryDirectory() as temporary:
        start = Path(temporary) / "start.h5"
        write_model(net.pruned("conv_3", channels), start)
        model = keras_peer.load(start)
    weights, rising = model.get_weights(), max(1, schedule.steps // 20)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, schedule.steps - rising, warmup_target=cell.learning_rate, warmup_steps=rising
    )
    images = keras_peer.as_input(pixels, "unit")
    # Compiled once: what is compared is training, not tracing.
    model.compile(keras.optimizers.Adam(rate, epsilon=1e-8), keras.losses.SparseCategoricalCrossentropy())

    def run() -> object:
        model.set_weights(weights)
        for variable in model.optimizer.variables:
            variable.assign(keras.ops.zeros_like(variable))
        model.fit(images, labels, batch_size=BATCH, epochs=1, shuffle=False, verbose=0)
        return model

    return run


if __name__ == "__main__":
    sys.exit(main(rows))
