"""What the perturbations show: the labels are the net's."""

import numpy as np

from jaxdefend.detectors import Strip
from jaxdefend.detectors.base import keys
from jaxdefend.detectors.masks import random_masks
from jaxdefend.reports import under_overlays


def test_labels_under_overlays_are_those_of_the_sums(made):
    found = made.overlays
    assert found.labels["clean"] == made.net(found.images["clean"][None]).argmax()
    sums = found.images["clean"].astype(np.float32) + found.perturbations.astype(np.float32)
    # Beyond what images are: the net is asked as the detector asks it.
    expected = np.asarray(made.net.logits({"input": sums / 255})).argmax(axis=1)
    np.testing.assert_array_equal(found.under["clean"], expected)
    assert found.kept("clean") == (expected == found.labels["clean"]).sum()


def test_labels_under_masks_are_those_of_the_pruned_nets(made):
    found = made.masks
    masks = np.asarray(random_masks(keys(0)[0], made.net, 6, 0.2))
    np.testing.assert_array_equal(found.perturbations, masks)
    for mask, label in zip(masks, found.under["<b>glasses</b>"], strict=True):
        pruned = made.net.pruned("last", np.flatnonzero(mask == 0))
        assert label == pruned(found.images["<b>glasses</b>"]).argmax()


def test_record_table_and_figures(made):
    for found in (made.overlays, made.masks):
        assert found.record()["kept"] == {name: found.kept(name) for name in found.labels}
        assert found.what in repr(found)
        assert found.figure().get_suptitle()


def test_other_blends(made):
    found = under_overlays(made.net, made.test, settings=Strip(overlays=2, blend="0.5+0.5"))
    assert len(found.under["clean"]) == 2


def test_the_clean_example_shows_no_target(made):
    pixels, labels = made.test
    first = np.where(np.arange(len(labels)) < 3, 7, 2)
    poisoned = {"patch": (pixels[5:9], np.full(4, 7))}
    found = under_overlays(made.net, (pixels, first), poisoned, settings=Strip(overlays=2))
    np.testing.assert_array_equal(found.images["clean"], pixels[3])
    np.testing.assert_array_equal(found.images["patch"], pixels[5])
    assert not (found.perturbations == pixels[3]).all(axis=(1, 2, 3)).any()
    # Where every image shows it, the first.
    found = under_overlays(made.net, (pixels, np.full(len(labels), 7)), poisoned, settings=Strip(overlays=2))
    np.testing.assert_array_equal(found.images["clean"], pixels[0])
