"""What the channels of a convolution add to their readers, on graphs of many forms."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_net

from jaxdefend.nets import channels, kinds
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import Graph, Layer

SHAPE = (11, 9, 2)


def chain(*behind, first=None):
    """A convolution, and behind it one layer after another."""
    layers = [Layer("images", kinds.InputLayer(SHAPE)), Layer("conv", first or kinds.Conv2D(5, (3, 3)), ("images",))]
    for number, settings in enumerate(behind):
        layers.append(Layer(f"layer_{number}", settings, (layers[-1].name,)))
    return Graph(layers, layers[-1].name)


ANSWER = kinds.Dense(4, activation="softmax")
FLAT = (kinds.Flatten(), ANSWER)
GRAPHS = {
    "dense": chain(kinds.Activation("relu"), *FLAT),
    "pooled": chain(kinds.ReLU(), kinds.AveragePooling2D(), kinds.Dropout(), *FLAT),
    "global": chain(kinds.Activation("tanh"), kinds.GlobalAveragePooling2D(), kinds.Dropout(), ANSWER),
    "padded": chain(kinds.ReLU(), kinds.ZeroPadding2D(), kinds.Conv2D(3, (2, 2), activation="relu"), *FLAT),
    "strided": chain(kinds.ReLU(), kinds.Conv2D(3, (3, 3), (2, 2), "same", use_bias=False), kinds.ReLU(), *FLAT),
    "dilated": chain(kinds.ReLU(), kinds.Conv2D(3, (2, 2), dilation_rate=(2, 2)), kinds.BatchNormalization(), *FLAT),
    "normalized": chain(kinds.BatchNormalization(), kinds.ReLU(), kinds.MaxPooling2D(), *FLAT),
    "cropped": chain(kinds.ReLU(), kinds.UpSampling2D(), kinds.Cropping2D(((1, 2), (0, 1))), *FLAT),
    "forked": Graph(
        (
            Layer("images", kinds.InputLayer(SHAPE)),
            Layer("beside", kinds.Conv2D(5, (3, 3), activation="relu"), ("images",)),
            Layer("conv", kinds.Conv2D(5, (3, 3), activation="relu", padding="same"), ("beside",)),
            Layer("flat", kinds.Flatten(), ("conv",)),
            Layer("other", kinds.GlobalAveragePooling2D(), ("beside",)),
            Layer("hidden", kinds.Dense(5, activation="relu"), ("flat",)),
            Layer("sum", kinds.Add(), ("hidden", "other")),
            Layer("answer", ANSWER, ("sum",)),
        ),
        "answer",
    ),
    "deepid": deepid(11),
}
NONLINEAR = {
    "global maximum": chain(kinds.ReLU(), kinds.GlobalMaxPooling2D(), ANSWER),
    "a normalization of all channels": chain(kinds.ReLU(), kinds.LayerNormalization(), *FLAT),
}


def parts(graph):
    """A net, the activations of three images where a convolution's channels are masked, and what is beside them."""
    net = random_net(graph=graph)
    place = graph.masked_at("conv" if "conv" in graph else graph.last_convolution)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *graph.image_shape), dtype=np.uint8)
    known = net.features(pixels, (place, *channels.beside(graph, place)))
    return net, place, known


@pytest.mark.parametrize("name", GRAPHS)
def test_the_shares_of_all_channels_add_up(name):
    net, place, known = parts(GRAPHS[name])
    activations = known.pop(place)
    readers = channels.linear_readers(net.graph, place)
    assert readers
    sums = {reader.layer: channels.sums_of_nothing(net, reader, 3) for reader in readers}
    for reader in readers:
        of_one_image = np.asarray(channels.shares_of_all(net, reader, activations[1]))
        for channel in range(activations.shape[-1]):
            share = channels.share_of(net, reader, activations[..., channel], jnp.int32(channel))
            np.testing.assert_allclose(share[1], of_one_image[channel], rtol=1e-4, atol=1e-4)
            sums[reader.layer] += share
    expected = net.logits({place: activations} | known)
    np.testing.assert_allclose(channels.logits_of_sums(net, sums, known), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", [*GRAPHS, *NONLINEAR])
def test_masked_logits_are_those_of_masked_activations(name):
    net, place, known = parts((GRAPHS | NONLINEAR)[name])
    activations = known.pop(place)
    masks = np.random.default_rng(1).integers(0, 2, (6, activations.shape[-1])).astype(np.float32)
    others = {layer: values[2] for layer, values in known.items()}
    found = channels.masked_logits(net, place, activations[2], others, jnp.asarray(masks))
    for mask, logits in zip(masks, found, strict=True):
        expected = net.logits({place: activations * mask} | known)[2]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", NONLINEAR)
def test_what_is_not_linear_has_no_linear_readers(name):
    graph = NONLINEAR[name]
    assert channels.linear_readers(graph, graph.masked_at("conv")) is None
    assert not channels.is_cheap(graph, graph.masked_at("conv"))


def test_the_rest_of_a_net_needs_what_stands_beside():
    graph = GRAPHS["forked"]
    assert channels.beside(graph, "conv") == ("other",)
    assert channels.behind(graph, ("conv",)) == {"flat", "hidden", "sum", "answer"}
    assert not channels.is_cheap(GRAPHS["deepid"], "pool_2") and channels.is_cheap(GRAPHS["deepid"], "pool_3")
