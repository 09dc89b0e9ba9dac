"""Layers as data: what fits together, what does not, and where channels are masked."""

import pytest

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import LAYERS_LIMIT, Graph, Layer

INPUT = Layer("input", kinds.InputLayer((8, 6, 3)))


def chain(*behind, output=None):
    layers = [INPUT]
    for number, settings in enumerate(behind):
        layers.append(Layer(f"layer_{number}", settings, (layers[-1].name,)))
    return Graph(layers, output or layers[-1].name)


END = (kinds.Flatten(), kinds.Dense(4, activation="softmax"))


def test_shapes_and_arrays_follow():
    graph = chain(
        kinds.Conv2D(6, (3, 2), strides=(2, 1), padding="same", groups=3),
        kinds.BatchNormalization(center=False),
        kinds.UpSampling2D((2, 1)),
        kinds.DepthwiseConv2D((3, 3), 2, use_bias=False),
        kinds.SeparableConv2D(5, (2, 2)),
        kinds.AveragePooling2D((2, 2), (1, 1), "same"),
        kinds.Reshape((-1, 5)),
        *END,
    )
    assert list(graph.shapes.values()) == [
        (8, 6, 3),
        (4, 6, 6),
        (4, 6, 6),
        (8, 6, 6),
        (6, 4, 12),
        (5, 3, 5),
        (5, 3, 5),
        (15, 5),
        (75,),
        (4,),
    ]
    assert graph.weight_shapes["layer_0"] == {"kernel": (3, 2, 1, 6), "bias": (6,)}
    assert list(graph.weight_shapes["layer_1"]) == ["gamma", "moving_mean", "moving_variance"]
    assert graph.weight_shapes["layer_4"]["depthwise_kernel"] == (2, 2, 12, 1)
    assert (graph.image_shape, graph.classes, graph.input) == ((8, 6, 3), 4, "input")
    assert graph.convolutions == ("layer_0", "layer_3", "layer_4")


REFUSED = {
    "a kernel larger than the image": (kinds.Conv2D(2, (9, 1)), "windows of 9×1 do not fit into 8×6"),
    "groups that do not divide": (kinds.Conv2D(4, (1, 1), groups=2), "groups is 2"),
    "a target of another size": (kinds.Reshape((7, 7)), "target_shape"),
    "axes that are not there": (kinds.Permute((1, 2, 4)), "dims"),
    "cropped to nothing": (kinds.Cropping2D(((4, 4), (0, 0))), "gives 0×6×3 numbers"),
    "more than any net": (kinds.UpSampling2D((2**12, 2**12)), "numbers per image"),
    "one input for two": (kinds.Add(), "reads 1 layers, expected two or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layers_that_do_not_fit(case):
    settings, said = REFUSED[case]
    with pytest.raises(InputError, match=said) as error:
        chain(settings, *END)
    assert "'layer_0', a " in str(error.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: kinds.Conv2D(0, (1, 1)), None),
        (lambda: kinds.Conv2D(3, (0, 1)), "kernel_size is"),
        (lambda: kinds.Conv2D(3, (1, 1), padding="causal"), "padding is 'causal', expected valid or same"),
        (lambda: kinds.Dense(3, activation="magic"), "activation is 'magic'"),
        (lambda: kinds.LeakyReLU(float("nan")), "finite"),
        (lambda: kinds.Dense(2**30), "at most"),
        (lambda: kinds.ZeroPadding2D(((-1, 0), (0, 0))), "padding"),
        (lambda: kinds.ReLU(max_value=-1.0), "max_value"),
    ],
)
def test_settings_that_no_layer_has(make, said):
    with pytest.raises(InputError, match=said or ""):
        chain(make(), *END)


def layer(name, *inputs):
    return Layer(name, kinds.Dropout(0.5) if len(inputs) == 1 else kinds.Add(), inputs)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([INPUT, layer("a", "b"), layer("b", "a")], "cycle"),
        ([INPUT, layer("a", "a")], "cycle"),
        ([INPUT, layer("a", "input", "b"), layer("b", "a")], "cycle"),
        ([INPUT, layer("a", "missing")], "'a' reads 'missing', which is not there"),
        ([INPUT, layer("b", "input")], "output 'a' is not there"),
        ([INPUT, layer("a", "input"), layer("a", "input")], "several layers are named 'a'"),
        ([INPUT, layer("a", "input"), layer("b", "input")], r"'b' \(Dropout\) is superfluous"),
        ([layer("a", "a")], "0 inputs"),
        ([INPUT, Layer("c", kinds.InputLayer((1, 1, 1))), layer("a", "input", "c")], "2 inputs"),
        ([Layer("input", kinds.InputLayer((3,))), layer("a", "input")], "rows × columns × channels"),
        ([INPUT, layer("a", "input")], "'a' is 8×6×3, expected one number per class"),
    ],
)
def test_layers_that_are_no_graph(layers, said):
    with pytest.raises(InputError, match=said):
        Graph(layers, "a")


def test_large_graphs_are_read_in_time_and_larger_ones_refused():
    layers = [INPUT, Layer("flat", kinds.Flatten(), ("input",)), Layer("0", kinds.Dense(4), ("flat",))]
    layers += [Layer(str(number), kinds.Dropout(), (str(number - 1),)) for number in range(1, LAYERS_LIMIT - 3)]
    end = layers[-1].name
    graph = Graph(layers[::-1], end)
    assert graph.layers == tuple(layers)
    with pytest.raises(InputError, match="expected at most"):
        Graph(layers * 2, end)


def test_the_order_of_the_layers_is_kept_where_it_can_be():
    graph = deepid(11)
    assert Graph(graph.layers, "output") == graph
    assert hash(Graph(graph.layers, "output")) == hash(graph)
    assert [layer.name for layer in Graph(graph.layers[::-1], "output").layers].index("input") == 0
    assert deepid(12) != graph


@pytest.mark.parametrize(
    ("behind", "where", "classes"),
    [
        ((kinds.Flatten(), kinds.Dense(4, activation="softmax")), "inside", 4),
        ((kinds.Flatten(), kinds.Dense(4), kinds.Activation("softmax")), "behind", 4),
        ((kinds.Flatten(), kinds.Dense(4), kinds.Softmax(), kinds.Dropout()), "behind", 4),
        ((kinds.Flatten(), kinds.Dense(4)), "none", 4),
        ((kinds.Flatten(), kinds.Dense(4, activation="relu")), "none", 4),
        ((kinds.Flatten(), kinds.Dense(1, activation="sigmoid")), "inside", 2),
        ((kinds.Flatten(), kinds.Dense(1), kinds.Activation("sigmoid")), "behind", 2),
        ((kinds.Flatten(), kinds.Dense(1, activation="softmax")), "inside", 1),
        ((kinds.Conv2D(4, (1, 1)), kinds.GlobalAveragePooling2D()), "none", 4),
    ],
)
def test_where_the_last_softmax_is(behind, where, classes):
    graph = chain(*behind)
    assert (graph.head[0], graph.classes) == (where, classes)


def test_a_single_number_is_no_class():
    with pytest.raises(InputError, match="single number without a sigmoid"):
        chain(kinds.Flatten(), kinds.Dense(1))


def test_names_that_stand_for_something_else():
    with pytest.raises(InputError, match="'logits' must not be called so"):
        Graph([INPUT, Layer("logits", kinds.Flatten(), ("input",)), Layer("a", kinds.Dense(2), ("logits",))], "a")
    graph = Graph(
        [
            INPUT,
            Layer("flat", kinds.Flatten(), ("input",)),
            Layer("logits", kinds.Dense(2), ("flat",)),
            Layer("a", kinds.Softmax(), ("logits",)),
        ],
        "a",
    )
    assert graph.names == ("input", "flat", "logits", "a")


def test_where_channels_are_masked():
    graph = chain(kinds.Conv2D(4, (3, 3)), kinds.BatchNormalization(), kinds.ReLU(), kinds.MaxPooling2D(), *END)
    assert graph.behind("layer_0") == ("layer_0", "layer_1", "layer_2", "layer_3")
    assert graph.masked_at("layer_0") == "layer_3"
    assert graph.normalized_behind("layer_0") == ("layer_1",)
    assert graph.readers("layer_0") == ("layer_1",) and graph.readers("layer_5") == ()
    assert graph["layer_0"]["filters"] == 4
    sigmoid = chain(kinds.Conv2D(4, (3, 3)), kinds.Activation("sigmoid"), *END)
    assert sigmoid.masked_at("layer_0") == "layer_0"
    with pytest.raises(InputError, match=r"no layer 'x'.*layer_0"):
        graph["x"]


def test_the_last_convolution_that_all_paths_pass():
    assert deepid(11).last_convolution == "conv_3"
    conv = kinds.Conv2D(3, (3, 3), padding="same")
    residual = Graph(
        [
            INPUT,
            Layer("a", conv, ("input",)),
            Layer("b", conv, ("a",)),
            Layer("c", conv, ("b",)),
            Layer("sum", kinds.Add(), ("a", "c")),
            Layer("pool", kinds.GlobalAveragePooling2D(), ("sum",)),
            Layer("end", kinds.Dense(2), ("pool",)),
        ],
        "end",
    )
    assert residual.last_convolution == "c"
    with pytest.raises(InputError, match="no convolution"):
        _ = chain(*END).last_convolution
