"""What every repair keeps: rows from the table of contents, one for each method."""

import dataclasses
import json
from fractions import Fraction

import jax
import matplotlib.figure
import numpy as np
import pytest
from checked import unchecked
from small import CLASSES, SHAPE, small_images, small_net, small_pixels

from jaxdefend import InputError, Interrupted, TrainingDiverged
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.datasets.inverted import InvertedTrigger
from jaxdefend.repairs import METHODS, FinePrune, Grid, Noise, Prune, base
from jaxdefend.results.progress import silent
from jaxdefend.results.records import write_json

TABLE = METHODS | {"grid": Grid}
SEED = 3


TRIGGER = InvertedTrigger(np.eye(*SHAPE[:2], dtype=np.float32), np.zeros(SHAPE, np.float32), target=0)


def settings_of(name):
    """Small ones: two epochs of two steps."""
    small = {"epochs": 2, "batch": 8, "channels": 2, "b0": 1, "fractions": (0.5,), "learning_rates": (1e-3, 3e-3)}
    small["trigger"] = (TRIGGER,)
    names = [field.name for field in dataclasses.fields(TABLE[name]) if field.name in small]
    return TABLE[name](**{name: small[name] for name in names})


TRAINED = [name for name in TABLE if hasattr(settings_of(name), "epochs")]
UNTRAINED = [name for name in TABLE if name not in TRAINED]


@pytest.fixture(scope="module")
def repaired():
    """By method: its repair, and what was reported meanwhile. Made once, when it is first asked for."""
    made = {}

    def of(name):
        if name not in made:
            told = []
            made[name] = settings_of(name)(small_net(), small_images(), seed=SEED, progress=told.append), told
        return made[name]

    return of


def bytes_of(net):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(net)]


@pytest.mark.parametrize("name", TABLE)
def test_the_result(repaired, name, tmp_path):
    found, told = repaired(name)
    assert found.method == name and found.settings == settings_of(name)
    assert found.net.graph == small_net().graph and found.net.input_scale == "unit"
    # It is another net than the one in the file.
    assert found.net.source is None
    write_json(tmp_path / "repair.json", found.record())
    record = json.loads((tmp_path / "repair.json").read_text())
    assert record["method"] == name and record["rule"] == ("anti" if name == "anti" else "goodnet")
    assert set(record["settings"]) == set(found.chosen)
    assert repr(found).split()[:2] == ["repair", name]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.net = None
    assert all(0 <= step.done <= step.total for step in told)


@pytest.mark.parametrize("name", TABLE)
def test_the_net_itself_is_unchanged(name, repaired):
    """Nor are the images."""
    repaired(name)
    net, images = small_net(), small_images()
    settings_of(name)(net, images, seed=SEED)
    assert bytes_of(net) == bytes_of(small_net())
    for one, other in zip(images, small_images(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", TABLE)
def test_equal_seeds_give_equal_bytes_and_others_another_net(repaired, name):
    found, _ = repaired(name)
    again = settings_of(name)(small_net(), ArrayImages(*small_images()), seed=SEED)
    assert bytes_of(again.net) == bytes_of(found.net)
    other = settings_of(name)(small_net(), small_images(), seed=SEED + 1)
    assert (bytes_of(other.net) == bytes_of(found.net)) == (name in UNTRAINED)


@pytest.mark.parametrize("name", [name for name in TABLE if name != "clp"])
def test_a_progress_callback_may_stop_it(repaired, name):
    """Clp looks at no image: there is nothing to wait for."""
    _, told = repaired(name)
    assert told

    def stop(step):
        raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"):
        settings_of(name)(small_net(), small_images(), seed=SEED, progress=stop)


@pytest.mark.parametrize("name", TRAINED)
def test_the_history_and_its_figure(repaired, name):
    found, told = repaired(name)
    assert [epoch.number for epoch in found.history] == [1, 2]
    assert all(np.isfinite(epoch.loss) for epoch in found.history)
    assert isinstance(found.figure(), matplotlib.figure.Figure)
    lines = [step.message for step in told if step.message]
    assert len(lines) == 2 and lines[1].startswith("epoch 2 of 2: ")
    steps = [step.done for step in told if step.title == name]
    # Two steps per epoch; the line at its end repeats the number.
    assert steps == [0, 1, 2, 2, 3, 4, 4]


@pytest.mark.parametrize("name", UNTRAINED)
def test_what_does_not_train_has_no_history(repaired, name):
    found, _ = repaired(name)
    assert found.history == ()
    with pytest.raises(InputError, match=f"{name} does not train"):
        found.figure()


@pytest.mark.parametrize("name", [name for name in TABLE if hasattr(settings_of(name), "channels")])
def test_the_channels_of_prune_go_and_stay_away(repaired, name):
    found, _ = repaired(name)
    channels = repaired("prune")[0].chosen["channels"]
    np.testing.assert_array_equal(found.chosen["channels"], channels)
    arrays = found.net.weights["last"]
    assert len(channels) == 2
    assert not arrays["kernel"][..., channels].any() and not arrays["bias"][channels].any()
    assert np.delete(arrays["kernel"], channels, -1).any(axis=(0, 1, 2)).all()


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(
    ("images", "said"),
    [
        (small_pixels(), "clean images: no labels"),
        (ArrayImages(np.zeros((0, *SHAPE), np.uint8), np.zeros(0, int)), "no images: the set is empty"),
        ((image for image in small_pixels()), "once only"),
        ((small_pixels(4), np.arange(5)), "labels"),
        ("clean.h5", "open it with open_images"),
    ],
)
def test_images_that_cannot_be_used(name, images, said):
    with pytest.raises(InputError, match=said):
        settings_of(name)(small_net(), images)


@pytest.mark.parametrize("name", TRAINED)
def test_too_few_images_to_train_on(name):
    pixels, labels = small_images(9)
    with pytest.raises(InputError, match="9 clean images to train on; expected ten or more"):
        settings_of(name)(small_net(), (pixels, labels))


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "distill"])
def test_images_of_one_class(name):
    with pytest.raises(InputError, match="all 24 clean images have the label 2"):
        settings_of(name)(small_net(), (small_pixels(), np.full(24, 2)))


@pytest.mark.parametrize("name", TRAINED)
def test_a_stopped_run_goes_on_to_the_same_bytes(repaired, name, tmp_path):
    """Stopped in the second epoch; the first one is saved."""
    whole, _ = repaired(name)
    saved = tmp_path / "run"

    def stop(step):
        if step.title == name and step.done == 3:
            raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"):
        settings_of(name)(small_net(), small_images(), seed=SEED, progress=stop, saved=saved)
    assert (saved / "configuration.json").exists() and (saved / "2").is_dir()
    told = []
    found = settings_of(name)(small_net(), small_images(), seed=SEED, progress=told.append, saved=str(saved))
    assert bytes_of(found.net) == bytes_of(whole.net)
    assert [step.done for step in told if step.title == name] == [2, 3, 4, 4]
    assert json.dumps(found.chosen, default=str) == json.dumps(whole.chosen, default=str)
    assert found.history == whole.history
    if whole.b0 is not None:
        assert bytes_of(found.b0) == bytes_of(whole.b0)
    # What is saved is whole: nothing is trained again.
    told.clear()
    again = settings_of(name)(small_net(), small_images(), seed=SEED, progress=told.append, saved=saved)
    assert bytes_of(again.net) == bytes_of(whole.net) and again.history == whole.history
    assert [step.done for step in told if step.title == name] == [4]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 9}, "another seed, expected 9"),
        ({"net": small_net(1)}, "another net"),
        ({"clean": small_images(25)}, "another images"),
        ({"settings": Noise(epochs=2, batch=8, channels=1)}, "another channels, expected 1"),
        ({"settings": METHODS["fine-prune"](epochs=2, batch=8, channels=2)}, "another method, expected fine-prune"),
    ],
)
def test_a_folder_of_another_run_is_refused(tmp_path, changed, said):
    def stop(step):
        raise Interrupted

    usual = {"settings": settings_of("noise"), "net": small_net(), "clean": small_images(), "seed": SEED}

    def run(settings, net, clean, seed):
        settings(net, clean, seed=seed, progress=stop, saved=tmp_path / "run")

    with pytest.raises(Interrupted):
        run(**usual)
    with pytest.raises(InputError, match=said) as refused:
        run(**usual | changed)
    assert "\n" not in str(refused.value)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(InputError, match="holds something else"):
        settings_of("noise")(small_net(), small_images(), saved=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        settings_of("noise")(small_net(), small_images(), saved=tmp_path / "file" / "run")


# --- held-out images ------------------------------------------------------------------------------------------------


def test_a_tenth_is_held_out_and_nothing_is_lost():
    pixels, labels = small_pixels(37), np.arange(37, dtype=np.int32)
    parts = base.split(Noise(batch=8), ArrayImages(pixels, labels), SEED)
    assert len(parts.held_out) == 3 and parts.passes == 34 // 8
    assert sorted([*parts.labels, *parts.held_out.labels]) == list(range(37))
    np.testing.assert_array_equal(parts.pixels, pixels[parts.labels])
    np.testing.assert_array_equal(parts.held_out.pixels, pixels[parts.held_out.labels])
    again = base.split(Noise(batch=8), ArrayImages(pixels, labels), SEED)
    np.testing.assert_array_equal(parts.labels, again.labels)


def test_a_batch_larger_than_the_set_is_the_set():
    assert base.split(Noise(batch=512), ArrayImages(*small_images()), 0).passes == 1


def test_everything_pruned_leaves_nothing_to_train():
    with pytest.raises(InputError, match="all 6 channels of last pruned: nothing is left to train"):
        Noise(fraction=1.0, epochs=1)(small_net(), small_images())


def test_a_drop_stays_exact():
    found = FinePrune(drop=Fraction(25, 2), epochs=2, batch=8)(small_net(), small_images())
    assert found.chosen["drop"] == 12.5 and "fraction" not in found.chosen


def test_a_labels_class_that_the_net_does_not_have():
    """Its loss is not a number, and nothing hangs or crashes."""
    pixels, labels = small_images()
    labels[labels == 0] = CLASSES + 5
    with pytest.raises((TrainingDiverged, InputError)):
        settings_of("fine-prune")(small_net(), (pixels, labels))


@pytest.mark.parametrize("seed", [-1, 1.5, True, 2**32, "0"])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match=r"seed .*: expected a whole number"):
        unchecked(base.repaired)(Prune(channels=1), small_net(), small_images(), seed, silent, None)


def test_settings_and_records_are_plain():
    """Numbers of NumPy may be given, and JSON takes what comes out."""
    found = unchecked(Prune)(channels=np.int64(2))(small_net(), small_images())
    assert type(found.settings.channels) is int
    assert len(json.loads(json.dumps(found.record()))["settings"]["channels"]) == 2
