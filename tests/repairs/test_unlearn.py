"""Unlearning: inverted triggers under true labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import CLASSES, SHAPE, small_images, small_net, small_pixels

from jaxdefend import InputError, Interrupted
from jaxdefend.datasets.inverted import InvertedTrigger
from jaxdefend.nets.training import losses
from jaxdefend.repairs import Unlearn
from jaxdefend.repairs.unlearn import of_images_with_triggers

KEY, STEP = jax.random.key(0), jnp.int32(0)


def square(value: float = 255.0, corner: int = 0) -> InvertedTrigger:
    """A square of one grey in the image's corner."""
    mask = np.zeros(SHAPE[:2], np.float32)
    mask[corner : corner + 3, :3] = 1
    return InvertedTrigger(mask, np.full(SHAPE, value, np.float32), target=0)


@pytest.mark.parametrize(("share", "covered"), [(0.25, 6), (1.0, 24), (0.001, 1)])
def test_a_share_of_the_images_has_the_trigger_on(share, covered):
    net, (pixels, labels) = jax.tree.map(jnp.asarray, small_net()), map(jnp.asarray, small_images())
    one = square()
    loss, _ = jax.jit(of_images_with_triggers)(
        np.float32(share), one.mask[None], one.pattern[None], net, pixels, labels, KEY, STEP
    )
    under = jnp.asarray(one(np.asarray(pixels)))
    each = jax.jit(losses)
    expected = jnp.where(jnp.arange(len(pixels)) < covered, each(net, under, labels), each(net, pixels, labels))
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)


def test_every_one_of_several_triggers_is_used():
    net, (pixels, labels) = jax.tree.map(jnp.asarray, small_net()), map(jnp.asarray, small_images())
    several = [square(255, 0), square(0, 6)]
    masks, patterns = (np.stack([getattr(each, name) for each in several]) for name in ("mask", "pattern"))
    loss, _ = jax.jit(of_images_with_triggers)(np.float32(1), masks, patterns, net, pixels, labels, KEY, STEP)
    each = jax.jit(losses)
    alone = [float(each(net, jnp.asarray(one(np.asarray(pixels))), labels).mean()) for one in several]
    chosen = np.asarray(jax.random.randint(KEY, (len(pixels),), 0, 2))
    assert set(chosen.tolist()) == {0, 1}
    mixed = np.where(chosen[:, None, None, None], several[1](np.asarray(pixels)), several[0](np.asarray(pixels)))
    np.testing.assert_allclose(loss, each(net, jnp.asarray(mixed), labels).mean(), rtol=1e-5)
    assert all(float(loss) != pytest.approx(value) for value in alone)


def test_files_and_triggers_give_the_same_net(tmp_path):
    square().save(tmp_path / "one.h5")
    small = {"epochs": 1, "batch": 8}
    found = [
        Unlearn(trigger=given, **small)(small_net(), small_images())
        for given in ((square(),), (str(tmp_path / "one.h5"),), (tmp_path / "one.h5",))
    ]
    for other in found[1:]:
        for one, same in zip(jax.tree.leaves(found[0].net), jax.tree.leaves(other.net), strict=True):
            np.testing.assert_array_equal(one, same)
        assert other.record() == found[0].record()
    assert found[0].chosen["triggers"] == [repr(square())] and found[0].chosen["share"] == 0.2


def test_the_trigger_says_less_about_the_class_afterwards():
    """A random net that is told the labels of images under a trigger."""
    pixels, one = small_pixels(64), square()
    labels = np.random.default_rng(0).integers(0, CLASSES, 64).astype(np.int32)
    settings = Unlearn(trigger=(one,), share=0.5, epochs=30, batch=16, learning_rate=0.01)
    found = settings(small_net(), (pixels, labels)).net
    each = jax.jit(losses)
    before, after = (
        float(each(jax.tree.map(jnp.asarray, net), jnp.asarray(one(pixels)), jnp.asarray(labels)).mean())
        for net in (small_net(), found)
    )
    assert after < 0.8 * before


def test_triggers_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="trigger: none given"):
        Unlearn()(small_net(), small_images())
    with pytest.raises(InputError, match=r"none\.h5: no such file"):
        Unlearn(trigger=(tmp_path / "none.h5",))(small_net(), small_images())
    with pytest.raises(InputError, match="expected files of inverted triggers"):
        Unlearn(trigger=(3,))
    other = InvertedTrigger(np.zeros((2, 2), np.float32), np.zeros((2, 2, 3), np.float32))
    with pytest.raises(InputError, match="expected one of the size of the images"):
        Unlearn(trigger=(other,))(small_net(), small_images())


def test_a_saved_run_knows_its_trigger_by_what_is_in_the_file(tmp_path):
    def stop(step):
        if step.title == "unlearn" and step.done == 3:
            raise Interrupted("enough")

    square().save(tmp_path / "a.h5")
    few, saved = {"epochs": 2, "batch": 8}, tmp_path / "run"
    with pytest.raises(Interrupted):
        Unlearn(**few, trigger=(tmp_path / "a.h5",))(small_net(), small_images(), progress=stop, saved=saved)
    (tmp_path / "a.h5").rename(tmp_path / "moved.h5")
    square(0).save(tmp_path / "a.h5")
    with pytest.raises(InputError, match="saved by a run with another trigger"):
        Unlearn(**few, trigger=(tmp_path / "a.h5",))(small_net(), small_images(), saved=saved)
    Unlearn(**few, trigger=(str(tmp_path / "moved.h5"),))(small_net(), small_images(), saved=saved)
