"""What is said of labels and pixels that seem to be wrong."""

import numpy as np
import pytest
from small import small_net, small_pixels

from jaxdefend.datasets.images import ArrayImages
from jaxdefend.datasets.pixels import fitted
from jaxdefend.nets.diagnosis import doubts_about_clean, doubts_about_poisoned
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.kinds import Conv2D, Dense, Flatten, InputLayer
from jaxdefend.nets.net import Net

CLASSES = 40


def comparing(classes, shape=(8, 8, 3)):
    """A net that compares with a picture of each class, and noisy copies of these pictures."""
    graph = Graph(
        (
            Layer("images", InputLayer(shape)),
            Layer("conv", Conv2D(3, (1, 1)), ("images",)),
            Layer("flat", Flatten(), ("conv",)),
            Layer("answer", Dense(classes), ("flat",)),
        ),
        "answer",
    )
    rng = np.random.default_rng(1)
    # Patches, which outlive resizing.
    small = rng.integers(40, 216, (classes, shape[0] // 4 * 2, shape[1] // 4 * 2, 3))
    pictures = small.repeat(2, axis=1).repeat(2, axis=2)
    # Green would stay in its place.
    pictures[..., 1] = 128
    kernel = (pictures - pictures.mean(axis=(1, 2, 3), keepdims=True)).reshape(classes, -1).T.astype(np.float32)
    weights = {
        "conv": {"kernel": np.eye(3, dtype=np.float32)[None, None], "bias": np.zeros(3, np.float32)},
        "answer": {"kernel": kernel, "bias": np.zeros(classes, np.float32)},
    }
    labels = np.resize(np.arange(1, classes, max(1, classes // 60)), 60)
    pixels = np.clip(pictures[labels] + rng.integers(-20, 21, (60, *shape)), 0, 255).astype(np.uint8)
    return Net(graph, weights, "raw"), pixels, labels


@pytest.fixture(scope="module")
def square():
    return comparing(CLASSES)


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


def test_half_right_is_doubtful_too(square):
    """Images whose red and blue are alike are right in either order."""
    net, pixels, labels = square
    alike = pixels // 2 + pixels[..., ::-1] // 2
    mixed = ArrayImages(np.concatenate([alike[:30], pixels[30:, ..., ::-1]]), labels)
    (line,) = doubts_about_clean(net, mixed)
    assert line.startswith("clean images: 5") and "with red and blue exchanged: 100.0 %" in line
    assert doubts_about_clean(net, ArrayImages(alike, labels)) == ()


def test_labels_cut_to_eight_bits():
    net, pixels, labels = comparing(400)
    pixels, labels = pixels[labels > 200], labels[labels > 200]
    (line,) = doubts_about_clean(net, ArrayImages(pixels, labels.astype(np.uint8).astype(int)))
    assert "with labels modulo 256: 100.0 % (they seem to have been cut to 8 bits)" in line


def test_images_turned_before_they_were_resized():
    net, pixels, labels = comparing(40, (32, 24, 3))
    turned = fitted(np.swapaxes(pixels, 1, 2), (32, 24, 3))
    (line,) = doubts_about_clean(net, ArrayImages(turned, labels))
    assert "with rows and columns exchanged: " in line


@pytest.mark.parametrize("largest", [0, 1])
def test_black_images(square, largest):
    net, pixels, labels = square
    black = ArrayImages(np.minimum(pixels, largest), labels)
    for doubts in (doubts_about_clean(net, black), doubts_about_poisoned(net, black, "clean images")):
        (line,) = doubts
        assert line.startswith("clean images: no pixel is above 1, the images are black")


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
