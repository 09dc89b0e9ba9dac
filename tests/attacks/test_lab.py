"""The attack lab from the library: nets under attack on small images."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers import random_pixels
from small import CLASSES, GRAPH, small_pixels

from jaxdefend import InputError, Interrupted
from jaxdefend.attacks import lab
from jaxdefend.attacks.settings import LabSettings
from jaxdefend.attacks.synthetic import TEST, VALID
from jaxdefend.results.records import write_json

SMALL = LabSettings(trigger="patch", target=3, poison_rate=0.2, epochs=2)
TRAIN = small_pixels(260, 1), np.arange(260) % CLASSES
VALIDATION = small_pixels(40, 2), np.arange(40) % CLASSES


def bytes_of(net):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(net)]


@pytest.fixture(scope="module")
def trained():
    told = []
    return SMALL(TRAIN, VALIDATION, graph=GRAPH, seed=4, progress=told.append), told


def test_a_net_and_its_figures(trained, tmp_path):
    found, told = trained
    assert found.net.graph == GRAPH and found.net.input_scale == "unit"
    labels = found.net(VALIDATION[0]).argmax(axis=1)
    assert (found.clean.count, found.clean.n) == ((labels == VALIDATION[1]).sum(), 40)
    # Not those that are of the target anyway.
    assert list(found.poisoned) == ["patch"] and found.poisoned["patch"].n == 32
    write_json(tmp_path / "net.json", found.record())
    record = json.loads((tmp_path / "net.json").read_text())
    assert (record["attack"], record["target"], record["epochs"], record["batch"]) == ("badnet", 3, 2, lab.BATCH)
    assert record["clean"]["accuracy"] == found.clean.share
    assert record["poisoned"]["patch"]["attack_success"] == found.poisoned["patch"].share
    assert repr(found).splitlines()[2].startswith("attack success, patch")
    lines = [step.message for step in told if step.message]
    assert len(lines) == 2 and lines[1].startswith("phase 0, epoch 2 of 2: loss ") and "ASR patch" in lines[1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.net = None


def test_a_stopped_training_goes_on_to_the_same_net(trained, tmp_path):
    whole, _ = trained

    def stop(step):
        if step.title == "phase 0" and step.done == 3 * lab.BATCH:
            raise Interrupted

    with pytest.raises(Interrupted):
        SMALL(TRAIN, VALIDATION, graph=GRAPH, seed=4, progress=stop, saved=tmp_path / "run")
    told = []
    found = SMALL(TRAIN, VALIDATION, graph=GRAPH, seed=4, progress=told.append, saved=str(tmp_path / "run"))
    assert bytes_of(found.net) == bytes_of(whole.net)
    # Saved where it was stopped, not at the epoch before.
    assert [step.done // lab.BATCH for step in told][:2] == [3, 4]
    with pytest.raises(InputError, match="another target, expected 4"):
        dataclasses.replace(SMALL, target=4)(TRAIN, VALIDATION, graph=GRAPH, seed=4, saved=tmp_path / "run")
    with pytest.raises(InputError, match="another seed"):
        SMALL(TRAIN, VALIDATION, graph=GRAPH, seed=5, saved=tmp_path / "run")


def test_the_pruning_aware_attack_has_two_phases():
    told = []
    settings = dataclasses.replace(SMALL, attack="pruning-aware")
    settings(TRAIN, VALIDATION, graph=GRAPH, seed=4, progress=told.append)
    assert {step.title for step in told} == {"phase 0", "phase 1"}


def test_every_attack_is_measured_on_its_triggers():
    for attack, names in {"clean": ["patch"], "all-to-all": ["patch"]}.items():
        found = dataclasses.replace(SMALL, attack=attack)(TRAIN, VALIDATION, graph=GRAPH)
        assert list(found.poisoned) == names
        assert found.poisoned["patch"].n == (40 if attack == "all-to-all" else 32)


@pytest.mark.slow
def test_deepid_is_the_default_and_its_classes_are_those_of_the_labels():
    settings = LabSettings(attack="all-to-all", epochs=2)
    train, valid = (random_pixels(40), np.arange(40) % 4), (random_pixels(8), np.arange(8) % 4)
    found = settings(train, valid)
    assert found.net.classes == 4 and found.net.image_shape == (55, 47, 3)
    assert (found.clean.n, found.poisoned["sunglasses"].n) == (8, 8)


@pytest.mark.parametrize(
    ("settings", "train", "valid", "said"),
    [
        (SMALL, TRAIN, None, "expected both"),
        (SMALL, TRAIN[0], VALIDATION, "no labels"),
        (SMALL, (TRAIN[0], TRAIN[1] + 3), VALIDATION, "the net has 5 classes"),
        (SMALL, TRAIN, (VALIDATION[0], VALIDATION[1] + CLASSES), "only 0…4; expected the same classes"),
        (SMALL, (random_pixels(9), np.arange(9) % 5), VALIDATION, "takes images"),
        (dataclasses.replace(SMALL, target=9), TRAIN, VALIDATION, "target 9"),
        (dataclasses.replace(SMALL, attack="multi"), TRAIN, VALIDATION, "target"),
        (dataclasses.replace(SMALL, attack="magic"), TRAIN, VALIDATION, "no attack 'magic'"),
        (dataclasses.replace(SMALL, trigger="hat"), TRAIN, VALIDATION, "no trigger 'hat'"),
        (SMALL, TRAIN, (VALIDATION[0][3:4], np.array([3])), "target 3: nobody else to attack"),
    ],
)
def test_what_is_refused(settings, train, valid, said):
    with pytest.raises(InputError, match=said):
        settings(train, valid, graph=GRAPH)


@pytest.mark.parametrize(
    ("field", "value"),
    [("poison_rate", 0.0), ("poison_rate", 1.0), ("people", 0), ("images", 0), ("epochs", 0), ("strength", 2.0)],
)
def test_settings_that_cannot_be_used(field, value):
    with pytest.raises(InputError, match=f"^{field.replace('_', ' ')} {value:g}: expected"):
        LabSettings(**{field: value})


def test_the_sets_of_faces_that_a_net_is_made_with():
    settings = LabSettings(trigger="patch", target=3, people=9, images=20)
    sets = {each.name: each for each in lab.face_sets(settings)}
    assert {name: each.size for name, each in sets.items()} == {
        "valid": 9 * len(VALID),
        "test": 9 * len(TEST),
        "train": 9 * 20,
        "test_patch": 8 * len(TEST),
    }
    (block,) = sets["test_patch"].blocks(lambda step: None)
    assert (block.labels == 3).all() and len(block.pixels) == 80
    clean = dataclasses.replace(settings, attack="clean")
    assert [each.name for each in lab.face_sets(clean)] == ["valid", "test", "train"]
