"""Nets that overflow float32 are refused when they are read, whatever their layers; large finite ones are not."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets.helpers_nets import UNHURRIED, keras_models
from small import small_net

from jaxdefend import InputError
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.keras_files import write_model
from jaxdefend.nets.kinds import Add, BatchNormalization, Conv2D, Dense, Flatten, InputLayer, LayerNormalization
from jaxdefend.nets.loading import load_net
from jaxdefend.nets.overflow import require_finite, typical_activation
from jaxdefend.nets.training import new_net


def scaled_up(**factors):
    net = small_net()
    kernels = {layer: net.weights[layer]["kernel"] * np.float32(factor) for layer, factor in factors.items()}
    return net.with_weights(net.weights | {layer: net.weights[layer] | {"kernel": kernels[layer]} for layer in kernels})


@pytest.mark.parametrize("factors", [{"first": 1e25, "last": 1e25}, {"last": 1e30, "answer": 1e12}])
def test_a_net_that_overflows_is_refused(tmp_path, factors):
    write_model(scaled_up(**factors), tmp_path / "net.h5")
    with pytest.raises(InputError, match=r"net\.h5: .* overflow .* (last|answer) gives what is not a number"):
        load_net(tmp_path / "net.h5")


@pytest.mark.parametrize("factors", [{"first": 1e25}, {"last": 1e33}, {"first": 1e20, "answer": 1e-20}])
def test_large_weights_that_do_not_overflow_are_read(tmp_path, factors):
    write_model(scaled_up(**factors), tmp_path / "net.h5")
    net = load_net(tmp_path / "net.h5", input_scale="unit")
    assert np.isfinite(net(np.full((1, *net.image_shape), 255, np.uint8))).all()


def test_a_layer_that_reads_another_twice():
    """Beside a second reader, which needs it still."""
    layers = (
        Layer("images", InputLayer((4, 4, 3))),
        Layer("conv", Conv2D(3, (1, 1)), ("images",)),
        Layer("twice", Add(), ("conv", "conv")),
        Layer("all", Add(), ("conv", "twice")),
        Layer("flat", Flatten(), ("all",)),
        Layer("answer", Dense(2), ("flat",)),
    )
    net = new_net(Graph(layers, "answer"), "unit", jax.random.key(0))
    large = {"kernel": 1e26 * np.ones((1, 1, 3, 3), np.float32)}
    require_finite(net.with_weights(net.weights | {"conv": net.weights["conv"] | large}))


def test_deep_sound_nets_are_not_suspicious():
    blocks = [Layer("images", InputLayer((8, 8, 3)))]
    for k in range(60):
        blocks += [
            Layer(f"conv_{k}", Conv2D(16, (3, 3), padding="same", activation="relu"), (blocks[-1].name,)),
            Layer(f"norm_{k}", (LayerNormalization, BatchNormalization)[k % 2](), (f"conv_{k}",)),
        ]
    layers = (*blocks, Layer("flat", Flatten(), (blocks[-1].name,)), Layer("answer", Dense(4), ("flat",)))
    net = new_net(Graph(layers, "answer"), "unit", jax.random.key(0))
    assert typical_activation(net) < 1e4


@pytest.mark.slow
@settings(max_examples=30, **UNHURRIED)
@given(model=keras_models(), factor=st.sampled_from([1, 1e10, 1e20, 1e30]))
def test_nets_to_which_keras_has_no_answer_are_refused(tmp_path_factory, model, factor):
    for variable in model.trainable_variables:
        if "kernel" in variable.path:
            variable.assign(variable * factor)
    path = tmp_path_factory.mktemp("large") / "net.keras"
    model.save(path)
    image = np.random.default_rng(0).integers(0, 256, (1, *model.input_shape[1:])).astype(np.uint8)
    answers = np.isfinite(np.asarray(model(image / np.float32(255)))).all()
    try:
        load_net(path)
        assert answers
    except InputError as error:
        assert factor > 1 and "not a number" in str(error)
