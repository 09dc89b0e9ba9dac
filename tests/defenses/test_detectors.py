"""STRIP and mask entropy against the plain way of computing them, and on real nets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_net, random_pixels, real

from jaxdefend import InputError
from jaxdefend.datasets.batches import ArrayImages, padded
from jaxdefend.datasets.files import open_images
from jaxdefend.defenses import goodnet, mask_entropy, strip
from jaxdefend.defenses.detectors import PARTS, combined, fitted
from jaxdefend.nets.deepid import features, logits, with_input_scale
from jaxdefend.nets.inference import entropy, predictions
from jaxdefend.nets.keras_files import read_model
from jaxdefend.results.detection import auroc, conformal_threshold

KEY = jax.random.key(3)


def batches(pixels, size=8):
    return padded(ArrayImages(pixels), size)


def test_entropy_in_bits():
    assert entropy(jnp.zeros(8)) == pytest.approx(3)
    assert entropy(jnp.array([1e4, 0.0, 0.0])) == 0
    assert np.isfinite(entropy(jnp.array([3e38, -3e38])))


@pytest.mark.parametrize("scale", ["unit", "raw"])
@pytest.mark.parametrize(
    "blend", [strip.Blend(), strip.Blend(0.5, 0.5), strip.Blend(1.5, 1.0), strip.Blend(1.5, 0.7, saturating=True)]
)
def test_strip_is_the_mean_entropy_of_the_superimposed_images(scale, blend):
    net, pixels, others = random_net(1, input_scale=scale), random_pixels(5, 1), random_pixels(9, 2)
    pool = strip.overlay_pool(others)
    found = strip.entropies(net, batches(pixels), pool, KEY, 12, blend)
    for number, image in enumerate(pixels):
        drawn = np.asarray(jax.random.randint(jax.random.fold_in(KEY, number), (12,), 0, len(others)))
        shown = strip.superimpositions(image, others[drawn], blend)
        plain = entropy(features(net, shown, ("logits",))["logits"]).mean()
        np.testing.assert_allclose(found[number], plain, rtol=2e-4, atol=2e-4)


def test_strip_depends_neither_on_batches_nor_on_padding():
    net, pixels = random_net(), random_pixels(13)
    pool = strip.overlay_pool(random_pixels(20, 5))
    whole, parts = (strip.entropies(net, batches(pixels, size), pool, KEY, 15) for size in (16, 4))
    np.testing.assert_allclose(whole, parts, rtol=1e-5)
    assert len(whole) == 13


def test_an_image_is_never_its_own_overlay():
    net, others = random_net(), random_pixels(2, 7)
    pool = strip.overlay_pool(others)
    found = strip.entropies(net, batches(others), pool, KEY, 10)
    for image, other, value in zip(others, others[::-1], found, strict=True):
        shown = strip.superimpositions(image, other[None], strip.Blend())
        np.testing.assert_allclose(value, entropy(features(net, shown, ("logits",))["logits"])[0], rtol=1e-4)


def test_the_early_exit_changes_no_verdict():
    net, pixels = random_net(2), random_pixels(40, 3)
    pool = strip.overlay_pool(random_pixels(30, 4))
    found = strip.entropies(net, batches(pixels, 16), pool, KEY, 35)
    for threshold in (0.0, *np.quantile(found, [0.1, 0.5, 0.9]), found[7], 99.0):
        verdicts = strip.rejected(net, batches(pixels, 16), pool, KEY, float(threshold), 35)
        np.testing.assert_array_equal(verdicts, found < np.float32(threshold))


def test_overlay_pools_need_two_images_and_overlays_one():
    net = random_net()
    with pytest.raises(InputError, match="1 different images"):
        strip.overlay_pool(np.repeat(random_pixels(1), 5, axis=0))
    pool = strip.overlay_pool(random_pixels(2))
    with pytest.raises(InputError, match="0 overlays"):
        strip.entropies(net, batches(random_pixels(1)), pool, KEY, 0)


@pytest.mark.parametrize("scale", ["unit", "raw"])
def test_masks_give_the_geometric_mean_of_the_entropies_and_the_share_of_changed_labels(scale):
    net, pixels = random_net(4, input_scale=scale), random_pixels(11, 6)
    masks = mask_entropy.random_masks(KEY, 30)
    pooled = features(net, pixels, ("pool_3",))["pool_3"]
    each = jnp.stack([logits(net, {"pool_3": pooled * mask}) for mask in masks])
    plain = jnp.exp2(jnp.log2(entropy(each) + mask_entropy.OFFSET).mean(axis=0)) - mask_entropy.OFFSET
    found = mask_entropy.under_masks(net, batches(pixels), masks)
    np.testing.assert_allclose(found.entropy, plain, rtol=2e-4, atol=2e-4)
    labels = predictions(net, batches(pixels))[0]
    np.testing.assert_allclose(found.changed, (each.argmax(axis=-1) != labels).mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(mask_entropy.entropies(net, batches(pixels), masks), found.entropy)


def test_masks_come_from_their_key():
    masks = mask_entropy.random_masks(KEY, 2000, 0.4)
    assert set(np.unique(masks)) == {0, 1}
    assert abs(float(masks.mean()) - 0.4) < 0.01
    np.testing.assert_array_equal(masks, mask_entropy.random_masks(KEY, 2000, 0.4))
    with pytest.raises(InputError, match="0 masks"):
        mask_entropy.random_masks(KEY, 0)
    with pytest.raises(InputError, match="probability 1"):
        mask_entropy.random_masks(KEY, 10, 1.0)


def test_disagreement_is_the_surprise_of_the_repaired_net():
    badnet, repaired, pixels = random_net(1), random_net(2), random_pixels(9)
    shares = jax.nn.softmax(features(repaired, pixels, ("logits",))["logits"])
    labels = predictions(badnet, batches(pixels))[0]
    expected = -np.log2(np.asarray(shares)[np.arange(9), labels])
    np.testing.assert_allclose(goodnet.disagreements(badnet, repaired, batches(pixels)), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("detector", "usual", "low"),
    [
        ("both", ([1.0, 2.0, 4.0], [0.2, 0.4, 0.8]), (0.01, 0.001)),
        ("persistence", ([1.0, 2.0, 4.0], [0.8, 0.9, 1.0]), (0.01, 0.0)),
    ],
)
def test_the_more_suspicious_measure_decides(detector, usual, low):
    clean = {name: np.array(values) for name, values in zip(PARTS[detector], usual, strict=True)}
    fits = {name: fitted(name, values) for name, values in clean.items()}
    first, second = PARTS[detector]
    either = {first: np.array([clean[first][1], low[0]]), second: np.array([low[1], clean[second][1]])}
    assert (combined(either, fits) > 2).all()
    assert combined({name: values[-1:] * 9 for name, values in clean.items()}, fits)[0] < 0


def test_shares_are_compared_as_they_are():
    changed = np.array([0.5, 0.7, 0.9])
    fit = fitted("few_changed", changed)
    assert fit == pytest.approx((0.7, changed.std()))
    scores = combined({"few_changed": np.array([0.7, 0.7 - fit.std])}, {"few_changed": fit})
    np.testing.assert_allclose(scores, [0, 1], atol=1e-9)


NETS = {
    "bd": ("bd_weights.h5", "raw", ["sunglasses_poisoned", "multi_sunglasses_poisoned"]),
    "sunglasses": ("sunglasses_bd_weights.h5", "unit", ["sunglasses_poisoned", "multi_sunglasses_poisoned"]),
    "multi": (
        "multi_trigger_multi_target_bd_weights.h5",
        "unit",
        ["multi_lipstick_poisoned", "multi_eyebrows_poisoned", "multi_sunglasses_poisoned"],
    ),
}


def real_pixels(name):
    return np.rint(open_images([real(f"data/{name}.h5")])[:]).astype(np.uint8)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_masks_find_the_real_triggers(name):
    file, scale, sets = NETS[name]
    net = with_input_scale(read_model(real(f"weights/{file}")).net, scale)
    masks = mask_entropy.random_masks(jax.random.split(jax.random.key(0))[0])

    def scores(pixels):
        return -mask_entropy.entropies(net, batches(pixels, 64), masks)

    calibration, clean = scores(real_pixels("clean_more")), scores(real_pixels("clean"))
    threshold = np.sort(calibration)[::-1][int(0.05 * (len(calibration) + 1)) - 1]
    for poisoned in sets:
        pixels = real_pixels(poisoned)
        labels = predictions(net, batches(pixels, 64))[0]
        found = scores(pixels[labels == np.bincount(labels).argmax()])
        assert auroc(clean, found) >= 0.99
        assert (found <= threshold).mean() <= 0.05


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_persistence_finds_the_real_triggers(name):
    file, scale, sets = NETS[name]
    net = with_input_scale(read_model(real(f"weights/{file}")).net, scale)
    masks = mask_entropy.random_masks(jax.random.split(jax.random.key(0))[0], keep=0.2)

    def measures(pixels):
        return dict(zip(PARTS["persistence"], mask_entropy.under_masks(net, batches(pixels, 64), masks), strict=True))

    calibration = measures(real_pixels("clean_more"))
    fits = {name: fitted(name, values) for name, values in calibration.items()}
    clean = combined(measures(real_pixels("clean")), fits)
    threshold = conformal_threshold(combined(calibration, fits), 0.05)
    for poisoned in sets:
        pixels = real_pixels(poisoned)
        labels = predictions(net, batches(pixels, 64))[0]
        found = combined(measures(pixels[labels == np.bincount(labels).argmax()]), fits)
        assert auroc(clean, found) >= 0.995
        assert (found <= threshold).mean() <= 0.02


@pytest.mark.real
@pytest.mark.slow
def test_strip_on_bd_net_is_as_published():
    net = with_input_scale(read_model(real("weights/bd_weights.h5")).net, "raw")
    clean = real_pixels("clean_more")
    pool = strip.overlay_pool(clean)
    found = strip.entropies(net, batches(clean[::2], 32), pool, KEY)
    assert found.mean() == pytest.approx(0.2625, abs=0.02)
    assert found.std() == pytest.approx(0.0702, abs=0.015)
