"""From uint8 images on the host to labels: many images, one image, and the share of the matrix-product rate."""

import sys

import numpy as np

from benchmarks import keras_peer
from benchmarks.measuring import Row, Size, clean_faces, interleaved, matmul_seconds, median, multiply_adds
from benchmarks.report import main
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets import shipped
from jaxdefend.nets.batches import padded
from jaxdefend.nets.devices import batch_size
from jaxdefend.nets.inference import labels_and_confidences, predictions
from jaxdefend.nets.loading import load_net

ONE_IMAGE_CALLS = 20


def rows(size: Size) -> list[Row]:
    import jax

    net = load_net(shipped.BADNET)
    pixels, _ = clean_faces(size.images)
    images = ArrayImages(pixels)

    def ours() -> np.ndarray:
        return predictions(net, padded(images, batch_size()))[0]

    placed, one = jax.device_put(net), pixels[:1]

    def our_one() -> None:
        for _ in range(ONE_IMAGE_CALLS):
            np.asarray(labels_and_confidences(placed, one)[0])

    found = ours()
    our_one()
    share = Row(
        "fraction_of_matmul_forward",
        *_with_peer(matmul_seconds(size.repeats, len(pixels) * multiply_adds(net), ours)),
        smallest_ratio=0.75,
    )
    if keras_peer.name() is None:
        (times,), (one_times,) = interleaved(size.repeats, ours), interleaved(size.repeats, our_one)
        return [
            Row("forward", times, f"Keras, {keras_peer.INSTALL}"),
            Row("one_image_warm", _per_call(one_times), f"Keras, {keras_peer.INSTALL}", longest_seconds=1e-3),
            share,
        ]

    model, scale = keras_peer.load(shipped.path_of(shipped.BADNET)), net.input_scale
    batches = [batch for batch in keras_peer.BATCH_SIZES if batch <= len(pixels)]

    def theirs(batch: int):
        return lambda: keras_peer.labels(model, pixels, scale, batch)

    same = all(np.array_equal(found, theirs(batch)()) for batch in batches)
    times, *others = interleaved(size.repeats, ours, *map(theirs, batches))
    best = min(range(len(batches)), key=lambda index: median(others[index]))

    def their_one() -> None:
        for _ in range(ONE_IMAGE_CALLS):
            np.asarray(model([keras_peer.as_input(one, scale)])).argmax()

    their_one()
    same_one = np.asarray(model([keras_peer.as_input(one, scale)])).argmax() == found[0]
    one_times, their_one_times = interleaved(size.repeats, our_one, their_one)
    peer = keras_peer.name()
    return [
        Row("forward", times, f"{peer}, predict, batch {batches[best]}", others[best], same),
        Row(
            "one_image_warm",
            _per_call(one_times),
            f"{peer}, model(x)",
            _per_call(their_one_times),
            bool(same_one),
            longest_seconds=1e-3,
        ),
        share,
    ]


def _with_peer(times: tuple[list[float], list[float]]) -> tuple[list[float], str, list[float]]:
    return times[0], "its multiply-adds in one large matrix product", times[1]


def _per_call(times: list[float]) -> list[float]:
    return [seconds / ONE_IMAGE_CALLS for seconds in times]


if __name__ == "__main__":
    sys.exit(main(rows))
