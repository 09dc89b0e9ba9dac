"""Keras's JSON to a graph and back: what other versions write for the same net, and what is refused, by its layer."""

import json
from itertools import pairwise

import numpy as np
import pytest
from nets.helpers_nets import keras, layers

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import LAYERS_LIMIT
from jaxdefend.nets.keras_config import TEXT_LIMIT, read_config, write_config

DEEPID = deepid(11)


def read(config, version=None):
    return read_config(json.dumps(config), version)


def config_with(layer, **settings):
    config = write_config(DEEPID)
    next(each for each in config["config"]["layers"] if each["name"] == layer)["config"].update(settings)
    return config


def with_layer(kind, before="conv_2", **about):
    """A layer between pool_1 and conv_2."""
    config = write_config(DEEPID)
    (reader,) = [layer for layer in config["config"]["layers"] if layer["name"] == before]
    new = {"class_name": kind, "config": {"name": "new"}, "name": "new", "inbound_nodes": reader["inbound_nodes"]}
    config["config"]["layers"].append(new | about)
    reader["inbound_nodes"] = [[["new", 0, 0, {}]]]
    return config


def as_tuples(node):
    """Some versions of Keras 2 write tuples so."""
    if isinstance(node, dict):
        return {key: value if key == "inbound_nodes" else as_tuples(value) for key, value in node.items()}
    if isinstance(node, list) and all(isinstance(value, int | None) for value in node):
        return {"class_name": "__tuple__", "items": node}
    return [as_tuples(value) for value in node] if isinstance(node, list) else node


def in_sequential(config):
    inner = {"class_name": "Functional", "config": config["config"]}
    first = {"class_name": "InputLayer", "config": {"name": "outer", "batch_input_shape": [None, 55, 47, 3]}}
    return {"class_name": "Sequential", "config": {"name": "all", "layers": [first, inner]}}


@pytest.mark.parametrize(
    "config",
    [
        write_config(DEEPID),
        write_config(DEEPID) | {"class_name": "Model"},
        as_tuples(write_config(DEEPID)),
    ],
)
def test_what_other_versions_write_for_the_same_net(config):
    assert read(config).graph == DEEPID


@pytest.mark.parametrize("kind", ["Dropout", "GaussianNoise", "BatchNormalization", "ELU"])
def test_a_layer_in_between_is_another_graph(kind):
    graph = read(with_layer(kind)).graph
    assert graph["new"].kind == kind
    assert graph["conv_2"].inputs == ("new",)


def test_a_model_in_a_model_is_unwrapped():
    found = read(in_sequential(write_config(DEEPID)))
    renamed = [layer.settings for layer in found.graph.layers]
    assert renamed == [layer.settings for layer in DEEPID.layers]
    assert found.graph.input == "outer"
    (_, model) = found.entries
    assert [entry.name for entry in model.inside] == [layer.name for layer in DEEPID.layers]


def test_names_that_stand_for_something_else_are_given_up():
    config = config_with("conv_2", name="logits")
    text = json.dumps(config).replace('[["conv_2", 0, 0, {}]]', '[["logits", 0, 0, {}]]')
    text = text.replace('"name": "conv_2"', '"name": "logits"')
    found = read_config(text)
    assert "logits_1" in found.graph and found.graph["pool_2"].inputs == ("logits_1",)
    assert "logits_1" in [entry.layer for entry in found.entries]


def rewired():
    config = write_config(DEEPID)
    next(layer for layer in config["config"]["layers"] if layer["name"] == "conv_4")["inbound_nodes"] = [
        [["pool_9", 0, 0, {}]]
    ]
    return config


def with_own_class(**about):
    config = write_config(DEEPID)
    config["config"]["layers"][1] |= about
    return config


def shared():
    """conv_4 is applied twice."""
    config = write_config(DEEPID)
    by_name = {layer["name"]: layer for layer in config["config"]["layers"]}
    by_name["fc_1"]["inbound_nodes"] = [[["flatten_1", 0, 0, {}]], [["flatten_1", 0, 0, {}]]]
    by_name["add_1"]["inbound_nodes"] = [[["fc_1", 0, 0, {}], ["fc_1", 1, 0, {}]]]
    config["config"]["layers"] = [by_name[name] for name in by_name if name not in ("conv_4", "flatten_2", "fc_2")]
    return config


def reads_itself():
    config = with_layer("Dropout")
    config["config"]["layers"][-1]["inbound_nodes"] = [[["new", 0, 0, {}]]]
    return config


def cycle():
    config = write_config(DEEPID)
    next(layer for layer in config["config"]["layers"] if layer["name"] == "conv_1")["inbound_nodes"] = [
        [["pool_2", 0, 0, {}]]
    ]
    return config


def goodnet():
    inner = [
        {"class_name": "Functional", "config": write_config(DEEPID)["config"] | {"name": name}, "name": name}
        | {"inbound_nodes": [[["start", 0, 0, {}]]]}
        for name in ("repaired", "bad")
    ]
    start = {"class_name": "InputLayer", "config": {"name": "start", "batch_input_shape": [None, 55, 47, 3]}}
    compare = {"class_name": "Lambda", "config": {"name": "y"}, "name": "y"}
    compare["inbound_nodes"] = [[["repaired", 1, 0, {}], ["bad", 1, 0, {}]]]
    config = {"layers": [start | {"name": "start", "inbound_nodes": []}, *inner, compare]}
    return {"class_name": "Functional", "config": config | {"input_layers": [["start", 0, 0]], "output_layers": []}}


REFUSED = {
    "padding": (config_with("conv_2", padding="causal"), "'conv_2', a Conv2D: padding is 'causal'"),
    "activation": (config_with("conv_3", activation="magic"), "'conv_3', a Conv2D: activation is 'magic'"),
    "code as activation": (
        config_with("conv_3", activation={"class_name": "function", "config": ["4wEAAA", None, None]}),
        "activation is",
    ),
    "a registered activation": (
        config_with("fc_1", activation={"class_name": "function", "config": "relu", "registered_name": "my>relu"}),
        "nothing in a file is run",
    ),
    "strides": (config_with("conv_1", strides=[0, 2]), "'conv_1', a Conv2D: strides is"),
    "a text as number": (config_with("conv_1", filters="20"), "filters is '20', expected a whole number"),
    "a huge number": (config_with("fc_1", units=10**300), "units is a number beyond"),
    "dilation and strides": (config_with("conv_1", dilation_rate=2, strides=2), "strides is"),
    "interpolation": (
        with_layer("UpSampling2D", config={"name": "new", "interpolation": "bilinear"}),
        "'new', an UpSampling2D: interpolation is 'bilinear'",
    ),
    "another kind": (with_layer("TimeDistributed"), "'new', a TimeDistributed: is not of a kind that is known"),
    "code": (with_layer("Lambda"), "'new', a Lambda: its code would have to be run"),
    "an own class": (with_own_class(module="elsewhere", registered_name="Package>Conv2D"), "Package>Conv2D"),
    "a module that is not Keras": (with_own_class(module="elsewhere.layers"), "elsewhere.layers.Conv2D"),
    "an operation": (with_own_class(module="keras.src.ops.numpy"), "keras.src.ops.numpy.Conv2D"),
    "training": (
        with_layer("Dropout", inbound_nodes=[[["pool_1", 0, 0, {"training": True}]]]),
        "'new' is always in training",
    ),
    "quantized": (config_with("fc_1", dtype={"config": {"name": "int8_from_float32"}}), "is quantized"),
    "a layer that is not there": (rewired(), "'pool_9' is read, which is not there"),
    "shared arrays": (shared(), "'fc_1' is used several times"),
    "reads itself": (reads_itself(), "'new' reads what it is read by: the graph has a cycle"),
    "a cycle": (cycle(), "the graph has a cycle"),
    "a whole GoodNet": (goodnet(), "a whole GoodNet: the nets 'repaired' and 'bad', compared by 'y'.*get_layer"),
    "no image size": (config_with("input", batch_input_shape=[None, None, None, 3]), "of one size"),
    "an absurd image size": (config_with("input", batch_input_shape=[None, 10**6, 10**6, 3]), "8,192×8,192"),
    "a rank": (config_with("input", batch_input_shape=[None, 3]), "expected .null, rows, columns, channels."),
    "no layers": ({"class_name": "Sequential", "config": {"layers": []}}, "Sequential without layers"),
    "a list": ({"class_name": "Functional", "config": []}, "without layers"),
    "numbers": ({"class_name": "Functional", "config": {"layers": [7], "output_layers": []}}, "cannot be read"),
    "not an object": ([1], "expected an object with class_name"),
    "a subclassed model": ({"class_name": "GoodNet", "config": {}}, "a 'GoodNet' model, expected a Sequential"),
    "a million layers": (
        {"class_name": "Sequential", "config": {"layers": [0] * 10**6}},
        "1,000,000 layers, expected at most",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named(case):
    config, said = REFUSED[case]
    with pytest.raises(InputError, match=said) as error:
        read(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 60_000,
        "\x00",
        '{"class_name": "Functional", "config": ' * 5_000,
        '{"class_name": "Functional", "config": {"layers": [' + '{"a": [],' * 50_000,
        " " * (TEXT_LIMIT + 1),
        b"\xff\xfe",
        "1" * 10_000,
        '{"class_name": 3, "config": {}}',
        "{}",
        "NaN",
    ],
)
def test_texts_that_hold_no_architecture(text):
    with pytest.raises(InputError, match=r"architecture|expected names|a layer is"):
        read_config(text)


def nested(depth):
    config = {"class_name": "Dense", "config": {"name": "d", "units": 3}}
    for number in range(depth):
        config = {"class_name": "Sequential", "config": {"name": f"s{number}", "layers": [config]}}
    return config


def test_models_in_models_up_to_a_limit():
    with pytest.raises(InputError, match=r"more than 16 deep|shape"):
        read(nested(40))


def test_the_largest_graph_is_read_in_time():
    names = ["input", "flat", *(f"a{number}" for number in range(LAYERS_LIMIT - 2))]
    layers_ = [
        {"class_name": "Flatten" if name == "flat" else "Activation", "config": {"name": name, "activation": "tanh"}}
        | {"name": name, "inbound_nodes": [[[before, 0, 0, {}]]]}
        for before, name in pairwise(names)
    ]
    start = {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": [None, 2, 2, 1]}, "name": "input"}
    config = {"layers": [start, *layers_[::-1]], "input_layers": [["input", 0, 0]]}
    config["output_layers"] = [[names[-1], 0, 0]]
    graph = read({"class_name": "Functional", "config": config}).graph
    assert len(graph.layers) == LAYERS_LIMIT


@pytest.mark.parametrize(("version", "slope"), [("2.7.0", 0.2), ("3.4.1", 1 / 6)])
def test_the_hard_sigmoid_was_another_one_before_keras_3(version, slope):
    graph = read(with_layer("Activation", config={"name": "new", "activation": "hard_sigmoid"}), version).graph
    assert graph["new"].settings == kinds.ReLU(max_value=1.0)
    assert graph[graph["new"].inputs[0]].settings == kinds.Rescaling((slope,), (0.5,))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("swish", "silu"),
        (None, "linear"),
        ({"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "function"}, "relu"),
        ({"class_name": "function", "config": "gelu"}, "gelu"),
    ],
)
def test_activations_under_other_names(activation, expected):
    config = config_with("fc_1", activation=activation)
    if isinstance(activation, dict) and activation.get("registered_name") == "function":
        activation["registered_name"] = "relu"
    assert read(config).graph["fc_1"]["activation"] == expected


def test_a_layer_in_the_place_of_an_activation():
    config = config_with("fc_1", activation={"class_name": "LeakyReLU", "config": {"alpha": 0.25}})
    graph = read(config).graph
    (reader,) = graph.readers("fc_1")
    assert graph[reader].settings == kinds.LeakyReLU(0.25)


def channels_first_model():
    keras.utils.clear_session()
    first = {"data_format": "channels_first"}
    start = keras.Input((3, 9, 8))
    x = layers.Conv2D(4, 3, activation="relu", **first)(start)
    x = layers.BatchNormalization(axis=1)(x)
    side = layers.Conv2D(2, 3, padding="same", **first)(x)
    x = layers.Concatenate(axis=1)([x, side])
    x = layers.MaxPooling2D(**first)(x)
    return keras.Model(start, layers.Dense(5)(layers.Flatten(**first)(x)))


def test_channels_first_becomes_channels_last():
    keras.utils.clear_session()
    found = read_config(channels_first_model().to_json())
    graph = found.graph
    assert graph.image_shape == (9, 8, 3)
    assert "channels stand first" in found.notes[0]
    assert [layer.kind for layer in graph.layers] == [
        "InputLayer",
        "Conv2D",
        "BatchNormalization",
        "Conv2D",
        "Concatenate",
        "MaxPooling2D",
        "Flatten",
        "Dense",
    ]
    assert graph.shapes[graph.layers[4].name] == (7, 6, 6)


def test_a_flatten_that_keeps_the_channels_first():
    config = json.loads(channels_first_model().to_json())
    flatten = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Flatten")
    flatten["config"]["data_format"] = "channels_last"
    graph = read(config).graph
    (before,) = graph[flatten["config"]["name"]].inputs
    assert graph[before].settings == kinds.Permute((3, 1, 2))


def test_a_graph_comes_back_as_it_went_out():
    graph = read_config(channels_first_model().to_json()).graph
    assert read(write_config(graph)).graph == graph
    assert np.prod(graph.shapes[graph.output]) == 5
