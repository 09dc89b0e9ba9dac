"""A net that compiles fast, and images for it, where DeepID is not what is tested."""

import numpy as np
from helpers import random_net

from jaxdefend.detectors import DETECTORS, Detector
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.kinds import Conv2D, Dense, Flatten, InputLayer, MaxPooling2D
from jaxdefend.nets.net import Net

SHAPE, CLASSES, CHANNELS = (12, 10, 3), 5, 6

GRAPH = Graph(
    (
        Layer("images", InputLayer(SHAPE)),
        Layer("first", Conv2D(4, (3, 3), activation="relu"), ("images",)),
        Layer("last", Conv2D(CHANNELS, (3, 3), activation="relu"), ("first",)),
        Layer("pooled", MaxPooling2D(), ("last",)),
        Layer("flat", Flatten(), ("pooled",)),
        Layer("answer", Dense(CLASSES, activation="softmax"), ("flat",)),
    ),
    "answer",
)


def small_net(seed: int = 0) -> Net:
    return random_net(seed, graph=GRAPH)


def small_pixels(n: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


def small_images(n: int = 24, seed: int = 0, net_seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels with what the small net says of them, so that it recognises all; every eighth has another label."""
    pixels = small_pixels(n, seed)
    labels = small_net(net_seed)(pixels).argmax(axis=1).astype(np.int32)
    labels[::8] = (labels[::8] + 1) % CLASSES
    return pixels, labels


def zero_channels(net: Net, layer: str = "last") -> set[int]:
    """The channels of a convolution whose kernel and bias are zero."""
    arrays = net.weights[layer]
    return set(np.flatnonzero(~arrays["kernel"].any(axis=(0, 1, 2)) & (arrays["bias"] == 0)).tolist())


def small_detector(name: str) -> Detector:
    """Six masks, five overlays."""
    small = {"masks": 6, "overlays": 5}
    return DETECTORS[name](**{key: small[key] for key in DETECTORS[name]().record() if key in small})
