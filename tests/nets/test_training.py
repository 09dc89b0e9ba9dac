"""The fit loop: the gradient, channels that stay pruned, and going on where one stopped."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import random_net, random_pixels

from jaxdefend import InputError
from jaxdefend.nets import resuming
from jaxdefend.nets.deepid import logits, scaled, to_weights, with_channels_zeroed
from jaxdefend.nets.training import Schedule, fit, new_net, started

KEY = jax.random.key(0)
SCHEDULE = Schedule(steps=12, batch=16, peak=1e-3)
PIXELS, LABELS = random_pixels(48), (np.arange(48) % 11).astype(np.int32)


def trained(state, schedule=SCHEDULE):
    *_, (last, _) = fit(state, PIXELS, LABELS, schedule, KEY)
    return last


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_loss_is_the_mean_cross_entropy_of_the_batch():
    net = random_net()
    schedule = Schedule(steps=4, batch=48, peak=0.0)
    _, loss = next(fit(started(net, schedule), PIXELS, LABELS, schedule, KEY))
    by_hand = optax.softmax_cross_entropy_with_integer_labels(logits(net, {"input": scaled(PIXELS, "unit")}), LABELS)
    np.testing.assert_allclose(loss, by_hand.mean(), rtol=1e-5)


def test_training_learns():
    schedule = Schedule(steps=150, batch=16, peak=1e-3)
    losses = [
        float(loss) for _, loss in fit(started(new_net(11, "unit", KEY), schedule), PIXELS, LABELS, schedule, KEY)
    ]
    assert np.mean(losses[-3:]) < 0.5 * losses[0]


def test_every_pass_sees_every_image_once():
    schedule = Schedule(steps=6, batch=16, peak=0.0)
    net = random_net()
    losses = np.array([float(loss) for _, loss in fit(started(net, schedule), PIXELS, LABELS, schedule, KEY)])
    np.testing.assert_allclose(losses[:3].sum(), losses[3:].sum(), rtol=1e-5)
    assert not np.allclose(losses[:3], losses[3:])


@pytest.mark.parametrize("layer", ["conv_1", "conv_2", "conv_3", "conv_4"])
def test_pruned_channels_stay_zero(layer):
    channels = [0, 3, 7]
    net = trained(started(with_channels_zeroed(random_net(), layer, channels), SCHEDULE)).net
    before, after = to_weights(random_net())[layer], to_weights(net)[layer]
    assert not after["kernel"][..., channels].any() and not after["bias"][channels].any()
    assert (np.delete(after["kernel"], channels, -1) != np.delete(before["kernel"], channels, -1)).any()


def test_a_saved_state_goes_on_to_the_same_net(tmp_path):
    whole = trained(started(random_net(), SCHEDULE))
    for done, (state, _) in enumerate(fit(started(random_net(), SCHEDULE), PIXELS, LABELS, SCHEDULE, KEY), 1):
        if done in (3, 7):
            resuming.save(tmp_path / "run", state)
        if done == 7:
            break
    restored = resuming.latest(tmp_path / "run", started(random_net(5), SCHEDULE))
    assert int(restored.step) == 7
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["7"]
    assert_same(whole, trained(restored))


def test_equal_keys_give_equal_nets():
    assert_same(new_net(11, "unit", KEY), new_net(11, "unit", KEY))
    weights = to_weights(new_net(11, "unit", KEY))
    limit = np.sqrt(6 / (3 * 3 * 40 + 3 * 3 * 60))
    assert 0.9 * limit < np.abs(weights["conv_3"]["kernel"]).max() <= limit
    assert not any(layer["bias"].any() for layer in weights.values())


def test_a_caller_keeps_its_net():
    net = jax.device_put(random_net())
    trained(started(net, SCHEDULE))
    assert jnp.isfinite(net.output.bias[...]).all()


def test_a_saved_state_of_another_net_is_refused(tmp_path):
    resuming.save(tmp_path / "run", started(random_net(classes=7), SCHEDULE))
    with pytest.raises(InputError, match="another net"):
        resuming.latest(tmp_path / "run", started(random_net(), SCHEDULE))
    (tmp_path / "torn" / "5").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be read"):
        resuming.latest(tmp_path / "torn", started(random_net(), SCHEDULE))
