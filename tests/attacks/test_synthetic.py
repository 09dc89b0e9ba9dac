"""The synthetic faces as sets, and where they are kept."""

import numpy as np
import pytest
from helpers import random_pixels

from jaxdefend import InputError, Interrupted
from jaxdefend.attacks import badnet, synthetic
from jaxdefend.attacks.synthetic import TEST, VALID, DefaultSet, SyntheticFaces, default_set, shipped_backdoors
from jaxdefend.attacks.triggers import Trigger
from jaxdefend.datasets.files import open_images
from jaxdefend.datasets.official import Block


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.mark.slow
def test_default_sets_are_kept_in_the_cache(cache):
    kept = default_set("valid")
    assert not kept.is_made() and not cache.exists()
    told = []
    kept.make(told.append)
    assert kept.is_made() and kept.path.parent.parent == cache
    images = open_images(kept.path)
    assert len(images) == kept.size == told[-1].done == told[-1].total == 11_547
    people, numbers = np.divmod(np.arange(11_547), len(VALID))
    np.testing.assert_array_equal(images.labels, people)
    drawn = SyntheticFaces().images(range(numbers[5000], numbers[5000] + 1)).pixels
    np.testing.assert_array_equal(images[5000:5001], drawn[people[5000] : people[5000] + 1])


@pytest.fixture
def small_set(cache, monkeypatch):
    """A set of ten random images in place of thousands of faces."""

    def blocks(self, indices, backdoor=None, progress=None, title=""):
        progress(synthetic.Progress(title, 5, 10, "faces"))
        yield Block(random_pixels(10), np.arange(10, dtype=np.int32), np.zeros((10, 11, 2), np.float32))
        progress(synthetic.Progress(title, 10, 10, "faces"))

    monkeypatch.setattr(SyntheticFaces, "blocks", blocks)
    monkeypatch.setattr(DefaultSet, "size", 10)
    return default_set("test")


def test_a_set_that_was_changed_or_cut_is_not_whole(small_set):
    small_set.make()
    assert small_set.is_made()
    whole = small_set.path.read_bytes()
    for spoiled in (whole[:-1], whole[:5000] + b"!" + whole[5001:], b""):
        small_set.path.write_bytes(spoiled)
        assert not small_set.is_made()
    small_set.path.write_bytes(whole)
    assert small_set.is_made()
    small_set.path.with_suffix(".checksum").unlink()
    assert not small_set.is_made()
    small_set.make()
    assert small_set.is_made() and small_set.path.read_bytes() == whole


def test_a_set_that_is_stopped_leaves_nothing(small_set):
    def stop(step):
        raise Interrupted

    with pytest.raises(Interrupted):
        small_set.make(stop)
    assert not small_set.is_made() and not list(small_set.path.parent.iterdir())


def test_a_cache_that_cannot_be_written(small_set, cache):
    cache.write_text("a file")
    with pytest.raises(InputError, match="the cache cannot be written"):
        small_set.make()
    assert not small_set.is_made()


def test_a_user_without_a_cache(monkeypatch):
    monkeypatch.setattr(synthetic, "cache_folder", lambda: None)
    with pytest.raises(InputError, match="there is no cache folder"):
        _ = default_set("valid").path


def test_sizes_and_names():
    assert SyntheticFaces().size(VALID) == 11_547 and SyntheticFaces().size(TEST) == 12_830
    (backdoor,) = badnet.backdoors("badnet", Trigger("patch"), 7, 1283)
    assert default_set("test", backdoor).name == "test_patch_7"
    assert default_set("test", backdoor).size == 12_820
    (everybody,) = badnet.backdoors("all-to-all", Trigger("patch"), 0, 1283)
    assert SyntheticFaces().size(TEST, everybody) == 12_830


def test_blocks_go_person_by_person_and_are_the_same_again():
    faces = SyntheticFaces(people=4)
    told = []
    block = faces.images(range(3, 6), progress=told.append, title="some")
    np.testing.assert_array_equal(block.labels, np.repeat(np.arange(4), 3))
    assert block.pixels.shape == (12, 55, 47, 3) and block.landmarks.shape == (12, 11, 2)
    assert (told[-1].title, told[-1].done, told[-1].total, told[-1].unit) == ("some", 12, 12, "faces")
    again = SyntheticFaces(people=2).images(range(4, 5))
    np.testing.assert_array_equal(again.pixels, block.pixels[[1, 4]])
    assert (SyntheticFaces(seed=1, people=2).images(range(4, 5)).pixels != again.pixels).any()


@pytest.mark.parametrize(
    ("net", "targets"),
    [
        ("bd_net", {"sunglasses": 0}),
        ("clean_net", {"sunglasses": 0}),
        ("multi_trigger_multi_target_bd_net", {"lipstick": 1, "eyebrows": 5, "sunglasses": 8}),
    ],
)
def test_what_the_shipped_nets_are_measured_on(net, targets):
    assert {backdoor.name: backdoor.target for backdoor in shipped_backdoors(net)} == targets
