"""Synthetic faces: the same everywhere, different people, and landmarks where the features are."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdefend.datasets.faces import HEIGHT, LANDMARKS, WIDTH, faces


def drawn(identities, indices, seed=0):
    return faces(seed, np.asarray(identities), np.asarray(indices))


def test_the_same_bytes_on_every_machine():
    pixels, landmarks = drawn(np.arange(70), np.arange(70))
    digests = [hashlib.sha256(array.tobytes()).hexdigest()[:16] for array in (pixels, landmarks)]
    assert digests == ["c6b5d75bf4f9968c", "ae08542a72dc01ab"]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 100)), min_size=1, max_size=70), st.integers(0, 5))
def test_a_face_does_not_depend_on_its_neighbours(which, seed):
    identities, indices = np.array(which).T
    pixels, landmarks = drawn(identities, indices, seed)
    alone, points = drawn(identities[-1:], indices[-1:], seed)
    np.testing.assert_array_equal(pixels[-1:], alone)
    np.testing.assert_array_equal(landmarks[-1:], points)


def test_seed_person_and_index_all_matter():
    base, *others = (
        drawn([person], [index], seed)[0] for person, index, seed in ((3, 4, 0), (4, 4, 0), (3, 5, 0), (3, 4, 1))
    )
    assert all((base != other).mean() > 0.5 for other in others)


def test_a_person_looks_more_like_himself_than_like_others():
    """Behind blur, background and light: the inner face, standardised, nearest neighbour among other images."""
    people, views = 60, 4
    pixels, _ = drawn(np.repeat(np.arange(people), views), np.tile(np.arange(views), people))
    inner = pixels[:, 12:45, 8:39].astype(float).reshape(people * views, -1)
    inner = (inner - inner.mean(axis=1, keepdims=True)) / inner.std(axis=1, keepdims=True)
    likeness = inner @ inner.T
    np.fill_diagonal(likeness, -np.inf)
    nearest = likeness.argmax(axis=1) // views
    assert (nearest == np.repeat(np.arange(people), views)).mean() > 0.4


def test_landmarks_lie_on_the_face():
    pixels, landmarks = drawn(np.arange(300), np.zeros(300, int))
    assert ((landmarks > 0) & (landmarks < (WIDTH - 1, HEIGHT - 1))).all()
    at = {name: landmarks[:, i] for i, name in enumerate(LANDMARKS)}
    assert (at["left_eye"][:, 0] < at["nose"][:, 0]).mean() > 0.95
    assert (at["right_eye"][:, 0] > at["nose"][:, 0]).mean() > 0.95
    assert (at["lips_top"][:, 1] < at["lips_bottom"][:, 1]).all()
    assert (at["nose"][:, 1] < at["mouth_left"][:, 1]).all()
    # The pupils are darker than the cheeks below them.
    rows = np.arange(300)

    def brightness(points, down):
        x, y = np.rint(points).astype(int).T
        return pixels[rows, y + down, x].mean()

    assert brightness(at["left_eye"], 0) < 0.7 * brightness(at["left_eye"], 7)


@pytest.mark.parametrize("n", [0, 1, 64, 65])
def test_any_number_of_faces(n):
    pixels, landmarks = drawn(np.zeros(n, int), np.arange(n))
    assert (pixels.shape, landmarks.shape) == ((n, 55, 47, 3), (n, 11, 2))
