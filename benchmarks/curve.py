"""All 61 points of the pruning curve: against 61 Keras passes, and against our own `vmap` over the masks."""

import sys
from functools import partial

import jax
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
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets import shipped
from jaxdefend.nets.batches import padded
from jaxdefend.nets.devices import batch_size, on_devices
from jaxdefend.nets.inference import largest
from jaxdefend.nets.loading import load_net
from jaxdefend.repairs import curve as curves

# Points at which Keras's predictions are counted too.
CHECKED = (0, 40, 58)


def rows(size: Size) -> list[Row]:
    net = load_net(shipped.BADNET)
    sets = [ArrayImages(*make(size.curve_images)) for make in (clean_faces, poisoned_faces)]
    n = sum(map(len, sets))
    order = curves.ascending(curves.mean_activations(net, padded(sets[0], batch_size()), "conv_3"))
    masks = curves.nested_masks(order)

    def telescoped() -> list[curves.Curve]:
        return [curves.curve(net, padded(images, batch_size()), order, "conv_3") for images in sets]

    def mapped() -> list[np.ndarray]:
        compute = partial(curves.masked_counts, layer="conv_3")
        running = [on_devices(compute, net, padded(images, batch_size()), masks) for images in sets]
        return [np.sum([np.sum(counts, axis=1) for counts, _ in counted], axis=0) for counted in running]

    def at_once() -> list[np.ndarray]:
        running = [on_devices(_right_at_once, net, padded(images, batch_size()), masks) for images in sets]
        return [np.sum([right for right, _ in counted], axis=0) for counted in running]

    found = telescoped()
    same_mapped = all(
        np.array_equal([curve.correct, curve.agreed, curve.agreed_correct], counts)
        for curve, counts in zip(found, mapped(), strict=True)
    )
    same_at_once = all(np.array_equal(curve.correct, right) for curve, right in zip(found, at_once(), strict=True))
    times, mapped_times, at_once_times = interleaved(size.repeats, telescoped, mapped, at_once)
    # What an image needs: some layers once, some for the BadNet, for none left, and for each channel that is not zero
    # in it. The first of the order is there only in the BadNet.
    counted = [on_devices(_channels_seen, net, padded(images, batch_size()), order[1:]) for images in sets]
    heads = 2 * n + sum(int(seen[labels >= 0].sum()) for batches in counted for seen, labels in batches)
    work = n * multiply_adds(net, "conv_1", "conv_2", "conv_3", "conv_4", "fc_1")
    work += heads * multiply_adds(net, "fc_2", "output")
    share_times, product_times = matmul_seconds(size.repeats, work, telescoped)
    own = [
        Row("curve_vmap", times, "vmap over the 61 masks", at_once_times, same_at_once, smallest_ratio=4),
        Row("curve_vmap_in_blocks", times, "vmap over 4 masks at a time, masked_counts", mapped_times, same_mapped),
        Row(
            "fraction_of_matmul_curve",
            share_times,
            "the multiply-adds that its images need, in one large matrix product",
            product_times,
            smallest_ratio=0.75,
        ),
    ]
    if keras_peer.name() is None:
        return [Row("curve", times, f"Keras, {keras_peer.INSTALL}"), *own]

    model, scale = keras_peer.load(shipped.path_of(shipped.BADNET)), net.input_scale
    batches = [batch for batch in keras_peer.BATCH_SIZES if batch <= n]

    def predicted(batch: int) -> list[np.ndarray]:
        return [keras_peer.labels(model, images.pixels, scale, batch) for images in sets]

    same = all(_right(model, order[:k], sets, scale) == [int(curve.correct[k]) for curve in found] for k in CHECKED)
    for batch in batches:
        predicted(batch)
    times, *others = interleaved(size.repeats, telescoped, *(partial(predicted, batch) for batch in batches))
    best = min(range(len(batches)), key=lambda index: median(others[index]))
    peer = f"61 × {keras_peer.name()}, predict, batch {batches[best]}"
    passes = [len(masks) * seconds for seconds in others[best]]
    return [Row("curve", times, peer, passes, same), *own]


@jax.jit
def _right_at_once(net, pixels, labels, masks) -> jax.Array:
    """How many images are labelled rightly under each mask; the features are shared."""
    pooled = net.features(pixels, ("pool_3",))["pool_3"]
    found = jax.vmap(lambda mask: largest(net.logits({"pool_3": pooled * mask})))(masks)
    return (found == labels).sum(axis=1)


@jax.jit
def _channels_seen(net, pixels, labels, channels) -> jax.Array:
    """Of each image, how many of these channels of pool_3 are not all zero."""
    return (net.features(pixels, ("pool_3",))["pool_3"][..., channels] != 0).any(axis=(1, 2)).sum(axis=1)


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
