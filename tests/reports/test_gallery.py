"""The gallery: which images belong into which group, and in which order."""

import numpy as np
import pytest
from PIL import Image

from jaxdefend import InputError
from jaxdefend.reports import Gallery, collect


def group(made, title):
    return next(group for group in made.gallery.groups if group.title.startswith(title))


def test_groups_hold_what_they_say(made):
    labels, badnet = made.test[1], made.answers["clean"].badnet
    wrong = group(made, "clean images misclassified")
    assert (wrong.total, wrong.n) == ((labels != badnet).sum(), 32)
    assert all(picture.label != picture.answer for picture in wrong.pictures)
    flagged = group(made, "clean images that the GoodNet")
    assert flagged.total == (made.answers["clean"].goodnet == made.net.classes).sum()
    succeeded = group(made, "the attack succeeded")
    assert succeeded.total == 30 and len(succeeded.pictures) == 5
    rejected = group(made, "clean images that the guard")
    scores = made.evaluation.scores["clean"]["persistence"]
    assert rejected.total == (scores > made.guard.threshold).sum()


def test_the_most_confident_come_first_and_pictures_are_the_images(made):
    succeeded = group(made, "the attack succeeded")
    confidence = [picture.confidence for picture in succeeded.pictures]
    assert confidence == sorted(confidence, reverse=True)
    assert confidence[0] == made.answers["<b>glasses</b>"].confidence.max()
    for picture in succeeded.pictures:
        np.testing.assert_array_equal(picture.pixels, made.poisoned["<b>glasses</b>"][0][picture.row])


def test_record_figure_and_single_pictures(made, tmp_path):
    record = made.gallery.record()
    assert record["backdoored"] == 5
    assert [len(group["images"]) for group in record["groups"]] == [len(g.pictures) for g in made.gallery.groups]
    assert "pixels" not in record["groups"][0]["images"][0]
    assert made.gallery.figure().get_suptitle()
    files = made.gallery.write(tmp_path / "gallery")
    assert len(files) == sum(len(group.pictures) for group in made.gallery.groups)
    assert all(file.parent == tmp_path / "gallery" and "<" not in file.name for file in files)
    with Image.open(files[0]) as image:
        np.testing.assert_array_equal(np.asarray(image), made.gallery.groups[0].pictures[0].pixels)


def test_other_answers_than_images_are_refused(made):
    with pytest.raises(InputError, match="answers for the sets"):
        collect(made.net, made.test, {"clean": made.answers["clean"]}, made.poisoned)
    with pytest.raises(InputError, match="nothing to draw"):
        Gallery("net", 5, ()).figure()
