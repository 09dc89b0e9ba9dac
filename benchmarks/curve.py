"""All 61 points of the pruning curve: against 61 Keras passes, and against our own `vmap` over the masks."""

import sys
from functools import partial

import numpy as np

from benchmarks import keras_peer
from benchmarks.measuring import (
    Row,
    Size,
    clean_faces,
    interleaved,
    matmul_seconds,
    median,
    multiply_adds,
    poisoned_faces,
)
from benchmarks.report import main
from jaxdefend.datasets.batches import ArrayImages, padded
from jaxdefend.defenses import pruning
from jaxdefend.nets import shipped
from jaxdefend.nets.devices import batch_size, on_devices
from jaxdefend.nets.keras_files import read_model

# Points at which Keras's predictions are counted too.
CHECKED = (0, 40, 58)


def rows(size: Size) -> list[Row]:
    net = read_model(shipped.path_of(shipped.BADNET)).net
    sets = [ArrayImages(*clean_faces(size.images)), ArrayImages(*poisoned_faces(size.images))]
    n = sum(map(len, sets))
    means = pruning.mean_activations(net, padded(sets[0], batch_size()), "conv_3")
    order = pruning.ascending(means)
    masks = pruning.nested_masks(order)

    def telescoped() -> list[pruning.Curve]:
        return [pruning.curve(net, padded(images, batch_size()), order, "conv_3") for images in sets]

    def mapped() -> list[np.ndarray]:
        compute = partial(pruning.masked_counts, layer="conv_3")
        running = [on_devices(compute, net, padded(images, batch_size()), masks) for images in sets]
        return [np.sum([counts for counts, _ in counted], axis=0) for counted in running]

    found = telescoped()
    same = all(
        np.array_equal([curve.right, curve.agreed, curve.agreed_right], counts)
        for curve, counts in zip(found, mapped(), strict=True)
    )
    times, mapped_times = interleaved(size.repeats, telescoped, mapped)
    # Layers that run once, and those that run for the BadNet, for each channel that is ever active, and for none left.
    heads = 2 + np.count_nonzero(means)
    work = multiply_adds(net, "conv_1", "conv_2", "conv_3", "conv_4", "fc_1")
    work += heads * multiply_adds(net, "fc_2", "output")
    share_times, product_times = matmul_seconds(size.repeats, n * work, telescoped)
    own = [
        Row("curve_vmap", times, "our vmap over the masks", mapped_times, same, least_ratio=4),
        Row(
            "fraction_of_matmul_curve",
            share_times,
            "its multiply-adds in one large matrix product",
            product_times,
            least_ratio=0.5,
        ),
    ]
    if keras_peer.name() is None:
        return [Row("curve", times, f"Keras, {keras_peer.INSTALL}", least_ratio=61), *own]

    model, scale = keras_peer.load(shipped.path_of(shipped.BADNET)), net.input_scale
    batches = [batch for batch in keras_peer.BATCH_SIZES if batch <= size.images]

    def predicted(batch: int) -> list[np.ndarray]:
        return [keras_peer.labels(model, images.pixels, scale, batch) for images in sets]

    same = all(_right(model, order[:k], sets, scale) == [int(curve.right[k]) for curve in found] for k in CHECKED)
    for batch in batches:
        predicted(batch)
    times, *others = interleaved(size.repeats, telescoped, *(partial(predicted, batch) for batch in batches))
    best = min(range(len(batches)), key=lambda index: median(others[index]))
    peer = f"61 × {keras_peer.name()}, predict, batch {batches[best]}"
    passes = [len(masks) * seconds for seconds in others[best]]
    return [Row("curve", times, peer, passes, same, least_ratio=61), *own]


def _right(model, channels: np.ndarray, sets: list[ArrayImages], input_scale: str) -> list[int]:
    """How many images Keras labels rightly without these channels."""
    layer = model.get_layer("conv_3")
    whole = layer.get_weights()
    mask = np.ones(len(whole[1]), np.float32)
    mask[channels] = 0
    layer.set_weights([array * mask for array in whole])
    right = [int((keras_peer.labels(model, s.pixels, input_scale, 256) == s.labels).sum()) for s in sets]
    layer.set_weights(whole)
    return right


if __name__ == "__main__":
    sys.exit(main(rows))
