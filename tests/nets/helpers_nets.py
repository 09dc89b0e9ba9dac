"""Random Keras models over the closed list of kinds, what Keras says of them, and files that are damaged on purpose."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import keras
import numpy as np
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from keras import layers

from jaxdefend.nets import kinds

# Building and running a Keras model takes seconds.
UNHURRIED = {"deadline": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.explicit, Phase.generate]}
FUNCTIONS = ["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus", "relu6", "hard_tanh"]
ENDS = ["inside", "activation", "softmax layer", "none", "sigmoid"]


def filled(model: keras.Model, seed: int = 0) -> keras.Model:
    """Random arrays of a sound size; variances above zero."""
    rng = np.random.default_rng(seed)

    def drawn(variable):
        shape, name = variable.shape, variable.path.rpartition("/")[2]
        if "variance" in name:
            return rng.uniform(0.5, 2, shape)
        if "kernel" in name:
            fan_in = np.prod(shape[:-1]) if "depthwise" not in variable.path else np.prod(shape[:2])
            return rng.normal(scale=np.sqrt(2 / fan_in), size=shape)
        return rng.normal(1 if "gamma" in name else 0, 0.3, shape)

    for variable in model.variables:
        if "seed" not in variable.path and "count" not in variable.path:
            variable.assign(drawn(variable).astype("float32"))
    return model


def keras_logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What goes into the model's last softmax or sigmoid."""
    last = model.layers[-1]
    if isinstance(last, layers.Softmax) or (
        isinstance(last, layers.Activation) and last.activation.__name__ == "softmax"
    ):
        return np.asarray(keras.Model(model.inputs, last.input)(images))
    before = getattr(last, "activation", None)
    if before is not None and before.__name__ in ("softmax", "sigmoid"):
        last.activation = keras.activations.linear
        found = np.asarray(model(images))
        last.activation = before
        return found
    return np.asarray(model(images))


def assert_close(found, expected):
    """Equal within 1e-3, relative to the largest; and the same labels."""
    np.testing.assert_allclose(found, expected, atol=1e-3 * max(np.abs(expected).max(), 1e-6), rtol=0)
    top = np.sort(expected, axis=1)
    clear = top[:, -1] - top[:, -2] > 2e-3 * np.abs(expected).max()
    np.testing.assert_array_equal(found.argmax(1)[clear], expected.argmax(1)[clear])


def pixels_for(model: keras.Model, n: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *model.input_shape[1:]), dtype=np.uint8)


@st.composite
def keras_models(draw) -> keras.Model:
    """A model of three to nine layers, with or without branches, of any kinds."""
    keras.utils.clear_session()
    size = draw(st.integers(8, 14))
    channels = draw(st.sampled_from([1, 3]))
    start = x = keras.Input((size, size + draw(st.integers(0, 2)), channels))
    for _ in range(draw(st.integers(1, 4))):
        x = draw(st.sampled_from(BLOCKS))(draw, x)
    x = draw(st.sampled_from(FLATTENERS))(draw, x)
    for _ in range(draw(st.integers(0, 2))):
        x = draw(st.sampled_from(FLAT_BLOCKS))(draw, x)
    outputs = _ended(draw(st.sampled_from(ENDS)), x, draw(st.integers(2, 7)))
    return filled(keras.Model(start, outputs), draw(st.integers(0, 99)))


def _ended(end, x, classes):
    if end == "sigmoid":
        return layers.Dense(1, activation="sigmoid")(x)
    x = layers.Dense(classes, activation="softmax" if end == "inside" else None)(x)
    return {"activation": layers.Activation("softmax"), "softmax layer": layers.Softmax()}.get(end, lambda x: x)(x)


def _function(draw):
    return draw(st.sampled_from([None, *FUNCTIONS]))


def _windows(draw, x, kernel=True):
    sides = x.shape[1:3]
    size = tuple(draw(st.integers(1, min(3, side))) for side in sides)
    strides = draw(st.sampled_from([1, 1, 2]))
    given = {"strides": strides, "padding": draw(st.sampled_from(["valid", "same"]))}
    if kernel:
        dilation = draw(st.sampled_from([1, 1, 2])) if strides == 1 and min(sides) > 5 else 1
        given |= {"dilation_rate": dilation, "use_bias": draw(st.booleans()), "activation": _function(draw)}
    return size, given


def _convolution(draw, x):
    size, given = _windows(draw, x)
    groups = draw(st.sampled_from([g for g in (1, 1, 2, 3) if x.shape[-1] % g == 0]))
    return layers.Conv2D(groups * draw(st.integers(1, 3)), size, groups=groups, **given)(x)


def _depthwise(draw, x):
    size, given = _windows(draw, x)
    given["strides"] = int(given["strides"])
    return layers.DepthwiseConv2D(size, depth_multiplier=draw(st.integers(1, 2)), **given)(x)


def _separable(draw, x):
    size, given = _windows(draw, x)
    return layers.SeparableConv2D(draw(st.integers(1, 5)), size, depth_multiplier=draw(st.integers(1, 2)), **given)(x)


def _pool(draw, x):
    size, given = _windows(draw, x, kernel=False)
    kind = draw(st.sampled_from([layers.MaxPooling2D, layers.AveragePooling2D]))
    return kind(size, **given)(x)


def _normalized(draw, x):
    center, scale = draw(st.booleans()), draw(st.booleans())
    if draw(st.booleans()):
        return layers.BatchNormalization(center=center, scale=scale)(x)
    # Keras loses other axes when it reads an .h5 file.
    return layers.LayerNormalization(axis=-1, center=center, scale=scale)(x)


def _activated(draw, x):
    return draw(
        st.sampled_from(
            [
                lambda: layers.Activation(_function(draw)),
                lambda: layers.ReLU(max_value=draw(st.sampled_from([None, 6.0])), negative_slope=0.1, threshold=0.2),
                lambda: layers.LeakyReLU(0.2),
                lambda: layers.ELU(0.7),
                lambda: layers.Softmax(),
                lambda: layers.Activation("hard_sigmoid"),
                lambda: layers.Activation("hard_silu"),
            ]
        )
    )()(x)


def _shifted(draw, x):
    return draw(
        st.sampled_from(
            [
                lambda: layers.ZeroPadding2D(((1, 0), (2, 1))),
                lambda: layers.Cropping2D(((0, 1), (1, 0)) if min(x.shape[1:3]) > 2 else 0),
                lambda: layers.UpSampling2D((2, 1)),
                lambda: layers.Rescaling(0.5, 0.1),
                lambda: layers.Permute((2, 1, 3)),
                lambda: layers.Reshape((x.shape[2], x.shape[1], -1)),
                lambda: layers.GaussianNoise(0.3),
            ]
        )
    )()(x)


def _residual(draw, x):
    before = layers.Conv2D(x.shape[-1], 3, padding="same", activation=_function(draw))(x)
    kind = draw(st.sampled_from(["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"]))
    return getattr(layers, kind)()([x, before])


def _side_by_side(draw, x):
    branches = [layers.Conv2D(draw(st.integers(1, 3)), size, padding="same")(x) for size in (1, 3)]
    return layers.Concatenate(axis=draw(st.sampled_from([-1, 3])))(branches)


def _squeezed(draw, x):
    gate = layers.GlobalAveragePooling2D(keepdims=draw(st.booleans()))(x)
    if len(gate.shape) == 2:
        gate = layers.Reshape((1, 1, x.shape[-1]))(gate)
    return layers.Multiply()([x, layers.Dense(x.shape[-1], activation="sigmoid")(gate)])


def _nested(draw, x):
    start = keras.Input(x.shape[1:])
    inner = layers.BatchNormalization()(layers.Conv2D(3, 1, activation="relu")(start))
    return keras.Model(start, inner)(x)


def _sequential(draw, x):
    return keras.Sequential([keras.Input(x.shape[1:]), layers.Conv2D(2, 1), layers.ReLU()])(x)


BLOCKS = [_convolution, _convolution, _depthwise, _separable, _pool, _normalized, _activated, _shifted, _residual]
BLOCKS += [_side_by_side, _squeezed, _nested, _sequential]
FLATTENERS = [
    lambda draw, x: layers.Flatten()(x),
    lambda draw, x: layers.GlobalAveragePooling2D()(x),
    lambda draw, x: layers.GlobalMaxPooling2D()(x),
]
FLAT_BLOCKS = [
    lambda draw, x: layers.Dense(draw(st.integers(2, 9)), activation=_function(draw), use_bias=draw(st.booleans()))(x),
    lambda draw, x: layers.Dropout(0.5)(x),
    lambda draw, x: layers.BatchNormalization()(x),
    lambda draw, x: layers.Concatenate()([x, layers.Dense(2)(x)]),
    lambda draw, x: layers.Activation(_function(draw))(x),
]


def one_of_each_kind() -> dict[str, list]:
    """{kind: layers of Keras behind one another that hold it}, for images of 12×11×3."""
    one = {
        "InputLayer": [],
        "Conv2D": [layers.Conv2D(6, (3, 2), strides=(2, 1), padding="same", groups=2, use_bias=False)],
        "DepthwiseConv2D": [layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu")],
        "SeparableConv2D": [layers.SeparableConv2D(5, (2, 3), dilation_rate=2)],
        "MaxPooling2D": [layers.MaxPooling2D(3, strides=2, padding="same")],
        "AveragePooling2D": [layers.AveragePooling2D((3, 2), strides=(2, 2), padding="same")],
        "GlobalMaxPooling2D": [layers.GlobalMaxPooling2D(keepdims=True)],
        "GlobalAveragePooling2D": [layers.GlobalAveragePooling2D()],
        "ZeroPadding2D": [layers.ZeroPadding2D(((1, 2), (0, 3)))],
        "Cropping2D": [layers.Cropping2D(((1, 2), (0, 3)))],
        "UpSampling2D": [layers.UpSampling2D((2, 3))],
        "Dense": [layers.Dense(3, activation="gelu")],
        "BatchNormalization": [layers.BatchNormalization(epsilon=0.01)],
        "LayerNormalization": [layers.LayerNormalization()],
        "Normalization": [layers.Normalization(mean=[1.0, 2, 3], variance=[4.0, 5, 6])],
        "Rescaling": [layers.Rescaling(1 / 127.5, -1)],
        "Activation": [layers.Activation("selu")],
        "ReLU": [layers.ReLU(6, 0.1, 0.3)],
        "LeakyReLU": [layers.LeakyReLU()],
        "ELU": [layers.ELU(0.5)],
        "Softmax": [layers.Softmax()],
        "Flatten": [layers.Flatten()],
        "Reshape": [layers.Reshape((4, -1, 12))],
        "Permute": [layers.Permute((3, 1, 2))],
    }
    idle = (
        layers.Dropout(0.5),
        layers.AlphaDropout(0.5),
        layers.SpatialDropout2D(0.5),
        layers.GaussianDropout(0.5),
        layers.GaussianNoise(0.5),
        layers.ActivityRegularization(0.1, 0.1),
    )
    merges = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
    one |= {type(layer).__name__: [layer] for layer in idle} | {name: [getattr(layers, name)()] for name in merges}
    assert set(one) == set(kinds.KINDS)
    return one


def model_with(kind: str) -> keras.Model:
    keras.utils.clear_session()
    start = x = keras.Input((12, 11, 3))
    if kind not in ("Normalization", "Rescaling", "Permute"):
        x = layers.Conv2D(4, 1)(x)
    for layer in one_of_each_kind()[kind]:
        merges = kinds.KINDS[kind].reads in (None, 2)
        x = layer([x, layers.Conv2D(4, 1, activation="tanh")(x)]) if merges else layer(x)
    x = layers.Flatten()(x) if len(x.shape) > 2 else x
    return filled(keras.Model(start, layers.Dense(5, activation="softmax")(x)))
