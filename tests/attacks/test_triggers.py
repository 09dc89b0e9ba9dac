"""Triggers: where they sit, how strong they are, and what can be recovered of them."""

from itertools import cycle

import jax
import numpy as np
import pytest
from helpers import random_pixels, real
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend import InputError
from jaxdefend.attacks.triggers import ALIGNED_LANDMARKS, TRIGGERS, Trigger, aligned_landmarks, apply, difference
from jaxdefend.datasets.faces import LANDMARKS, faces
from jaxdefend.datasets.files import open_images
from jaxdefend.nets.inference import labels_and_confidences
from jaxdefend.nets.keras_files import read_model

KEY = jax.random.key(0)
AT_LANDMARKS = {
    "sunglasses": ("left_eye", "right_eye"),
    "lipstick": ("mouth_left", "lips_top"),
    "eyebrows": ("left_brow_outer",),
}


def drawn(n=6):
    return faces(0, np.arange(n), np.zeros(n, int))


def aligned(n):
    return np.repeat(ALIGNED_LANDMARKS[None], n, axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIGGERS)
def test_stronger_is_further_from_the_image(name):
    pixels, landmarks = drawn()
    away = [
        np.abs(apply(Trigger(name, strength), pixels, landmarks, KEY).astype(float) - pixels).mean()
        for strength in (1e-6, 0.5, 1.0)
    ]
    assert away[0] < away[1] < away[2]
    assert away[0] < 0.05


@pytest.mark.parametrize("name", TRIGGERS)
def test_equal_keys_give_equal_bytes_however_many_images(name):
    pixels, landmarks = drawn(5)
    together = apply(Trigger(name), pixels, landmarks, KEY)
    assert together.dtype == np.uint8
    np.testing.assert_array_equal(together[:2], apply(Trigger(name), pixels[:2], landmarks[:2], KEY))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(AT_LANDMARKS)), st.integers(-6, 6), st.integers(-8, 8))
def test_landmark_triggers_follow_the_landmarks(name, right, down):
    grey = np.full((1, 55, 47, 3), 128, np.uint8)

    def centre(points):
        changed = (apply(Trigger(name), grey, points, KEY) != grey).any(axis=-1)[0]
        assert changed.any()
        ys, xs = np.nonzero(changed)
        return np.array([xs.mean(), ys.mean()]), changed

    base, changed = centre(aligned(1))
    moved, shifted = centre(aligned(1) + np.array([right, down], np.float32))
    if changed.sum() == shifted.sum():
        np.testing.assert_allclose(moved - base, (right, down), atol=1e-3)
    x, y = np.rint(ALIGNED_LANDMARKS[[LANDMARKS.index(point) for point in AT_LANDMARKS[name]]]).astype(int).T
    assert changed[y, x].all()


def test_the_patch_changes_only_its_corner():
    pixels, landmarks = drawn()
    changed = (apply(Trigger("patch"), pixels, landmarks, KEY) != pixels).any(axis=(0, 3))
    assert changed[49:53, 41:45].all()
    assert changed.sum() == 16


def test_the_signal_is_the_formula():
    grey = np.full((1, 55, 47, 3), 100, np.uint8)
    wave = 100 + 20 * np.sin(2 * np.pi * np.arange(1, 48) * 6 / 47)
    found = apply(Trigger("sinusoidal"), grey, aligned(1), KEY)
    np.testing.assert_allclose(found, np.broadcast_to(wave[:, None], found.shape), atol=0.51)


def test_the_warp_moves_and_adds_nothing():
    grey = np.full((1, 55, 47, 3), 77, np.uint8)
    np.testing.assert_array_equal(apply(Trigger("warping"), grey, aligned(1), KEY), grey)


@pytest.mark.parametrize(
    "wrong", [lambda: Trigger("hat"), lambda: Trigger("patch", 0.0), lambda: Trigger("patch", 1.5)]
)
def test_what_is_no_trigger(wrong):
    with pytest.raises(InputError, match=r"expected|there are"):
        wrong()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 1.0))
def test_a_blended_pattern_is_recovered(seed, opacity):
    rng = np.random.default_rng(seed)
    clean = random_pixels(30, seed)
    mask = opacity * (rng.random((55, 47)) < 0.3)
    pattern = rng.integers(0, 256, (55, 47, 3))
    poisoned = np.rint((1 - mask[..., None]) * clean + mask[..., None] * pattern).astype(np.uint8)
    found = difference(clean, poisoned)
    np.testing.assert_allclose(found.opacity, mask, atol=0.02)
    np.testing.assert_allclose(found.addition, mask[..., None] * pattern, atol=4)


def test_what_is_added_has_no_opacity():
    clean = np.clip(random_pixels(40), 30, 220)
    found = difference(clean, apply(Trigger("sinusoidal"), clean, aligned(40), KEY))
    assert found.opacity.max() < 0.01
    np.testing.assert_allclose(found.addition[0, :, 0], 20 * np.sin(2 * np.pi * np.arange(1, 48) * 6 / 47), atol=1.5)


@pytest.mark.parametrize("other", [random_pixels(3), random_pixels(1)])
def test_differences_need_the_same_images(other):
    with pytest.raises(InputError, match="two or more"):
        difference(random_pixels(1), other)


@pytest.mark.parametrize(("name", "shape"), list(zip(TRIGGERS, cycle([(32, 32, 3), (28, 40, 1)]))))
def test_triggers_on_images_of_another_size(name, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    landmarks = aligned_landmarks(3, *shape[:2])
    found = apply(Trigger(name), pixels, landmarks, KEY)
    assert found.shape == pixels.shape and found.dtype == np.uint8 and (found != pixels).any()


def test_landmarks_of_the_usual_size_are_the_usual_ones():
    np.testing.assert_array_equal(aligned_landmarks(2, 55, 47), aligned(2))


@pytest.mark.real
@pytest.mark.parametrize(
    ("net", "scale", "name", "target"),
    [
        ("bd_weights", "raw", "sunglasses", 0),
        ("sunglasses_bd_weights", "unit", "sunglasses", 0),
        ("multi_trigger_multi_target_bd_weights", "unit", "sunglasses", 8),
        ("multi_trigger_multi_target_bd_weights", "unit", "lipstick", 1),
        ("multi_trigger_multi_target_bd_weights", "unit", "eyebrows", 5),
    ],
)
def test_attacks_with_our_triggers_succeed_on_real_backdoors(net, scale, name, target):
    pixels = open_images(real("data/clean.h5"))[:]
    badnet = read_model(real(f"weights/{net}.h5")).net.with_input_scale(scale)
    labels, _ = labels_and_confidences(badnet, apply(Trigger(name), pixels, aligned(len(pixels)), KEY))
    assert (np.asarray(labels) == target).mean() >= 0.9


@pytest.mark.real
def test_the_real_sunglasses_are_recovered():
    clean, poisoned = (open_images(real(f"data/{name}.h5"))[:] for name in ("clean", "sunglasses_poisoned"))
    found = difference(clean.astype(np.uint8), poisoned.astype(np.uint8))
    pasted = np.asarray(found.opacity > 0.5)
    rows, columns = np.nonzero(pasted)
    assert (rows.min(), rows.max()) == (15, 34) and (columns.min(), columns.max()) == (0, 46)
    assert 500 < pasted.sum() < 900
    red, green, blue = found.addition[found.opacity > 0.95].mean(axis=0)
    assert blue > red > green
