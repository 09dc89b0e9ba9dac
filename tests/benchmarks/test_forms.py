"""The forms that docs/detect.md compares, against the curve that pruning computes in its own way."""

import numpy as np
from helpers import random_net, random_pixels

from benchmarks import forms
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.repairs.curve import nested_counts


def test_a_label_stays_where_the_pruned_net_agrees():
    net, pixels, order = random_net(3), random_pixels(4, 8), np.random.default_rng(0).permutation(60).tolist()
    found, measures = forms.scores(net, ArrayImages(pixels), order, 0)
    labels = np.zeros(1, np.int32)
    agreed = [
        nested_counts(net, image[None], labels, np.asarray(order), layer="conv_3").agreed[0, 1:-1] for image in pixels
    ]
    np.testing.assert_allclose(found["label stays, ascending curve"], np.mean(agreed, axis=1), atol=1e-6)
    np.testing.assert_allclose(1 - measures["few_changed"].values, found["label stays, keep 0.2"], atol=1e-6)
