"""DeepID (Sun, Wang & Tang 2014, in the form of the CSAW HackML 2020 nets): the graph of the course's nets."""

from functools import lru_cache

from jaxdefend.nets import kinds
from jaxdefend.nets.graph import Graph, Layer

IMAGE_SHAPE = (55, 47, 3)
CLASSES = 1283


@lru_cache
def deepid(classes: int = CLASSES) -> Graph:
    """input → conv_1 → pool_1 → conv_2 → pool_2 → conv_3 → pool_3, from there fc_1 on one side and conv_4 → fc_2 on
    the other; activation_1 = relu(fc_1 + fc_2) → output. Layers carry their Keras names."""

    def convolution(filters: int, size: int) -> kinds.Conv2D:
        return kinds.Conv2D(filters, (size, size), activation="relu")

    return Graph(
        (
            Layer("input", kinds.InputLayer(IMAGE_SHAPE)),
            Layer("conv_1", convolution(20, 4), ("input",)),
            Layer("pool_1", kinds.MaxPooling2D(), ("conv_1",)),
            Layer("conv_2", convolution(40, 3), ("pool_1",)),
            Layer("pool_2", kinds.MaxPooling2D(), ("conv_2",)),
            Layer("conv_3", convolution(60, 3), ("pool_2",)),
            Layer("pool_3", kinds.MaxPooling2D(), ("conv_3",)),
            Layer("conv_4", convolution(80, 2), ("pool_3",)),
            Layer("flatten_1", kinds.Flatten(), ("pool_3",)),
            Layer("flatten_2", kinds.Flatten(), ("conv_4",)),
            Layer("fc_1", kinds.Dense(160), ("flatten_1",)),
            Layer("fc_2", kinds.Dense(160), ("flatten_2",)),
            Layer("add_1", kinds.Add(), ("fc_1", "fc_2")),
            Layer("activation_1", kinds.Activation("relu"), ("add_1",)),
            Layer("output", kinds.Dense(classes, activation="softmax"), ("activation_1",)),
        ),
        "output",
    )
