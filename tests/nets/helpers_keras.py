"""Keras models as files hold them, and hands that change such files."""

import zipfile

import numpy as np
from nets.helpers_nets import filled, keras, keras_logits, layers

from jaxdefend.nets.deepid import deepid

DEEPID = deepid(11)
SMALL_PIXELS = np.random.default_rng(0).integers(0, 256, (4, 10, 9, 3), dtype=np.uint8)


def keras_deepid(classes=11, names=True, weights=None, padding="valid", dropout=False):
    """DeepID in Keras's functional interface, under its own names or those that Keras makes up."""

    def named(name):
        return {"name": name} if names else {}

    images = x = keras.Input((55, 47, 3), **named("input"))
    for k, (filters, size) in enumerate([(20, 4), (40, 3), (60, 3)], start=1):
        x = layers.Conv2D(filters, size, activation="relu", padding=padding, **named(f"conv_{k}"))(x)
        x = layers.MaxPooling2D(**named(f"pool_{k}"))(x)
    conv_4 = layers.Conv2D(80, 2, activation="relu", **named("conv_4"))(x)
    fc_1 = layers.Dense(160, **named("fc_1"))(layers.Flatten(**named("flatten_1"))(x))
    fc_2 = layers.Dense(160, **named("fc_2"))(layers.Flatten(**named("flatten_2"))(conv_4))
    x = layers.Activation("relu", **named("activation_1"))(layers.Add(**named("add_1"))([fc_1, fc_2]))
    if dropout:
        x = layers.Dropout(0.5)(x)
    model = keras.Model(images, layers.Dense(classes, activation="softmax", **named("output"))(x))
    if weights is not None:
        model.set_weights([weights[layer][kind] for layer in DEEPID.weight_shapes for kind in ("kernel", "bias")])
    return model


def small_model(**dense):
    """A net of other kinds than DeepID's, with random arrays."""
    keras.utils.clear_session()
    start = x = keras.Input((10, 9, 3), name="photo")
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="first")(x))
    x = layers.Flatten(name="flat")(layers.SeparableConv2D(5, 2, name="second")(layers.ReLU(name="relu")(x)))
    return filled(keras.Model(start, layers.Dense(6, **{"activation": "softmax", "name": "answer"} | dense)(x)))


def check_small(net, model):
    """The net says what the Keras model says."""
    expected = keras_logits(model, SMALL_PIXELS.astype("float32"))
    np.testing.assert_allclose(net.with_input_scale("raw")(SMALL_PIXELS), expected, rtol=1e-3, atol=1e-2)


def assert_same_weights(net, weights):
    for layer, arrays in net.weights.items():
        for kind, array in arrays.items():
            np.testing.assert_array_equal(array, weights[layer][kind], err_msg=f"{layer}/{kind}")


def replace(file, path, value):
    del file[path]
    file[path] = value


def names(file):
    return [name if isinstance(name, bytes) else name.encode() for name in file.attrs["layer_names"]]


def archive(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
