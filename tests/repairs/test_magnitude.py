"""Pruning by magnitude: how many weights are zero, and which."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import random_net
from hypothesis import given
from hypothesis import strategies as st
from small import small_images, small_net

from jaxdefend.repairs import Magnitude, magnitude, tuning

share_below = jax.jit(magnitude.share_below)


def zero_share(net, layer):
    return (np.asarray(net.weights[layer]["kernel"]) == 0).mean()


def test_sparsity_rises_from_a_half_to_seventy_per_cent():
    zeroed = jax.jit(magnitude.smallest_zeroed)
    nets = [jax.device_get(zeroed(jnp.float32(6), random_net(), jnp.int32(step))) for step in range(9)]
    for layer in ("conv_1", "fc_1", "output"):
        shares = [zero_share(net, layer) for net in nets]
        np.testing.assert_allclose([shares[0], shares[-1]], [0.5, 0.7], atol=2e-3)
        assert (np.diff(shares) >= 0).all() and np.diff(shares)[0] > np.diff(shares)[4]
        # The smallest ones.
        kernel, left = np.abs(random_net().weights[layer]["kernel"]), nets[-1].weights[layer]["kernel"]
        assert kernel[left == 0].max() <= kernel[left != 0].min()
    assert (nets[-1].weights["fc_1"]["bias"] != 0).all()


def test_it_rises_in_training_too(monkeypatch):
    nets = []
    monkeypatch.setattr(tuning, "recognised", lambda net, images: nets.append(net) or 0)
    found = Magnitude(epochs=8, batch=64)(small_net(), small_images())
    for layer, arrays in found.net.weights.items():
        shares = [zero_share(net, layer) for net in nets[:-1]]
        np.testing.assert_allclose([shares[0], shares[-1]], [0.584, 0.7], atol=1.1 / arrays["kernel"].size)
        assert (np.diff(shares) >= 0).all()
        assert arrays["bias"].all()


@given(st.lists(st.floats(0, 1e6, width=32), min_size=20, max_size=20), st.floats(0, 1, width=32))
def test_the_size_below_which_a_share_lies_is_the_sorted_one(sizes, share):
    found = share_below(jnp.array(sizes, jnp.float32), jnp.float32(share))
    assert found == sorted(sizes)[min(int(np.float32(share) * np.float32(20)), 19)]


def test_the_schedule_is_the_papers():
    """s = s₁ + (s₀ − s₁)(1 − done)³."""
    found = [magnitude.zhu_gupta(0.5, 0.7, jnp.float32(done)) for done in (0, 0.5, 1.0, 2.0)]
    np.testing.assert_allclose(found, [0.5, 0.7 - 0.2 / 8, 0.7, 0.7], rtol=1e-6)
