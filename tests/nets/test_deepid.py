import jax
import numpy as np
import pytest
from helpers import random_net, random_pixels, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend import InputError
from jaxdefend.nets import deepid


def images(net, n=3, seed=0):
    return deepid.scaled(jax.numpy.asarray(random_pixels(n, seed)), net.input_scale)


@pytest.fixture(scope="module")
def every():
    """Activations of all layers."""
    return jax.jit(lambda net, x: deepid.activations(net, {"input": x}, deepid.LAYERS))(
        random_net(), images(random_net())
    )


@pytest.mark.parametrize("cut", [layer for layer in deepid.LAYERS if layer not in ("input", "logits", "output")])
def test_the_rest_of_the_net_runs_from_every_layer(cut, every):
    # Behind the fork the other branch is needed too.
    other = {"conv_4": "fc_1", "flatten_2": "fc_1", "fc_2": "fc_1", "flatten_1": "fc_2", "fc_1": "fc_2"}
    known = {layer: every[layer] for layer in (cut, other.get(cut, cut))}
    np.testing.assert_allclose(deepid.logits(random_net(), known), every["logits"], atol=1e-4)


def test_shapes_of_all_activations(every):
    shapes = {layer: array.shape[1:] for layer, array in every.items()}
    assert shapes["pool_3"] == (5, 4, 60)
    assert shapes["conv_4"] == (4, 3, 80)
    assert shapes["fc_1"] == shapes["fc_2"] == (160,)
    assert shapes["output"] == (11,)


def test_one_branch_alone_does_not_determine_the_logits():
    net = random_net()
    conv_4 = deepid.activations(net, {"input": images(net)}, ["conv_4"])
    with pytest.raises(InputError, match="conv_4 alone"):
        deepid.logits(net, conv_4)


def test_an_unknown_layer_is_named():
    with pytest.raises(InputError, match="conv_5"):
        deepid.activations(random_net(), {}, ["conv_5"])


def test_both_forms_of_the_convolution_agree():
    """The one under a derivative, forward or backward, and the other."""
    net, pixels = random_net(), random_pixels(5).astype(np.float32)
    layers = ("conv_1", "pool_1", "pool_2", "pool_3", "conv_4", "logits")
    plain = deepid.features(net, pixels, layers)
    forward, _ = jax.jvp(lambda pixels: deepid.features(net, pixels, layers), (pixels,), (pixels,))
    backward, _ = jax.vjp(lambda pixels: deepid.features(net, pixels, layers), pixels)
    for layer in layers:
        np.testing.assert_allclose(plain[layer], forward[layer], atol=1e-4, err_msg=layer)
        np.testing.assert_allclose(plain[layer], backward[layer], atol=1e-4, err_msg=layer)


@given(layer=st.sampled_from(deepid.CONVOLUTIONS), data=st.data())
@settings(max_examples=12, deadline=None)
def test_zeroing_a_channel_is_masking_its_pooled_output(layer, data):
    net = random_net()
    pooled = deepid.POOLED[layer]
    known = deepid.activations(net, {"input": images(net)}, [pooled, "fc_1"] if layer == "conv_4" else [pooled])
    channels = data.draw(st.lists(st.integers(0, known[pooled].shape[-1] - 1), unique=True))
    zeroed = deepid.with_channels_zeroed(net, layer, channels)
    masked = known | {pooled: known[pooled].at[..., np.array(channels, int)].set(0)}
    np.testing.assert_allclose(deepid.logits(zeroed, {"input": images(net)}), deepid.logits(net, masked), atol=1e-4)


def test_an_unknown_input_scale_is_an_error_not_a_guess():
    with pytest.raises(InputError, match="input scale"):
        deepid.features(random_net(input_scale=None), random_pixels(1), ("logits",))


def test_the_scale_is_part_of_the_net():
    net = random_net(input_scale="raw")
    unit = deepid.with_input_scale(net, "unit")
    pixels = random_pixels(2)
    raw_logits = deepid.features(net, pixels, ("conv_1",))["conv_1"]
    by_hand = deepid.activations(net, {"input": jax.numpy.asarray(pixels, "float32")}, ["conv_1"])["conv_1"]
    np.testing.assert_allclose(raw_logits, by_hand, rtol=1e-5)
    assert not np.allclose(raw_logits, deepid.features(unit, pixels, ("conv_1",))["conv_1"])


def test_weights_come_back_as_they_went_in():
    weights = random_weights(classes=5)
    back = deepid.to_weights(deepid.from_weights(weights))
    assert all(np.array_equal(weights[layer][name], back[layer][name]) for layer in weights for name in weights[layer])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.pop("conv_2"), "conv_2"),
        (lambda weights: weights.update(conv_5=weights["conv_4"]), "conv_5"),
        (lambda weights: weights.update(conv_3=weights["conv_2"]), "conv_3/kernel is"),
    ],
)
def test_weights_that_are_no_deepid_are_refused(change, said):
    weights = random_weights()
    change(weights)
    with pytest.raises(InputError, match=said):
        deepid.from_weights(weights)
