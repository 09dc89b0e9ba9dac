"""Parts of a step add up to the step, for every gradient that processes share."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial
from small import SHAPE, small_images, small_net

from jaxdefend.nets.parallel import share_of_mean, shared_step
from jaxdefend.nets.training import PLAIN, Schedule, fit, started
from jaxdefend.repairs import distill, iterative, magnitude, noise, tuning, unlearn

GRADIENTS = {
    "plain": PLAIN,
    "without channels": Partial(tuning._of_the_rest, PLAIN, iterative.filled(small_net(), 1).pruned("last", [2])),
    "noise": Partial(noise.of_noisy_images),
    "distill": Partial(distill.of_covered_images, small_net(1)),
    "magnitude": Partial(iterative._of_pruned, Partial(magnitude.smallest_zeroed, jnp.float32(10))),
    "unlearn": Partial(
        unlearn.of_images_with_triggers, np.float32(0.3), np.ones((1, *SHAPE[:2]), np.float32), np.ones((1, *SHAPE))
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "plain" else pytest.mark.slow) for name in GRADIENTS]
)
def test_parts_of_a_step_add_up_to_it(name):
    step = small_net(), *map(jnp.asarray, small_images(12)), jax.random.key(0), jnp.int32(3)

    @jax.jit
    def whole_and_parts(gradient, *step):
        parts = [gradient(*step, mean=partial(share_of_mean, *rows)) for rows in ((0, 4), (4, 12))]
        return [ravel_pytree(each)[0] for each in (gradient(*step), *parts)]

    whole, *parts = whole_and_parts(GRADIENTS[name], *step)
    assert np.allclose(sum(parts), whole, rtol=1e-4, atol=1e-5)
    assert not np.allclose(parts[0], whole, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_a_shared_step_of_one_process_is_a_step():
    (pixels, labels), schedule = small_images(24), Schedule(4, 8, 1e-2, "sgd")

    def trained(step):
        steps = fit(started(small_net(), schedule), pixels, labels, schedule, jax.random.key(0), step=step)
        return [(ravel_pytree(state.net)[0], float(loss)) for state, loss in steps]

    for (net, loss), (shared, shared_loss) in zip(trained(None), trained(shared_step), strict=True):
        assert np.allclose(shared, net, atol=1e-6) and shared_loss == pytest.approx(loss, rel=1e-5)
