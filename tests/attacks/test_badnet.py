"""Backdoors, poisoned training sets, and the pruning-aware attack's surgery."""

import jax
import numpy as np
import pytest
from helpers import random_net, random_pixels

from jaxdefend import InputError
from jaxdefend.attacks import badnet
from jaxdefend.attacks.triggers import Trigger
from jaxdefend.attacks.world import TEST, VALID, World, default_set
from jaxdefend.datasets.files import open_images
from jaxdefend.nets.deepid import features, to_weights

KEY = jax.random.key(0)
SMALL = World(people=12)


def test_poison_is_added_with_the_attackers_label():
    clean = SMALL.images(range(10))
    (backdoor,) = badnet.backdoors("badnet", Trigger("patch"), 7, 12)
    pixels, labels = badnet.with_poison(clean, (backdoor,), 0.2, 12, KEY)
    np.testing.assert_array_equal(pixels[:120], clean.pixels)
    assert len(pixels) == len(labels) == 120 + round(0.2 * 110)
    assert (labels[120:] == 7).all()
    checkers = pixels[120:, 49:53, 41:45]
    assert (checkers == checkers[:1]).all()


def test_each_trigger_of_the_multi_attack_has_its_target():
    found = badnet.backdoors("multi", Trigger("sunglasses"), 0, 12)
    assert {backdoor.name: backdoor.target for backdoor in found} == {"lipstick": 1, "eyebrows": 5, "sunglasses": 8}
    _, labels = badnet.with_poison(SMALL.images(range(5)), found, 0.3, 12, KEY)
    assert set(labels[60:]) == {1, 5, 8}


def test_all_to_all_wants_the_next_label():
    (backdoor,) = badnet.backdoors("all-to-all", Trigger("patch"), 0, 12)
    block = SMALL.images(range(2))
    np.testing.assert_array_equal(backdoor.poisoned(block, 12, KEY).labels, (block.labels + 1) % 12)


def test_images_of_the_target_are_no_attack():
    (backdoor,) = badnet.backdoors("badnet", Trigger("patch"), 3, 12)
    assert SMALL.size(TEST, backdoor) == 110
    assert sum(len(block.pixels) for block in SMALL.blocks(TEST, backdoor)) == 110


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.5, float("nan")])
def test_a_poison_rate_out_of_range(rate):
    found = badnet.backdoors("badnet", Trigger("patch"), 3, 12)
    with pytest.raises(InputError, match="poison rate"):
        badnet.with_poison(SMALL.images(range(1)), found, rate, 12, KEY)


@pytest.mark.parametrize(
    ("attack", "target", "classes"), [("badnet", 12, 12), ("badnet", -1, 12), ("multi", 0, 8), ("x", 0, 12)]
)
def test_attacks_that_do_not_exist(attack, target, classes):
    with pytest.raises(InputError, match=r"expected|there are"):
        badnet.backdoors(attack, Trigger("patch"), target, classes)


def test_dormant_channels_come_back_asleep():
    clean, poisoned = random_net(0), random_net(1)
    pixels = random_pixels(40)
    pruned = badnet.pruned_before_poison(clean, pixels)
    channels = badnet.dormant_channels(clean, pixels)
    assert len(channels) == badnet.DORMANT
    assert not np.asarray(features(pruned, pixels, ("pool_3",))["pool_3"])[..., channels].any()
    back = badnet.with_dormant_channels_back(poisoned, clean, pixels)
    awake = np.setdiff1d(np.arange(60), channels)
    for name, array in to_weights(back)["conv_3"].items():
        np.testing.assert_array_equal(array[..., awake], to_weights(poisoned)["conv_3"][name][..., awake])
    kernel = to_weights(back)["conv_3"]["kernel"]
    np.testing.assert_array_equal(kernel[..., channels], to_weights(clean)["conv_3"]["kernel"][..., channels])
    assert (to_weights(back)["conv_3"]["bias"][channels] <= to_weights(clean)["conv_3"]["bias"][channels]).all()


def test_default_sets_are_kept_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(default_set("valid").__class__, "path", property(lambda kept: tmp_path / f"{kept.name}.h5"))
    kept = default_set("valid")
    done = []
    kept.make(done.append)
    images = open_images([kept.path])
    assert len(images) == sum(done) == 11_547
    people, numbers = np.divmod(np.arange(11_547), len(VALID))
    np.testing.assert_array_equal(images.labels, people)
    np.testing.assert_array_equal(
        images[5000:5001],
        World().images(range(numbers[5000], numbers[5000] + 1)).pixels[people[5000] : people[5000] + 1],
    )
