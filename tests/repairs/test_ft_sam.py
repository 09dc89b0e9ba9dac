"""FT-SAM: the gradient at the worst weights nearby."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from small import small_images, small_net

from jaxdefend.nets.training import plain
from jaxdefend.repairs.ft_sam import at_the_worst_nearby

KEY, STEP = jax.random.key(0), jnp.int32(0)
BATCH = tuple(map(jnp.asarray, small_images(32)))
worst_nearby, descent = jax.jit(at_the_worst_nearby), jax.jit(plain)


def test_no_radius_is_plain_training():
    net = jax.tree.map(jnp.asarray, small_net())
    flat = worst_nearby(jnp.float32(0), net, *BATCH, KEY, STEP)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, flat, descent(net, *BATCH, KEY, STEP))


def test_the_worst_weights_nearby_are_worse():
    net = jax.tree.map(jnp.asarray, small_net())
    near = descent(net, *BATCH, KEY, STEP)
    worst = worst_nearby(jnp.float32(0.5), net, *BATCH, KEY, STEP)
    assert worst[0] > near[0]
