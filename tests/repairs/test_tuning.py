"""The best epoch, and what diverges."""

import jax
import numpy as np
import pytest
from helpers import random_net
from small import CLASSES, SHAPE, small_images, small_net, small_pixels

from jaxdefend import InputError, TrainingDiverged
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.kinds import Activation, BatchNormalization, Conv2D, Dense, Flatten, InputLayer
from jaxdefend.nets.normalizing import with_statistics_of
from jaxdefend.repairs import Distill, FinePrune, FtSam, Iterative, Noise, Prune, tuning
from jaxdefend.repairs.base import doubts_about_repair, split
from jaxdefend.results.rates import Rate


def bytes_of(net):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(net)]


@pytest.mark.parametrize(
    ("correct", "chosen"),
    [
        # Of four epochs the second half counts, and the latest on a tie.
        ([9, 1, 1, 0], 3),
        ([0, 2, 1, 1], 2),
        ([9, 0, 0, 0], 4),
        ([0, 0, 1, 2], 4),
    ],
)
def test_the_epoch_that_recognises_most_of_the_held_out_images(monkeypatch, correct, chosen):
    nets, counts = [], iter(correct)

    def recognised(net, images):
        assert len(images) == 2
        nets.append(net)
        return next(counts, 0)

    monkeypatch.setattr(tuning, "recognised", recognised)
    found = FinePrune(epochs=4, batch=8, channels=2)(small_net(), small_images())
    assert found.chosen["epoch"] == chosen
    assert found.chosen["held_out_accuracy"] == found.chosen["held_back_accuracy"] == correct[chosen - 1] / 2
    assert [epoch.held_out for epoch in found.history] == correct
    assert bytes_of(found.net) == bytes_of(nets[chosen - 1])


def test_a_net_that_forgets_is_noted(monkeypatch):
    counts = iter([0, 0, 2])
    monkeypatch.setattr(tuning, "recognised", lambda net, images: next(counts))
    (note,) = FinePrune(epochs=2, batch=8, channels=2)(small_net(), small_images()).notes
    assert note.startswith("the repaired net recognises 0 of the 2 held-out images, the net itself 2; choose a lower")


@pytest.mark.parametrize(
    ("settings", "after", "said"),
    [
        (FinePrune(), 83, "choose a lower learning rate or more epochs"),
        (FinePrune(), 84, None),
        (Prune(drop=4), 79, "prune less, or take a method that trains"),
        (Prune(drop=4), 80, None),
        (Prune(drop=30), 54, None),
        (Prune(fraction=0.9), 83, "prune less"),
        (Distill(), 20, "choose a lower learning rate or more epochs"),
    ],
)
def test_a_repair_that_costs_much_is_noted(settings, after, said):
    net = small_net()
    found = doubts_about_repair(settings, net, 500, Rate(94, 100), Rate(after, 100), "clean images")
    assert bool(found) == (said is not None)
    for line in found:
        assert line.startswith(f"the repaired net recognises {after} of the 100 clean images, the net itself 94; ")
        assert said in line


def test_fewer_images_than_classes_speak_for_distill():
    net = small_net()
    (line,) = doubts_about_repair(FinePrune(), net, net.classes - 1, Rate(9, 10), Rate(3, 10), "held-out images")
    assert "are few: the method distill needs no image of each" in line
    (line,) = doubts_about_repair(Distill(), net, net.classes - 1, Rate(9, 10), Rate(3, 10), "held-out images")
    assert "distill" not in line


def test_a_loss_that_is_not_a_number():
    told = []
    steps = iter([(None, 0.5), (None, float("nan"))])
    with pytest.raises(TrainingDiverged, match=r"^learning rate 0\.9: training diverged in epoch 2, the loss is not"):
        list(tuning.epochs_of(Noise(epochs=3, learning_rate=0.9), steps, done=0, passes=1, report=told.append))
    assert [step.done for step in told] == [0, 1, 2]


def test_a_diverged_training_leaves_the_last_good_epoch(tmp_path, monkeypatch):
    fit = tuning.fit

    def diverging(*arguments):
        for number, (state, loss) in enumerate(fit(*arguments), 1):
            yield state, loss if number < 4 else float("nan")

    monkeypatch.setattr(tuning, "fit", diverging)
    with pytest.raises(TrainingDiverged, match=r"learning rate 0\.005: training diverged in epoch 2"):
        FinePrune(epochs=2, batch=8, channels=2)(small_net(), small_images(), saved=tmp_path / "run")
    assert (tmp_path / "run" / "2").is_dir() and not (tmp_path / "run" / "4").exists()


NORMALIZED = Graph(
    (
        Layer("images", InputLayer(SHAPE)),
        Layer("conv", Conv2D(6, (3, 3)), ("images",)),
        Layer("norm", BatchNormalization(), ("conv",)),
        Layer("relu", Activation("relu"), ("norm",)),
        Layer("flat", Flatten(), ("relu",)),
        Layer("answer", Dense(CLASSES), ("flat",)),
    ),
    "answer",
)


@pytest.mark.parametrize("method", [FinePrune, Iterative, FtSam])
def test_statistics_are_kept_or_measured(method):
    net, pixels = random_net(graph=NORMALIZED), small_pixels(40)
    labels = net(pixels).argmax(axis=1).astype(np.int32)
    labels[:CLASSES] = np.arange(CLASSES)
    few = {"epochs": 2, "batch": 16, "learning_rate": 1e-3} | ({} if method is FtSam else {"channels": 1})
    kept, measured = (method(**few, statistics=which)(net, (pixels, labels)) for which in ("kept", "measured"))
    before = net.weights["norm"]["moving_mean"]
    alive = kept.net.weights["norm"]["gamma"] != 0
    np.testing.assert_array_equal(kept.net.weights["norm"]["moving_mean"][alive], before[alive])
    assert (kept.chosen["statistics"], measured.chosen["statistics"]) == ("kept", "measured")

    parts = split(method(**few), ArrayImages(pixels, labels), 0)
    expected = with_statistics_of(measured.net, ArrayImages(parts.pixels))
    for name in ("moving_mean", "moving_variance"):
        found = measured.net.weights["norm"][name]
        np.testing.assert_allclose(found, expected.weights["norm"][name], rtol=1e-4, atol=1e-4)
    assert np.abs(measured.net.weights["norm"]["moving_mean"] - before).max() > 1e-3


def test_a_net_without_batch_normalization_has_no_statistics_to_measure():
    with pytest.raises(InputError, match="statistics measured: this net has no batch normalization"):
        FinePrune(epochs=1, batch=8, channels=1, statistics="measured")(small_net(), small_images())
