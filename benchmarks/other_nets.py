"""Nets of other graphs: many images to labels, and the whole curve of the last convolution, against Keras's passes.

The graphs are those of small nets that people train: for MNIST, for traffic signs, and a ResNet-20. Their weights are
random: what is computed does not depend on them.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import keras_peer
from benchmarks.measuring import Row, Size, interleaved, median
from benchmarks.report import main
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets.batches import padded
from jaxdefend.nets.devices import batch_size
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.keras_files import write_model
from jaxdefend.nets.kinds import (
    Activation,
    Add,
    AveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    InputLayer,
    Kind,
    MaxPooling2D,
)
from jaxdefend.nets.net import Net
from jaxdefend.repairs.curve import curve

# How many of Keras's passes the whole curve may take.
PASSES = 2


def chain(image_shape: tuple[int, int, int], *kinds: Kind) -> Graph:
    """One layer after another."""
    layers = [Layer("images", InputLayer(image_shape))]
    for number, kind in enumerate(kinds):
        layers.append(Layer(f"layer_{number}", kind, (layers[-1].name,)))
    return Graph(layers, layers[-1].name)


def mnist() -> Graph:
    """Two convolutions with average pooling, two dense layers."""
    return chain(
        (28, 28, 1),
        Conv2D(16, (5, 5), activation="relu"),
        AveragePooling2D(),
        Conv2D(32, (5, 5), activation="relu"),
        AveragePooling2D(),
        Flatten(),
        Dense(512, activation="relu"),
        Dense(10, activation="softmax"),
    )


def traffic_signs() -> Graph:
    """Three pairs of convolutions, each with batch normalization, pooling and dropout."""
    blocks = []
    for filters in (32, 64, 128):
        for _ in range(2):
            blocks += [Conv2D(filters, (3, 3), padding="same", activation="relu"), BatchNormalization()]
        blocks += [MaxPooling2D(), Dropout()]
    return chain((32, 32, 3), *blocks, Flatten(), Dense(128, activation="relu"), Dense(43, activation="softmax"))


def resnet_20() -> Graph:
    """He et al. 2016, section 4.2, n = 3, with the shortcuts of Keras's example."""
    layers = [Layer("images", InputLayer((32, 32, 3)))]

    def add(kind: Kind, *read: str) -> str:
        layers.append(Layer(f"layer_{len(layers)}", kind, read or (layers[-1].name,)))
        return layers[-1].name

    def convolution(filters: int, size: int, stride: int, *read: str) -> str:
        return add(Conv2D(filters, (size, size), (stride, stride), "same"), *read)

    convolution(16, 3, 1)
    add(BatchNormalization())
    before = add(Activation("relu"))
    for stack, filters in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stack and not block else 1
            convolution(filters, 3, stride, before)
            add(BatchNormalization())
            add(Activation("relu"))
            convolution(filters, 3, 1)
            behind = add(BatchNormalization())
            shortcut = convolution(filters, 1, stride, before) if stride == 2 else before
            add(Add(), shortcut, behind)
            before = add(Activation("relu"))
    add(GlobalAveragePooling2D())
    return Graph(layers, add(Dense(10, activation="softmax")))


GRAPHS: dict[str, Callable[[], Graph]] = {"mnist": mnist, "traffic_signs": traffic_signs, "resnet_20": resnet_20}


def random_net(graph: Graph) -> Net:
    """Weights as He et al. 2015 draw them."""
    rng = np.random.default_rng(0)

    def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) == 1:
            return np.full(shape, 1.0 if name in ("gamma", "moving_variance") else 0.0, np.float32)
        return rng.normal(scale=np.sqrt(2 / np.prod(shape[:-1])), size=shape).astype(np.float32)

    return Net(
        graph,
        {
            layer: {name: drawn(name, shape) for name, shape in shapes.items()}
            for layer, shapes in graph.weight_shapes.items()
        },
        "unit",
    )


def rows(size: Size) -> list[Row]:
    return [row for name, graph in GRAPHS.items() for row in _rows_of(name, random_net(graph()), size)]


def _rows_of(name: str, net: Net, size: Size) -> list[Row]:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (size.images, *net.image_shape), dtype=np.uint8)
    images = ArrayImages(pixels, rng.integers(0, net.classes, size.images))
    layer = net.last_convolution
    order = rng.permutation(net.graph.channels(layer))

    def labels() -> np.ndarray:
        return predictions(net, padded(images, batch_size()))[0]

    def whole_curve() -> object:
        return curve(net, padded(images, batch_size()), order, layer)

    found, counted = labels(), whole_curve()
    if keras_peer.name() is None:
        times, curve_times = interleaved(size.repeats, labels, whole_curve)
        peer = f"Keras, {keras_peer.INSTALL}"
        return [
            Row(f"{name}_forward", times, peer, smallest_ratio=1),
            Row(f"{name}_curve", curve_times, peer, smallest_ratio=1),
        ]
    with tempfile.TemporaryDirectory() as folder:
        write_model(net, Path(folder) / "net.h5")
        model = keras_peer.load(Path(folder) / "net.h5")
    batches = [batch for batch in keras_peer.BATCH_SIZES if batch <= len(pixels)]

    def theirs(batch: int) -> np.ndarray:
        return keras_peer.labels(model, pixels, "unit", batch)

    # Random logits lie close to each other: a rounding decides here and there.
    same = all((found == theirs(batch)).mean() > 0.995 for batch in batches)
    same_curve = bool(counted.correct[0] == (found == images.labels).sum())
    times, curve_times, *others = interleaved(
        size.repeats, labels, whole_curve, *(partial(theirs, batch) for batch in batches)
    )
    best = min(range(len(batches)), key=lambda index: median(others[index]))
    peer = f"{keras_peer.name()}, predict, batch {batches[best]}"
    passes = [PASSES * seconds for seconds in others[best]]
    points = f"{len(order) + 1} points; {PASSES} × {peer}; same result: its first point is forward's"
    return [
        Row(f"{name}_forward", times, peer, others[best], same, smallest_ratio=1),
        Row(f"{name}_curve", curve_times, points, passes, same_curve, smallest_ratio=1),
    ]


if __name__ == "__main__":
    sys.exit(main(rows))
