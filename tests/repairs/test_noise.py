"""Noise: squares of colour on half of the images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_images, small_net

from jaxdefend.nets.training import losses
from jaxdefend.repairs import noise

KEY, STEP = jax.random.key(0), jnp.int32(0)


def test_squares_replace_a_share_of_an_image():
    pixels = jnp.full((55, 47, 3), 300.0)
    noisy = jax.jit(jax.vmap(lambda key: noise.with_squares(pixels, key)))(jax.random.split(KEY, 200))
    hit = np.asarray(noisy != 300).all(axis=-1)
    assert ((noisy == 300) | ((noisy >= 0) & (noisy <= 255))).all()
    assert hit.mean() == pytest.approx(noise.LARGEST_SHARE / 2, abs=0.04)


def test_half_of_the_images_stay_as_they_are(monkeypatch):
    net, (pixels, labels) = jax.tree.map(jnp.asarray, small_net()), map(jnp.asarray, small_images())
    each = jax.jit(losses)
    clean = each(net, pixels, labels)
    # Black in place of noise: the mean tells how many images it was put on.
    monkeypatch.setattr(noise, "with_squares", lambda pixels, key: jnp.zeros_like(pixels, jnp.float32))
    loss, _ = jax.jit(noise.of_noisy_images)(net, pixels, labels, KEY, STEP)
    black = each(net, jnp.zeros_like(pixels), labels)
    assert float(loss) != pytest.approx(float(clean.mean()))
    np.testing.assert_allclose(loss, (black[::2].sum() + clean[1::2].sum()) / len(pixels), rtol=1e-5)
