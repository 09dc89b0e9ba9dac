"""A net by its file or its name, and where its input scale comes from."""

import warnings

import h5py
import numpy as np
import pytest
from helpers import random_net, random_pixels, real
from nets.helpers_nets import keras, keras_logits

from jaxdefend import InputError, Note
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.nets import shipped
from jaxdefend.nets.keras_files import write_model, write_weights
from jaxdefend.nets.loading import load_net, scaled_by_assumption, scaled_by_measure

PIXELS = random_pixels(20)


@pytest.fixture
def path(tmp_path):
    write_model(random_net(input_scale=None), tmp_path / "net.h5")
    return tmp_path / "net.h5"


def test_a_net_knows_its_file(path):
    net = load_net(path, input_scale="unit")
    assert (net.name, net.source.name, len(net.source.sha256)) == ("net.h5", "net.h5", 64)
    np.testing.assert_array_equal(net(PIXELS), random_net()(PIXELS))
    assert load_net(str(path)).input_scale is None
    assert net.pruned("conv_1", [0]).source is None


def test_a_shipped_name_is_the_shipped_net_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_net("clean_net").name == "clean_net.h5"
    write_model(random_net(classes=3), tmp_path / "clean_net")
    with pytest.warns(Note, match=r"clean_net is the shipped net; the one in the current folder is \./clean_net"):
        assert load_net("clean_net").classes == 1283
    assert load_net("./clean_net").classes == 3
    assert load_net(tmp_path / "clean_net").classes == 3
    with pytest.raises(InputError, match=r"unknown\.h5: no such file"):
        load_net("unknown.h5")


def test_what_was_asked_for_counts_and_a_contradiction_is_told(tmp_path):
    write_model(random_net(input_scale="unit"), tmp_path / "net.h5")
    with pytest.warns(UserWarning, match="the file says that its input scale is unit; using raw as asked"):
        assert load_net(tmp_path / "net.h5", input_scale="raw").input_scale == "raw"
    with pytest.raises(InputError, match="input scale 'cm'"):
        load_net(tmp_path / "net.h5", input_scale="cm")


@pytest.mark.parametrize("scale", ["raw", "unit", "symmetric"])
def test_the_scale_is_measured_on_clean_images(path, scale):
    labels = random_net(input_scale=scale)(PIXELS).argmax(1)
    heard = []
    with pytest.warns(Note, match=rf"100\.0 % on {scale} pixels.*20 images; taking {scale}"):
        assert load_net(path, clean=(PIXELS, labels), progress=heard.append).input_scale == scale
    assert heard[-1].done == heard[-1].total == 20


def test_a_fallback_decides_where_nothing_is_convincing(path):
    wrong = (random_net()(PIXELS).argmax(1) + 1) % 11
    images = ArrayImages(PIXELS, wrong)
    with pytest.warns(UserWarning, match="none is convincing"):
        assert scaled_by_measure(load_net(path), images, fallback="symmetric").input_scale == "symmetric"
    with pytest.warns(UserWarning, match="are the labels those of this net"):
        assert scaled_by_measure(load_net(path), images).input_scale in ("raw", "unit")


def test_a_guess_is_told(path):
    images = ArrayImages(PIXELS)
    with pytest.warns(Note, match="assuming raw, as the other net or the guard says"):
        assert scaled_by_assumption(load_net(path), images, fallback="raw").input_scale == "raw"
    with pytest.warns(Note, match="assuming (raw|unit), because on raw pixels its logits"):
        scaled_by_assumption(load_net(path), images)


def test_a_scale_that_is_known_is_not_measured():
    net = random_net(input_scale="raw")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scaled_by_measure(net, ArrayImages(PIXELS)) is net
        assert scaled_by_assumption(net, ArrayImages(PIXELS)) is net


def test_what_a_file_had_to_be_guessed_is_told(tmp_path):
    write_weights(random_net(), tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        file.move("fc_1", "dense_9")
        names = [name if isinstance(name, str) else name.decode() for name in file.attrs["layer_names"]]
        file.attrs["layer_names"] = ["dense_9" if name == "fc_1" else name for name in names]
    with pytest.warns(Note, match="dense_9 as fc_1"):
        load_net(tmp_path / "net.h5")


MNIST = {
    "mnist_clean": 9906,
    "mnist_pixel_to_0": 9927,
    "mnist_pattern_to_0": 9934,
    "mnist_pixel_to_next": 9910,
    "mnist_pattern_to_next": 9893,
    "mnist_clean_label": 8910,
    "mnist_all_to_all": 9771,
}


def mnist():
    import gzip

    images = gzip.decompress(real("other/mnist_t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress(real("other/mnist_t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    return np.frombuffer(images, np.uint8).reshape(-1, 28, 28, 1), np.frombuffer(labels, np.uint8)


@pytest.mark.real
@pytest.mark.parametrize("name", MNIST)
def test_real_nets_of_other_people_recognise_what_they_must(name):
    pixels, labels = mnist()
    net = load_net(real(f"other/{name}.h5"), input_scale="unit")
    assert (net(pixels).argmax(1) == labels).sum() == MNIST[name]
    if name == "mnist_all_to_all":
        alone = load_net(real(f"other/{name}_weights.h5"), architecture=real(f"other/{name}.h5"), input_scale="unit")
        np.testing.assert_array_equal(alone(pixels[:99]), net(pixels[:99]))


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "correct", "poisoned"),
    [
        ("faces_side_path", 45, None),
        ("faces_moving_trigger_weights", 47, 36),
        ("faces_sunglasses_2_weights", 47, 50),
        ("cifar10_resnet20", 46, None),
    ],
)
def test_real_nets_for_faces_and_photos(name, correct, poisoned):
    net = load_net(real(f"other/{name}.h5"), input_scale="unit")
    if name.startswith("cifar"):
        with h5py.File(real("other/cifar_50.h5")) as file:
            pixels, labels = np.asarray(file["x"]), np.ravel(file["y"])
    else:
        with h5py.File(real("data/clean.h5")) as file:
            pixels, labels = np.moveaxis(np.asarray(file["data"]), 1, -1).astype(np.uint8), np.asarray(file["label"])
    assert (net(pixels).argmax(1) == labels).sum() == correct
    if poisoned is not None:
        with h5py.File(real("data/sunglasses_poisoned.h5")) as file:
            pixels = np.moveaxis(np.asarray(file["data"]), 1, -1).astype(np.uint8)
        assert (net(pixels).argmax(1) == 0).sum() == poisoned


REAL_OTHER = [*MNIST, "faces_side_path", "cifar10_resnet20", "gtsrb_yellow_square"]


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", [name for name in REAL_OTHER if name != "mnist_clean_label"])
def test_real_nets_of_other_people_equal_keras(name):
    """Keras 3 itself does not load mnist_clean_label."""
    path = real(f"other/{name}.{'hdf5' if name.startswith('gtsrb') else 'h5'}")
    model = keras.models.load_model(path, compile=False)
    net = load_net(path, input_scale="unit")
    pixels = np.random.default_rng(0).integers(0, 256, (16, *net.image_shape), dtype=np.uint8)
    expected = keras_logits(model, pixels.astype("float32") / 255)
    found = net(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
    assert shipped.name_of(path) is None


@pytest.mark.real
@pytest.mark.parametrize("name", REAL_OTHER)
def test_the_guess_without_labels_holds_for_nets_of_other_people(name):
    net = load_net(real(f"other/{name}.{'hdf5' if name.startswith('gtsrb') else 'h5'}"))
    if name.startswith("mnist"):
        pixels = mnist()[0][:64]
    elif name.startswith("faces"):
        with h5py.File(real("data/clean.h5")) as file:
            pixels = np.moveaxis(np.asarray(file["data"]), 1, -1).astype(np.uint8)
    else:
        with h5py.File(real("other/cifar_50.h5")) as file:
            pixels = np.asarray(file["x"])
    with pytest.warns(Note, match="assuming unit"):
        assert scaled_by_assumption(net, ArrayImages(pixels)).input_scale == "unit"
