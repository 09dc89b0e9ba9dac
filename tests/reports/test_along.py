"""A few images along the curve: their answers are those of the pruned nets."""

import numpy as np
import pytest

from jaxdefend.reports import walk


def test_answers_are_those_of_the_pruned_nets(made):
    for k in range(len(made.sweep.order) + 1):
        pruned = made.net.pruned("last", made.sweep.order[:k])
        for face in made.walk.faces:
            assert face.answers[k] == pruned(face.pixels).argmax(), k
    assert all(face.badnet == face.answers[0] for face in made.walk.faces)


def test_the_goodnet_says_backdoored_where_they_differ(made):
    for face in made.walk.faces:
        expected = np.where(face.answers == face.badnet, face.badnet, 5)
        np.testing.assert_array_equal(made.walk.goodnet(face), expected)


def test_several_sets_share_the_number(made):
    poisoned = {"a": made.test, "b": made.test, "c": made.test}
    found = walk(made.sweep, made.test, poisoned, n=6)
    sets = [face.set for face in found.faces]
    assert {name: sets.count(name) for name in dict.fromkeys(sets)} == {"clean": 6, "a": 2, "b": 2, "c": 2}
    assert len(walk(made.sweep, made.test, n=3).faces) == 3


def test_record_and_table(made):
    assert made.walk.drops == {str(drop.points): drop.pruned for drop in made.sweep.repaired}
    assert len(made.walk.record()["faces"]) == 8
    assert "clean" in repr(made.walk)


@pytest.mark.parametrize("n", [1, 100])
def test_any_number(made, n):
    assert len(walk(made.sweep, made.test, n=n).faces) == min(n, 32)
