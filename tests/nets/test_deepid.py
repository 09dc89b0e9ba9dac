import jax
import pytest
from helpers import random_net, random_pixels

from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import Graph


def test_shapes_of_all_activations():
    net = random_net()
    found = jax.eval_shape(lambda pixels: net.features(pixels, net.graph.names), random_pixels(3))
    shapes = {layer: array.shape[1:] for layer, array in found.items()}
    assert shapes["pool_3"] == (5, 4, 60)
    assert shapes["conv_4"] == (4, 3, 80)
    assert shapes["fc_1"] == shapes["fc_2"] == (160,)
    assert shapes["output"] == shapes["logits"] == (11,)
    assert {layer: shape for layer, shape in shapes.items() if layer in net.graph} == net.graph.shapes


def test_the_graph_of_the_course():
    graph = deepid()
    assert (graph.image_shape, graph.classes) == ((55, 47, 3), 1283)
    assert sum(len(arrays) for arrays in graph.weight_shapes.values()) == 14
    assert list(graph.weight_shapes) == ["conv_1", "conv_2", "conv_3", "conv_4", "fc_1", "fc_2", "output"]
    assert deepid() is graph


@pytest.mark.parametrize(
    ("convolution", "place"), [("conv_1", "pool_1"), ("conv_2", "pool_2"), ("conv_3", "pool_3"), ("conv_4", "conv_4")]
)
def test_channels_are_masked_behind_the_pool(convolution, place):
    graph: Graph = deepid()
    assert graph.masked_at(convolution) == place
