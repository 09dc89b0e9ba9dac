"""The kinds of layers, a closed list under Keras's names: settings, the shape of what they give, and their arrays.

Shapes are those of one image: without the batch axis, channels last.
"""

import math
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import Any, ClassVar, Literal, dataclass_transform, get_args

import numpy as np

from jaxdefend import InputError

Shape = tuple[int, ...]
Pair = tuple[int, int]

ActivationName = Literal[
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "tanh",
    "sigmoid",
    "hard_silu",
    "hard_tanh",
    "softplus",
    "softsign",
    "exponential",
    "mish",
    "softmax",
]
ACTIVATIONS: tuple[ActivationName, ...] = get_args(ActivationName)

# What an activation makes of 0, where that is not 0. A softmax looks at the other channels as well.
_OF_ZERO = {"sigmoid": 0.5, "softplus": math.log(2), "exponential": 1.0, "softmax": None}

# No network for pictures comes near; a file may claim anything.
_LARGEST_SETTING = 2**20
_LARGEST_OUTPUT = 2**28


# What `frozen=True` would make anew for each of forty classes is written once, in `Kind`: 15 ms of every start.
@dataclass_transform(frozen_default=True)
def _settings(kind: type) -> Any:
    return dataclass(eq=False, repr=False)(kind)


@_settings
class Kind:
    """The settings of one layer; they are set once. Raises: InputError if Keras would not take them."""

    # How many layers it reads; None: two or more.
    reads: ClassVar[int | None] = 1

    def __post_init__(self):
        for field in fields(self):
            _check(field.name, getattr(self, field.name))

    def __setattr__(self, name: str, value: object) -> None:
        if name in vars(self):
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self).__name__, *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def shape(self, *inputs: Shape) -> Shape:
        """The shape of what it gives. Raises: InputError if it cannot read these."""
        return inputs[0]

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        """The shapes of its arrays, in Keras's order."""
        return {}


def _check(name: str, value: object) -> None:
    if name == "padding" and isinstance(value, str):
        _require(value in ("valid", "same"), name, value, "valid or same")
    elif name == "activation":
        _require(value in ACTIVATIONS, name, value, "one of " + ", ".join(ACTIVATIONS))
    elif isinstance(value, tuple) and name not in ("axis", "scale", "offset", "padding", "cropping"):
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in value)
        least = -1 if name == "target_shape" else 1
        _require(whole and all(least <= n <= _LARGEST_SETTING for n in value), name, value, "whole numbers above 0")
    elif isinstance(value, int) and not isinstance(value, bool):
        _require(-8 <= value <= _LARGEST_SETTING, name, value, f"at most {_LARGEST_SETTING}")
    elif isinstance(value, float):
        _require(math.isfinite(value), name, value, "a finite number")


def _require(true: bool, name: str, value: object, expected: str) -> None:
    if not true:
        raise InputError(f"{name} is {value!r}, expected {expected}")


def of_zero(activation: str) -> float | None:
    """What the activation makes of a channel of zeros; None if that depends on the other channels."""
    return _OF_ZERO.get(activation, 0.0)


@_settings
class InputLayer(Kind):
    """Images, in the net's own scale."""

    reads: ClassVar[int | None] = 0
    image_shape: Shape

    def shape(self, *inputs: Shape) -> Shape:
        return self.image_shape


# --- Convolutions and pools: windows over an image -----------------------------------------------------------------


@_settings
class _Convolution(Kind):
    def _windows(self, image: Shape, size: Pair, strides: Pair, padding: str, dilation: Pair) -> Pair:
        _require(max(strides) == 1 or max(dilation) == 1, "strides", strides, "1 where dilation is above 1")
        spread = ((size[0] - 1) * dilation[0] + 1, (size[1] - 1) * dilation[1] + 1)
        return _windows(image, spread, strides, padding)


@_settings
class Conv2D(_Convolution):
    filters: int
    kernel_size: Pair
    strides: Pair = (1, 1)
    padding: str = "valid"
    dilation_rate: Pair = (1, 1)
    groups: int = 1
    use_bias: bool = True
    activation: str = "linear"

    def shape(self, *inputs: Shape) -> Shape:
        rows, columns = self._windows(inputs[0], self.kernel_size, self.strides, self.padding, self.dilation_rate)
        fits = self.groups >= 1 and inputs[0][2] % self.groups == 0 and self.filters % self.groups == 0
        _require(fits, "groups", self.groups, f"a divisor of {inputs[0][2]} and {self.filters} channels")
        return rows, columns, self.filters

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        kernel = (*self.kernel_size, inputs[0][2] // self.groups, self.filters)
        return {"kernel": kernel} | ({"bias": (self.filters,)} if self.use_bias else {})


@_settings
class DepthwiseConv2D(_Convolution):
    """Every channel by itself; the results of one channel stand side by side."""

    kernel_size: Pair
    depth_multiplier: int = 1
    strides: Pair = (1, 1)
    padding: str = "valid"
    dilation_rate: Pair = (1, 1)
    use_bias: bool = True
    activation: str = "linear"

    def shape(self, *inputs: Shape) -> Shape:
        rows, columns = self._windows(inputs[0], self.kernel_size, self.strides, self.padding, self.dilation_rate)
        return rows, columns, inputs[0][2] * self.depth_multiplier

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        channels = inputs[0][2]
        bias = {"bias": (channels * self.depth_multiplier,)} if self.use_bias else {}
        return {"depthwise_kernel": (*self.kernel_size, channels, self.depth_multiplier)} | bias


@_settings
class SeparableConv2D(_Convolution):
    """A depthwise convolution, then one of 1×1."""

    filters: int
    kernel_size: Pair
    depth_multiplier: int = 1
    strides: Pair = (1, 1)
    padding: str = "valid"
    dilation_rate: Pair = (1, 1)
    use_bias: bool = True
    activation: str = "linear"

    def shape(self, *inputs: Shape) -> Shape:
        rows, columns = self._windows(inputs[0], self.kernel_size, self.strides, self.padding, self.dilation_rate)
        return rows, columns, self.filters

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        channels = inputs[0][2]
        return {
            "depthwise_kernel": (*self.kernel_size, channels, self.depth_multiplier),
            "pointwise_kernel": (1, 1, channels * self.depth_multiplier, self.filters),
        } | ({"bias": (self.filters,)} if self.use_bias else {})


@_settings
class _Pooling(Kind):
    pool_size: Pair = (2, 2)
    strides: Pair = (2, 2)
    padding: str = "valid"

    def shape(self, *inputs: Shape) -> Shape:
        return (*_windows(inputs[0], self.pool_size, self.strides, self.padding), inputs[0][2])


@_settings
class MaxPooling2D(_Pooling):
    pass


@_settings
class AveragePooling2D(_Pooling):
    """Where padding is same, the mean of what lies inside the image."""


def _windows(image: Shape, size: Pair, strides: Pair, padding: str) -> Pair:
    _require_image(image)
    if padding == "same":
        return -(-image[0] // strides[0]), -(-image[1] // strides[1])
    rows, columns = ((image[axis] - size[axis]) // strides[axis] + 1 for axis in (0, 1))
    if min(rows, columns) < 1:
        raise InputError(f"windows of {size[0]}×{size[1]} do not fit into {image[0]}×{image[1]}")
    return rows, columns


def _require_image(shape: Shape) -> None:
    if len(shape) != 3:
        raise InputError(f"reads {_times(shape)}, expected rows × columns × channels")


def _times(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "a single number"


@_settings
class _GlobalPooling(Kind):
    keepdims: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        _require_image(inputs[0])
        return (1, 1, inputs[0][2]) if self.keepdims else (inputs[0][2],)


@_settings
class GlobalMaxPooling2D(_GlobalPooling):
    pass


@_settings
class GlobalAveragePooling2D(_GlobalPooling):
    pass


@_settings
class ZeroPadding2D(Kind):
    """((above, below), (left, right))."""

    padding: tuple[Pair, Pair] = ((1, 1), (1, 1))

    def __post_init__(self):
        _check_edges("padding", self.padding)

    def shape(self, *inputs: Shape) -> Shape:
        _require_image(inputs[0])
        return inputs[0][0] + sum(self.padding[0]), inputs[0][1] + sum(self.padding[1]), inputs[0][2]


@_settings
class Cropping2D(Kind):
    """((above, below), (left, right))."""

    cropping: tuple[Pair, Pair] = ((0, 0), (0, 0))

    def __post_init__(self):
        _check_edges("cropping", self.cropping)

    def shape(self, *inputs: Shape) -> Shape:
        _require_image(inputs[0])
        return inputs[0][0] - sum(self.cropping[0]), inputs[0][1] - sum(self.cropping[1]), inputs[0][2]


def _check_edges(name: str, value: tuple) -> None:
    numbers = [number for pair in value for number in pair]
    whole = all(isinstance(number, int) and 0 <= number <= _LARGEST_SETTING for number in numbers)
    _require(len(numbers) == 4 and whole, name, value, "((above, below), (left, right))")


@_settings
class UpSampling2D(Kind):
    """Every pixel `size` times (nearest)."""

    size: Pair = (2, 2)

    def shape(self, *inputs: Shape) -> Shape:
        _require_image(inputs[0])
        return inputs[0][0] * self.size[0], inputs[0][1] * self.size[1], inputs[0][2]


# --- Along the last axis, or another one ----------------------------------------------------------------------------


@_settings
class Dense(Kind):
    units: int
    use_bias: bool = True
    activation: str = "linear"

    def shape(self, *inputs: Shape) -> Shape:
        _require(len(inputs[0]) > 0, "input", inputs[0], "one axis or more")
        return (*inputs[0][:-1], self.units)

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        kernel = (inputs[0][-1], self.units)
        return {"kernel": kernel} | ({"bias": (self.units,)} if self.use_bias else {})


@_settings
class BatchNormalization(Kind):
    """Along the last axis, by the means and variances that training left behind."""

    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    momentum: float = 0.99

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        there = {"gamma": self.scale, "beta": self.center, "moving_mean": True, "moving_variance": True}
        return {name: inputs[0][-1:] for name, is_there in there.items() if is_there}


@_settings
class LayerNormalization(Kind):
    """Over the axes `axis`, counted from the last one: −1 is the channels."""

    axis: tuple[int, ...] = (-1,)
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        fits = all(isinstance(axis, int) and -len(inputs[0]) <= axis <= -1 for axis in self.axis)
        _require(fits and len(set(self.axis)) == len(self.axis) > 0, "axis", self.axis, "axes of the input")
        along = tuple(inputs[0][axis] for axis in sorted(self.axis))
        return {name: along for name, is_there in (("gamma", self.scale), ("beta", self.center)) if is_there}


@_settings
class Normalization(Kind):
    """(input − mean) / √variance along the last axis, or by one number for all of it."""

    by_channel: bool = True

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        along = inputs[0][-1:] if self.by_channel else (1,)
        return {"mean": along, "variance": along}


@_settings
class Rescaling(Kind):
    """input · scale + offset; one number each, or one per channel."""

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)

    def shape(self, *inputs: Shape) -> Shape:
        for name in ("scale", "offset"):
            numbers = getattr(self, name)
            fits = len(numbers) in (1, inputs[0][-1]) and all(map(math.isfinite, numbers))
            _require(fits, name, numbers, f"one finite number, or {inputs[0][-1]}")
        return inputs[0]


@_settings
class Activation(Kind):
    activation: str

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


@_settings
class ReLU(Kind):
    """As it is above `threshold`, `negative_slope` · (input − threshold) below, at most `max_value`."""

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        _require(self.max_value is None or self.max_value >= 0, "max_value", self.max_value, "0 or more")


@_settings
class LeakyReLU(Kind):
    negative_slope: float = 0.3


@_settings
class ELU(Kind):
    alpha: float = 1.0


@_settings
class Softmax(Kind):
    """Along the last axis."""


# --- Forms ----------------------------------------------------------------------------------------------------------


@_settings
class Flatten(Kind):
    def shape(self, *inputs: Shape) -> Shape:
        return (math.prod(inputs[0]),)


@_settings
class Reshape(Kind):
    """To `target_shape`, of which one axis may be −1: what is left."""

    target_shape: Shape

    def shape(self, *inputs: Shape) -> Shape:
        size, target = math.prod(inputs[0]), self.target_shape
        known = math.prod(axis for axis in target if axis != -1)
        fits = target.count(-1) <= 1 and known > 0 and (size % known == 0 if -1 in target else size == known)
        _require(fits, "target_shape", target, f"{size} numbers, as in {_times(inputs[0])}")
        return tuple(size // known if axis == -1 else axis for axis in target)


@_settings
class Permute(Kind):
    """Axes in the order `dims`, counted from 1."""

    dims: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        fits = sorted(self.dims) == list(range(1, len(inputs[0]) + 1))
        _require(fits, "dims", self.dims, f"the axes 1…{len(inputs[0])} in another order")
        return tuple(inputs[0][axis - 1] for axis in self.dims)


# --- Several layers into one ----------------------------------------------------------------------------------------


@_settings
class _Merging(Kind):
    reads: ClassVar[int | None] = None

    def shape(self, *inputs: Shape) -> Shape:
        try:
            return np.broadcast_shapes(*inputs)
        except ValueError:
            shapes = " and ".join(_times(shape) for shape in sorted(set(inputs)))
            raise InputError(f"reads {shapes}, expected equal shapes") from None


@_settings
class Add(_Merging):
    pass


@_settings
class Subtract(_Merging):
    """The first less the second."""

    reads: ClassVar[int | None] = 2


@_settings
class Multiply(_Merging):
    pass


@_settings
class Average(_Merging):
    pass


@_settings
class Maximum(_Merging):
    pass


@_settings
class Minimum(_Merging):
    pass


@_settings
class Concatenate(Kind):
    """Side by side along `axis`, counted from the last one: −1 is the channels."""

    reads: ClassVar[int | None] = None
    axis: int = -1

    def shape(self, *inputs: Shape) -> Shape:
        rank = len(inputs[0])
        _require(-rank <= self.axis <= -1, "axis", self.axis, f"−{rank}…−1")
        place = rank + self.axis
        others = {shape[:place] + shape[place + 1 :] for shape in inputs}
        if any(len(shape) != rank for shape in inputs) or len(others) != 1:
            shapes = " and ".join(_times(shape) for shape in sorted(set(inputs)))
            raise InputError(f"reads {shapes}, expected shapes that differ in one axis only")
        return (*inputs[0][:place], sum(shape[place] for shape in inputs), *inputs[0][place + 1 :])


# --- Nothing, when the net answers ----------------------------------------------------------------------------------


@_settings
class Idle(Kind):
    """Works in training only, by noise or by a penalty."""


@_settings
class Dropout(Idle):
    rate: float = 0.5


@_settings
class AlphaDropout(Idle):
    rate: float = 0.5


@_settings
class SpatialDropout2D(Idle):
    rate: float = 0.5


@_settings
class GaussianDropout(Idle):
    rate: float = 0.5


@_settings
class GaussianNoise(Idle):
    stddev: float = 1.0


@_settings
class ActivityRegularization(Idle):
    l1: float = 0.0
    l2: float = 0.0


CONVOLUTIONS = (Conv2D, DepthwiseConv2D, SeparableConv2D)
KINDS: dict[str, type[Kind]] = {
    kind.__name__: kind
    for kind in (
        InputLayer,
        *CONVOLUTIONS,
        MaxPooling2D,
        AveragePooling2D,
        GlobalMaxPooling2D,
        GlobalAveragePooling2D,
        ZeroPadding2D,
        Cropping2D,
        UpSampling2D,
        Dense,
        BatchNormalization,
        LayerNormalization,
        Normalization,
        Rescaling,
        Activation,
        ReLU,
        LeakyReLU,
        ELU,
        Softmax,
        Flatten,
        Reshape,
        Permute,
        Add,
        Subtract,
        Multiply,
        Average,
        Maximum,
        Minimum,
        Concatenate,
        Dropout,
        AlphaDropout,
        SpatialDropout2D,
        GaussianDropout,
        GaussianNoise,
        ActivityRegularization,
    )
}


def check_shape(shape: Shape) -> None:
    """Raises: InputError for a layer that gives nothing, or more than any net for pictures does."""
    if min(shape, default=1) < 1 or math.prod(shape) > _LARGEST_OUTPUT:
        raise InputError(f"gives {_times(shape)} numbers per image, expected 1…{_LARGEST_OUTPUT:,}")


def names(layers: Sequence[str], limit: int = 8) -> str:
    """For a message: the first ones, and how many more."""
    shown = ", ".join(layers[:limit])
    return f"{shown} and {len(layers) - limit} more" if len(layers) > limit else shown
