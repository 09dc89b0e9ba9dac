"""A net of any graph: what it computes is what Keras computes; what can be known, masked and pruned."""

import jax
import jax.numpy as jnp
import nets.helpers_nets as by_keras
import numpy as np
import pytest
from checked import unchecked
from helpers import random_net, random_pixels, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_net

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.keras_files import read_model, write_model
from jaxdefend.nets.net import Net, Source

DEEPID = deepid(11)


def images(net, n=3, seed=0):
    return jnp.asarray(random_pixels(n, seed), jnp.float32) / 255


def same_as_keras(model, path, reload=True):
    """Our logits of the model's file are Keras's; what we write is, bit by bit, what we read, and Keras reads it."""
    model.save(path)
    net = read_model(path).net.with_input_scale("unit")
    pixels = by_keras.pixels_for(model)
    expected = by_keras.keras_logits(model, pixels.astype("float32") / 255)
    found = np.asarray(net(pixels))
    if net.graph.is_binary:
        assert not found[:, 0].any()
        expected = np.concatenate([np.zeros_like(expected), expected], axis=1)
    by_keras.assert_close(found, expected)
    written = path.with_name("written.h5")
    write_model(net, written)
    again = read_model(written).net
    assert again.graph == net.graph
    for one, other in zip(jax.tree.leaves(net), jax.tree.leaves(again), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    if not reload:
        return
    loaded = by_keras.keras.models.load_model(written, compile=False)
    inputs = pixels / np.float32(255)
    np.testing.assert_allclose(loaded(inputs), model(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("kind", list(kinds.KINDS))
def test_every_kind_computes_what_keras_computes(kind, suffix, tmp_path):
    if suffix == ".keras" and kind not in ("Conv2D", "SeparableConv2D", "BatchNormalization", "Normalization"):
        pytest.skip("its arrays are kept like those of another kind")
    same_as_keras(by_keras.model_with(kind), tmp_path / f"net{suffix}", reload=False)


def test_a_layer_normalization_over_several_axes(tmp_path):
    layers = by_keras.layers
    start = by_keras.keras.Input((5, 6, 3))
    x = layers.Dense(4)(layers.Flatten()(layers.LayerNormalization(axis=[1, 3])(start)))
    same_as_keras(by_keras.filled(by_keras.keras.Model(start, x)), tmp_path / "net.keras", reload=False)


@pytest.mark.slow
@settings(max_examples=60, **by_keras.UNHURRIED)
@given(model=by_keras.keras_models(), suffix=st.sampled_from([".h5", ".keras"]))
def test_random_graphs_compute_what_keras_computes(model, suffix, tmp_path):
    same_as_keras(model, tmp_path / f"net{suffix}")


@settings(max_examples=5, derandomize=True, **by_keras.UNHURRIED)
@given(model=by_keras.keras_models())
def test_a_few_graphs_compute_what_keras_computes(model, tmp_path):
    same_as_keras(model, tmp_path / "net.h5")


@pytest.mark.parametrize("seed", range(3))
def test_keras_reads_a_graph_whose_layers_were_given_in_any_order(seed, tmp_path):
    """It takes the arrays by the order of the layers, and sorts these by itself."""
    conv = kinds.Conv2D(4, (3, 3), padding="same")
    layers = [
        Layer("input", kinds.InputLayer((8, 8, 3))),
        Layer("a", conv, ("input",)),
        Layer("b", conv, ("a",)),
        Layer("b_norm", kinds.BatchNormalization(), ("b",)),
        Layer("c", conv, ("b_norm",)),
        Layer("c_norm", kinds.BatchNormalization(), ("c",)),
        Layer("shortcut", kinds.Conv2D(4, (1, 1)), ("a",)),
        Layer("sum", kinds.Add(), ("shortcut", "c_norm")),
        Layer("pool", kinds.GlobalAveragePooling2D(), ("sum",)),
        Layer("end", kinds.Dense(3, activation="softmax"), ("pool",)),
    ]
    order = np.random.default_rng(seed).permutation(len(layers)) if seed else range(len(layers))
    net = sound_net(Graph(tuple(layers[number] for number in order), "end"))
    write_model(net, tmp_path / "net.h5")
    assert read_model(tmp_path / "net.h5").net.graph == net.graph
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    model = by_keras.keras.models.load_model(tmp_path / "net.h5", compile=False)
    by_keras.assert_close(net(pixels), by_keras.keras_logits(model, pixels.astype("float32") / 255))


@pytest.fixture(scope="module")
def every():
    """Activations of all layers."""
    net = random_net()
    return jax.jit(lambda net, x: net.activations({"input": x}, net.graph.names))(net, images(net))


@pytest.mark.parametrize("cut", [layer for layer in DEEPID.names if layer not in ("input", "logits", "output")])
def test_the_rest_of_the_net_runs_from_every_layer(cut, every):
    # Behind the fork the other branch is needed too.
    other = {"conv_4": "fc_1", "flatten_2": "fc_1", "fc_2": "fc_1", "flatten_1": "fc_2", "fc_1": "fc_2"}
    known = {layer: every[layer] for layer in (cut, other.get(cut, cut))}
    np.testing.assert_allclose(random_net().logits(known), every["logits"], atol=1e-4)


def test_one_branch_alone_does_not_determine_the_logits():
    net = random_net()
    conv_4 = net.activations({"input": images(net)}, ["conv_4"])
    with pytest.raises(InputError, match="conv_4 alone"):
        net.logits(conv_4)


def test_an_unknown_layer_is_named():
    with pytest.raises(InputError, match=r"conv_5.*conv_4"):
        random_net().activations({}, ["conv_5"])


def test_the_input_goes_by_its_own_name_too():
    graph = Graph(
        (
            Layer("photo", kinds.InputLayer((4, 4, 1))),
            Layer("flat", kinds.Flatten(), ("photo",)),
            Layer("answer", kinds.Dense(2), ("flat",)),
        ),
        "answer",
    )
    net = random_net(graph=graph)
    x = np.ones((1, 4, 4, 1), np.float32)
    found = net.activations({"input": x}, ["photo", "answer", "logits"])
    np.testing.assert_array_equal(found["photo"], x)
    np.testing.assert_array_equal(found["logits"], net.activations({"photo": x}, ["answer"])["answer"])


def test_both_forms_of_the_convolution_agree():
    """The one under a derivative, forward or backward, and the other."""
    net, pixels = random_net(), random_pixels(5).astype(np.float32)
    layers = ("conv_1", "pool_1", "pool_2", "pool_3", "conv_4", "logits")
    plain = net.features(pixels, layers)
    forward, _ = jax.jvp(lambda pixels: net.features(pixels, layers), (pixels,), (pixels,))
    backward, _ = jax.vjp(lambda pixels: net.features(pixels, layers), pixels)
    for layer in layers:
        np.testing.assert_allclose(plain[layer], forward[layer], atol=1e-4, err_msg=layer)
        np.testing.assert_allclose(plain[layer], backward[layer], atol=1e-4, err_msg=layer)


@given(layer=st.sampled_from(DEEPID.convolutions), data=st.data())
@settings(max_examples=12, deadline=None)
def test_zeroing_a_channel_is_masking_its_pooled_output(layer, data):
    net = random_net()
    pooled = net.graph.masked_at(layer)
    known = net.activations({"input": images(net)}, [pooled, "fc_1"] if layer == "conv_4" else [pooled])
    channels = data.draw(st.lists(st.integers(0, known[pooled].shape[-1] - 1), unique=True))
    zeroed = net.pruned(layer, channels)
    masked = known | {pooled: known[pooled].at[..., np.array(channels, int)].set(0)}
    np.testing.assert_allclose(zeroed.logits({"input": images(net)}), net.logits(masked), atol=1e-4)


CHAINS = {
    "nothing": (),
    "relu": (kinds.Activation("relu"),),
    "normalized": (kinds.BatchNormalization(), kinds.ReLU()),
    "normalized behind": (kinds.ReLU(), kinds.BatchNormalization(), kinds.MaxPooling2D()),
    "without gamma": (kinds.BatchNormalization(scale=False), kinds.Activation("tanh")),
    "without beta": (kinds.LeakyReLU(), kinds.BatchNormalization(center=False), kinds.AveragePooling2D()),
    "dropout": (kinds.ELU(), kinds.SpatialDropout2D(0.2), kinds.MaxPooling2D(padding="same")),
    "sigmoid": (kinds.Activation("sigmoid"),),
    "layer normalization": (kinds.LayerNormalization(),),
}
CONVOLUTIONS = {
    "Conv2D": kinds.Conv2D(6, (3, 3), activation="relu"),
    "no bias": kinds.Conv2D(6, (3, 3), padding="same", use_bias=False),
    "DepthwiseConv2D": kinds.DepthwiseConv2D((2, 2), 2),
    "SeparableConv2D": kinds.SeparableConv2D(5, (2, 2), activation="gelu"),
}


def chain(convolution, behind):
    layers = [Layer("input", kinds.InputLayer((9, 8, 3))), Layer("conv", convolution, ("input",))]
    for number, settings_ in enumerate((*behind, kinds.Flatten(), kinds.Dense(4, activation="softmax"))):
        layers.append(Layer(f"layer_{number}", settings_, (layers[-1].name,)))
    return Graph(tuple(layers), layers[-1].name)


def sound_net(graph, seed=0):
    """Random, with variances above zero."""
    weights = random_weights(seed, graph=graph)
    for arrays in weights.values():
        for name in arrays.keys() & {"moving_variance", "variance"}:
            arrays[name] = np.abs(arrays[name]) + 0.5
    return Net(graph, weights, "unit")


@pytest.mark.parametrize("behind", CHAINS)
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_zeroing_a_channel_is_masking_it_behind_what_normalizes_it(convolution, behind):
    net = sound_net(chain(CONVOLUTIONS[convolution], CHAINS[behind]))
    place = net.graph.masked_at("conv")
    x = np.random.default_rng(0).uniform(size=(2, 9, 8, 3)).astype(np.float32)
    activations = net.activations({"input": x}, [place])[place]
    masked = net.logits({place: activations.at[..., np.array([1, 3])].set(0)})
    np.testing.assert_allclose(net.pruned("conv", [1, 3]).logits({"input": x}), masked, atol=1e-4)


def test_a_channel_whose_activation_does_not_keep_zero_is_refused_by_name():
    net = sound_net(chain(kinds.Conv2D(3, (2, 2), activation="sigmoid"), ()))
    with pytest.raises(InputError, match="'conv': its activation sigmoid"):
        net.pruned("conv", [0])
    with pytest.raises(InputError, match="no convolution whose channels"):
        _ = net.last_convolution


def test_channels_that_are_not_there():
    with pytest.raises(InputError, match=r"channels 0…59, got \[60\]"):
        random_net().pruned("conv_3", [3, 60])
    with pytest.raises(InputError, match=r"no convolution 'fc_1'.*conv_4"):
        random_net().pruned("fc_1", [0])


def test_what_is_known_before_an_activation_function(every):
    net = random_net()
    before = net.activations({"input": images(net)}, ["activation_1"])["activation_1"]
    kernel, bias = net.kernel_and_bias("output")
    found = net.given("output", before @ kernel + bias)
    np.testing.assert_allclose(found["logits"], every["logits"], atol=1e-4)
    assert net.given("conv_4", -jnp.ones((1, 4, 3, 80)))["conv_4"].max() == 0
    np.testing.assert_allclose(net.applied("add_1", every["fc_1"], every["fc_2"]), every["add_1"])


def test_an_unknown_input_scale_is_an_error_not_a_guess():
    with pytest.raises(InputError, match="input scale"):
        random_net(input_scale=None).features(random_pixels(1), ("logits",))


def test_the_scale_is_part_of_the_net():
    net = random_net(input_scale="raw")
    unit = net.with_input_scale("unit")
    pixels = random_pixels(2)
    raw = net.features(pixels, ("conv_1",))["conv_1"]
    by_hand = net.activations({"input": jnp.asarray(pixels, "float32")}, ["conv_1"])["conv_1"]
    np.testing.assert_allclose(raw, by_hand, rtol=1e-5)
    assert not np.allclose(raw, unit.features(pixels, ("conv_1",))["conv_1"])


def test_weights_come_back_as_they_went_in():
    weights = random_weights(classes=5)
    back = Net(deepid(5), weights).weights
    assert all(np.array_equal(weights[layer][name], back[layer][name]) for layer in weights for name in weights[layer])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.pop("conv_2"), "missing conv_2, superfluous none"),
        (lambda weights: weights.update(conv_5=weights["conv_4"]), "superfluous conv_5"),
        (lambda weights: weights.update(conv_3=weights["conv_2"]), "conv_3/kernel is"),
        (lambda weights: weights["conv_3"].pop("bias"), r"conv_3 has \['kernel'\]"),
    ],
)
def test_weights_of_another_graph_are_refused(change, said):
    weights = random_weights()
    change(weights)
    with pytest.raises(InputError, match=said):
        Net(deepid(11), weights)


def test_a_net_is_a_tree_of_its_arrays():
    net = Net(DEEPID, random_weights(), "raw", Source("a.h5", "0"))
    doubled = jax.tree.map(lambda array: 2 * array, net)
    assert isinstance(doubled, Net)
    assert (doubled.graph, doubled.input_scale, doubled.source, doubled.name) == (DEEPID, "raw", None, "net")
    np.testing.assert_array_equal(doubled.weights["fc_1"]["bias"], 2 * net.weights["fc_1"]["bias"])
    layers = [path[-2].key for path, _ in jax.tree_util.tree_leaves_with_path(net)]
    assert layers == sorted(layers)


def test_equal_graphs_compile_once():
    traced = []

    @jax.jit
    def first(net):
        traced.append(1)
        return net.weights["conv_1"]["bias"][0]

    other = Graph(DEEPID.layers, DEEPID.output)
    assert other == DEEPID and other is not DEEPID
    for graph in (DEEPID, other):
        first(Net(graph, random_weights(), "unit"))
    assert len(traced) == 1
    first(Net(DEEPID, random_weights(), "raw"))
    assert len(traced) == 2


def test_logits_of_whatever_holds_images():
    net, pixels = random_net(), random_pixels(5)
    expected = net.features(pixels, ("logits",))["logits"]
    np.testing.assert_allclose(net(pixels), expected, atol=1e-4)
    np.testing.assert_allclose(net((pixels, np.zeros(5, int))), expected, atol=1e-4)
    np.testing.assert_allclose(net(pixels[0]), expected[:1], atol=1e-4)
    assert isinstance(net(pixels), np.ndarray)


def test_what_a_net_says_of_itself():
    net = random_net(classes=7)
    assert (net.image_shape, net.classes, net.convolutions) == (
        (55, 47, 3),
        7,
        ("conv_1", "conv_2", "conv_3", "conv_4"),
    )
    assert net.last_convolution == "conv_3"
    assert str(net) == repr(net)
    assert "55×47×3, 7 classes, input scale unit" in repr(net)


@pytest.mark.parametrize("channels", [np.array([True, False, True, False, True, False]), [1.0], [0.5]])
def test_channels_to_prune_are_whole_numbers(channels):
    with pytest.raises(InputError, match=r"channels of last as .*: expected whole numbers, 0…5"):
        unchecked(Net.pruned)(small_net(), "last", channels)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_channels_first_computes_what_keras_computes(tmp_path, suffix):
    """Keras on jax can run it on a CPU too."""
    keras, layers = by_keras.keras, by_keras.layers
    keras.utils.clear_session()
    first = {"data_format": "channels_first"}
    start = keras.Input((3, 14, 12))
    x = layers.Conv2D(6, 3, activation="relu", **first)(start)
    x = layers.MaxPooling2D(**first)(layers.BatchNormalization(axis=1)(x))
    x = layers.Add()([layers.DepthwiseConv2D(3, padding="same", **first)(x), layers.Conv2D(6, 1, **first)(x)])
    x = layers.ZeroPadding2D(1, **first)(x)
    x = layers.Concatenate(axis=1)([x, layers.SeparableConv2D(4, 3, padding="same", **first)(x)])
    x = layers.Flatten()(layers.AveragePooling2D(2, **first)(x))
    model = by_keras.filled(keras.Model(start, layers.Dense(5)(x)))
    model.save(tmp_path / f"model{suffix}")
    net = read_model(tmp_path / f"model{suffix}").net.with_input_scale("unit")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 14, 12, 3), dtype=np.uint8)
    by_keras.assert_close(net(pixels), by_keras.keras_logits(model, np.moveaxis(pixels / np.float32(255), -1, 1)))
