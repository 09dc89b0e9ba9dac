"""I-BAU: the worst perturbation, and unlearning it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import SHAPE, small_images, small_net

from jaxdefend.nets.training import losses, mean_and_gradient
from jaxdefend.repairs import ibau

KEY, STEP = jax.random.key(0), jnp.int32(0)


@pytest.mark.slow
def test_unlearning_takes_the_harm_of_the_worst_perturbation_down():
    batch = pixels, labels = tuple(map(jnp.asarray, small_images(32)))
    images = pixels / np.float32(255)
    hypergradient, worst = jax.jit(ibau.hypergradient), jax.jit(ibau.worst_perturbation)
    gradient = jax.jit(partial(mean_and_gradient, losses))
    before = net = jax.tree.map(jnp.asarray, small_net())
    perturbation = worst(net, images, labels)
    assert perturbation.shape == SHAPE and np.linalg.norm(perturbation) <= 1.0001 * ibau.RADIUS

    def harm(net):
        return losses(net, 255 * (images + worst(net, images, labels)), labels).mean()

    assert harm(net) > losses(net, pixels, labels).mean()
    for step in range(8):
        loss, slope = hypergradient(net, *batch, KEY, STEP)
        if step == 0:
            under = np.where(np.arange(len(images))[:, None, None, None] % 2 == 0, images + perturbation, images)
            again, direct = gradient(net, jnp.asarray(255 * under), labels)
            assert float(loss) == pytest.approx(float(again), rel=1e-4)
            more = jax.tree.map(jnp.subtract, slope, direct)
            assert optax.tree.norm(more) > 1e-3 * optax.tree.norm(direct)
        net = jax.tree.map(lambda weights, slope: weights - 1e-2 * slope, net, slope)
    assert harm(net) < harm(before)
