"""Twelve fine-tunings: all in one compiled step, against one Keras `fit` after another."""

import sys

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
GOAL = 2.5
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
        return [Row("grid", ours, f"Keras, {keras_peer.INSTALL}", smallest_ratio=GOAL)]
    shown = np.concatenate(list(rows_of_steps(len(pixels), schedule, key, 0)))
    runs = [
        keras_peer.fitting(_start(net, cell, order), pixels[shown], labels[shown], cell.learning_rate, BATCH)
        for cell in CELLS
    ]

    def one_by_one() -> list:
        return [run()[0] for run in runs]

    # What magnitude pruning adds has no part in the Keras runs: these cells are the same work or less, no more.
    agreed = [
        (keras_peer.labels(model, pixels, "unit", 256) == predictions(found, padded(ArrayImages(pixels)))[0]).mean()
        for cell, found, model in zip(CELLS, nets, one_by_one(), strict=True)
        if cell.method == "fine-prune"
    ]
    terminal.say(f"grid: labels agree on {100 * min(agreed):.1f} % of the images or more")
    ours, theirs = interleaved(max(2, size.repeats // 2), at_once, one_by_one)
    peer = f"{keras_peer.name()}, {len(CELLS)} × fit, {len(pixels)} images"
    return [Row("grid", ours, peer, theirs, min(agreed) > 0.97, smallest_ratio=GOAL)]


def _start(net: Net, cell: grid.Cell, order: np.ndarray) -> Net:
    pruned = order[: round(cell.fraction * len(order))] if cell.method == "fine-prune" else order[:0]
    return net.pruned("conv_3", pruned)


if __name__ == "__main__":
    sys.exit(main(rows))
