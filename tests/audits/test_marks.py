"""Random marks: what is drawn, where it lies, and that faint marks change little."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend.audits.marks import OVERLAYS, STICKERS, WARPS, sticker_mask_and_pattern

SHAPES = ((55, 47, 3), (28, 28, 1), (32, 32, 3))
FAMILIES = (STICKERS, OVERLAYS, WARPS)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("shape", SHAPES)
def test_marks_are_drawn_from_the_key(family, shape):
    marks = family.draw(jax.random.key(3), 20, shape)
    assert len(marks) == 20 and np.array_equal(marks, family.draw(jax.random.key(3), 20, shape))
    assert not np.array_equal(marks, family.draw(jax.random.key(4), 20, shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_stickers_cover_a_part_of_the_image(shape):
    marks = STICKERS.draw(jax.random.key(0), 30, shape)
    masks = np.asarray(jax.jit(jax.vmap(lambda mark: sticker_mask_and_pattern(mark, shape)[0]))(marks))
    cover = masks.mean(axis=(1, 2, 3))
    assert masks.min() >= 0 and masks.max() <= 1
    assert (cover > 0.003).all() and (cover < 0.26).all() and cover.std() > 0.01


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@settings(max_examples=15)
@given(seed=st.integers(0, 1000))
def test_marked_images_stay_images(family, seed):
    shape = (20, 18, 3)
    image = jnp.asarray(np.random.default_rng(seed).random(shape), jnp.float32)
    mark = family.draw(jax.random.key(seed), 1, shape)[0]
    put = jax.jit(family.put)
    strong, none = np.asarray(put(mark, image, 1.0)), np.asarray(put(mark, image, 0.0))
    assert strong.min() >= -1e-6 and strong.max() <= 1 + 1e-6
    assert np.abs(none - image).max() < 1e-5 < np.abs(strong - image).max()
