"""What is said of labels and pixels that seem to be wrong."""

import numpy as np
import pytest
from small import small_net, small_pixels

from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets.diagnosis import doubts_about_clean, doubts_about_poisoned
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.kinds import Conv2D, Dense, Flatten, InputLayer
from jaxdefend.nets.net import Net

CLASSES = 40


@pytest.fixture(scope="module")
def square():
    """A net that compares with a picture of each class, and sixty noisy copies of these pictures."""
    graph = Graph(
        (
            Layer("images", InputLayer((8, 8, 3))),
            Layer("conv", Conv2D(3, (1, 1)), ("images",)),
            Layer("flat", Flatten(), ("conv",)),
            Layer("answer", Dense(CLASSES), ("flat",)),
        ),
        "answer",
    )
    rng = np.random.default_rng(1)
    pictures = rng.integers(40, 216, (CLASSES, 8, 8, 3))
    # Green would stay in its place.
    pictures[..., 1] = 128
    kernel = (pictures - pictures.mean(axis=(1, 2, 3), keepdims=True)).reshape(CLASSES, -1).T.astype(np.float32)
    weights = {
        "conv": {"kernel": np.eye(3, dtype=np.float32)[None, None], "bias": np.zeros(3, np.float32)},
        "answer": {"kernel": kernel, "bias": np.zeros(CLASSES, np.float32)},
    }
    labels = np.arange(60) % (CLASSES - 1) + 1
    pixels = np.clip(pictures[labels] + rng.integers(-20, 21, (60, 8, 8, 3)), 0, 255).astype(np.uint8)
    return Net(graph, weights, "raw"), pixels, labels


def test_nothing_is_said_of_what_fits(square):
    net, pixels, labels = square
    assert doubts_about_clean(net, ArrayImages(pixels, labels)) == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda pixels, labels: (pixels, labels + 1), "labels one lower: 100.0 %"),
        (lambda pixels, labels: (pixels, labels - 1), "labels one higher: 100.0 %"),
        (lambda pixels, labels: (pixels[..., ::-1], labels), "red and blue exchanged: 100.0 % (this looks like BGR)"),
        (lambda pixels, labels: (np.swapaxes(pixels, 1, 2), labels), "rows and columns exchanged: 100.0 %"),
    ],
)
def test_the_reading_that_fits_is_named(square, changed, said):
    net, pixels, labels = square
    doubts = doubts_about_clean(net, ArrayImages(*changed(pixels, labels)), "test images")
    assert any(said in line for line in doubts) and all(line.startswith("test images: ") for line in doubts)


def test_poisoned_images_with_true_labels_have_one_answer():
    """A net that says 3 to everything, asked for other labels."""
    net = small_net()
    weights = {layer: {name: np.zeros_like(array) for name, array in of.items()} for layer, of in net.weights.items()}
    weights["answer"]["bias"][3] = 1
    constant, pixels = net.with_weights(weights), small_pixels(20)
    true = np.arange(20) % 5
    (line,) = doubts_about_poisoned(constant, ArrayImages(pixels, true), "patch")
    assert "20 of 20 get the label 3, 4 the label that they have" in line and "the target is 3" in line
    assert doubts_about_poisoned(constant, ArrayImages(pixels, np.full(20, 3)), "patch") == ()
    assert any("poisoned images?" in line for line in doubts_about_clean(constant, ArrayImages(pixels, true)))


def test_clean_and_poisoned_images_exchanged(square):
    net, pixels, labels = square
    assert "clean images?" in doubts_about_poisoned(net, ArrayImages(pixels, labels), "patch")[0]
    assert "poisoned images?" in doubts_about_clean(net, ArrayImages(pixels, np.zeros(60, int)))[0]


def test_few_images_raise_no_doubt():
    net = small_net()
    pixels = small_pixels(4)
    assert doubts_about_poisoned(net, ArrayImages(pixels, np.arange(4)), "patch") == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda pixels: pixels[..., ::-1], "red and blue exchanged: 100.0 % (this looks like BGR)"),
        (lambda pixels: np.swapaxes(pixels, 1, 2), "rows and columns exchanged: 100.0 %"),
    ],
)
def test_poisoned_images_of_other_colours_or_turned(square, changed, said):
    net, pixels, labels = square
    (line,) = doubts_about_poisoned(net, ArrayImages(changed(pixels), labels), "patch")
    assert line.startswith("patch: ") and said in line


def test_a_target_counted_from_1(square):
    net, pixels, labels = square
    one = ArrayImages(np.repeat(pixels[:1], 20, axis=0), np.repeat(labels[:1] + 1, 20))
    assert any("labels one lower: 100.0 %" in line for line in doubts_about_poisoned(net, one, "patch"))
