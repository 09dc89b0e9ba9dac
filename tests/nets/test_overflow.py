"""Nets that overflow float32 are refused when they are read, whatever their layers; large finite ones are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from nets.helpers_nets import UNHURRIED, keras_models, pixels_for
from small import small_net

from jaxdefend import InputError
from jaxdefend.nets.keras_files import read_model, write_model
from jaxdefend.nets.loading import load_net
from jaxdefend.nets.overflow import largest_activation


def scaled_up(**factors):
    net = small_net()
    kernels = {layer: net.weights[layer]["kernel"] * np.float32(factor) for layer, factor in factors.items()}
    return net.with_weights(net.weights | {layer: net.weights[layer] | {"kernel": kernels[layer]} for layer in kernels})


@pytest.mark.parametrize("factors", [{"first": 1e25, "last": 1e25}, {"last": 1e30, "answer": 1e12}])
def test_a_net_that_overflows_is_refused(tmp_path, factors):
    write_model(scaled_up(**factors), tmp_path / "net.h5")
    with pytest.raises(InputError, match=r"net\.h5: (last|answer|logits) gives .* not finite .* not a number"):
        load_net(tmp_path / "net.h5")


@pytest.mark.parametrize("factors", [{"first": 1e25}, {"last": 1e33}, {"first": 1e20, "answer": 1e-20}])
def test_large_weights_that_do_not_overflow_are_read(tmp_path, factors):
    write_model(scaled_up(**factors), tmp_path / "net.h5")
    net = load_net(tmp_path / "net.h5", input_scale="unit")
    assert np.isfinite(net(np.full((1, *net.image_shape), 255, np.uint8))).all()


@pytest.mark.slow
@settings(max_examples=30, **UNHURRIED)
@given(model=keras_models())
def test_no_activation_exceeds_the_bound(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("bound") / "net.keras"
    model.save(path)
    net = read_model(path).net.with_input_scale("unit")
    found = net.features(pixels_for(model), [layer.name for layer in net.graph.layers])
    assert max(float(np.abs(values).max()) for values in found.values()) <= 1.001 * largest_activation(net)
