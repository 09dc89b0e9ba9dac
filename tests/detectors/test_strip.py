"""STRIP against the plain way of computing it, and on a real net."""

import jax
import numpy as np
import pytest
from helpers import random_net, random_pixels, real
from small import small_net, small_pixels

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.detectors import Blend, Strip, blend_of, strip
from jaxdefend.nets.batches import padded
from jaxdefend.nets.inference import entropy
from jaxdefend.nets.keras_files import read_model

KEY = jax.random.key(3)


def batches(pixels, size=8):
    return padded(ArrayImages(pixels), size)


def logits(net, shown):
    return net.features(shown, ("logits",))["logits"]


def assert_is_plain(net, pixels, others, blend):
    pool = strip.overlay_pool(others)
    found = strip.entropies(net, batches(pixels), pool, KEY, 12, blend)
    for image, value in zip(pixels, found, strict=True):
        key = jax.random.fold_in(KEY, strip.number_of(image.tobytes()))
        drawn = np.asarray(jax.random.randint(key, (12,), 0, len(others)))
        plain = entropy(logits(net, strip.superimpositions(image, others[drawn], blend))).mean()
        np.testing.assert_allclose(value, plain, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("blend", ["sum", "0.5+0.5", "1.5+1", Blend(1.5, 0.7, saturating=True)])
def test_strip_is_the_mean_entropy_of_the_superimposed_images(blend):
    net, blend = small_net(1), blend if isinstance(blend, Blend) else blend_of(blend)
    assert_is_plain(net, small_pixels(5, 1), small_pixels(9, 2), blend)
    assert_is_plain(net.with_input_scale("raw"), small_pixels(5, 1), small_pixels(9, 2), blend)


@pytest.mark.parametrize("scale", ["unit", "raw"])
def test_of_deepid(scale):
    assert_is_plain(random_net(1, input_scale=scale), random_pixels(3, 1), random_pixels(9, 2), Blend())


def test_strip_depends_neither_on_batches_nor_on_padding():
    net, pixels = small_net(), small_pixels(13)
    pool = strip.overlay_pool(small_pixels(20, 5))
    whole, parts = (strip.entropies(net, batches(pixels, size), pool, KEY, 15) for size in (16, 4))
    np.testing.assert_allclose(whole, parts, rtol=1e-5)
    assert len(whole) == 13


def test_an_image_alone_or_in_another_order_has_the_same_entropy():
    net, pixels = small_net(), small_pixels(13)
    pool = strip.overlay_pool(small_pixels(20, 5))
    found = strip.entropies(net, batches(pixels), pool, KEY, 15)
    turned = strip.entropies(net, batches(pixels[::-1]), pool, KEY, 15)
    np.testing.assert_allclose(turned[::-1], found, rtol=1e-5)
    alone = strip.entropies(net, batches(pixels[7:8], 1), pool, KEY, 15)
    np.testing.assert_allclose(alone, found[7:8], rtol=1e-5)


def test_an_image_is_never_its_own_overlay():
    net, others = small_net(), small_pixels(2, 7)
    pool = strip.overlay_pool(others)
    found = strip.entropies(net, batches(others), pool, KEY, 10)
    for image, other, value in zip(others, others[::-1], found, strict=True):
        shown = strip.superimpositions(image, other[None], strip.Blend())
        np.testing.assert_allclose(value, entropy(logits(net, shown))[0], rtol=1e-4)


def test_the_early_exit_changes_no_verdict():
    net, pixels = small_net(2), small_pixels(40, 3)
    pool = strip.overlay_pool(small_pixels(30, 4))
    found = strip.entropies(net, batches(pixels, 16), pool, KEY, 35)
    for threshold in (0.0, *np.quantile(found, [0.1, 0.5, 0.9]), found[7], 99.0):
        verdicts = strip.rejected(net, batches(pixels, 16), pool, KEY, float(threshold), 35)
        np.testing.assert_array_equal(verdicts, found < np.float32(threshold))


def test_overlay_pools_need_two_images_and_overlays_one():
    net = small_net()
    with pytest.raises(InputError, match="1 different images"):
        strip.overlay_pool(np.repeat(small_pixels(1), 5, axis=0))
    pool = strip.overlay_pool(small_pixels(2))
    with pytest.raises(InputError, match="0 overlays"):
        strip.entropies(net, batches(small_pixels(1)), pool, KEY, 0)
    with pytest.raises(InputError, match="overlays 0: expected 1…10000"):
        Strip(overlays=0)


def test_a_pool_holds_each_image_once_and_not_too_many():
    pixels = small_pixels(30)
    twice = np.concatenate([pixels, pixels])
    np.testing.assert_array_equal(strip.different(twice), pixels)
    np.testing.assert_array_equal(strip.overlay_images(ArrayImages(twice)), pixels)
    many = small_pixels(strip.POOL_SIZE + 100)
    np.testing.assert_array_equal(strip.overlay_images(ArrayImages(many)), many[::2])


@pytest.mark.parametrize(
    ("text", "blend"),
    [
        ("sum", Blend()),
        ("saturating", Blend(saturating=True)),
        ("0.5+0.5", Blend(0.5, 0.5)),
        ("1e-1+10", Blend(0.1, 10)),
    ],
)
def test_blends(text, blend):
    assert blend_of(text) == blend
    assert Strip(blend=text).blend == text


@pytest.mark.parametrize("text", ["half", "", "1", "1+2+3", "0+1", "11+1", "nan+1", "-1+1", "1+x", "sum\n"])
def test_blends_that_are_not(text):
    with pytest.raises(InputError, match=r"^blend .*: expected sum, saturating, or two weights"):
        Strip(blend=text)


@pytest.mark.real
@pytest.mark.slow
def test_strip_on_bd_net_is_as_published():
    net = read_model(real("weights/bd_weights.h5")).net.with_input_scale("raw")
    clean = np.rint(open_images(real("data/clean_more.h5"))[:]).astype(np.uint8)
    pool = strip.overlay_pool(clean)
    found = strip.entropies(net, batches(clean[::2], 32), pool, KEY)
    assert found.mean() == pytest.approx(0.2625, abs=0.02)
    assert found.std() == pytest.approx(0.0702, abs=0.015)
