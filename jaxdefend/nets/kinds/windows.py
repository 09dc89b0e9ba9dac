"""Layers that look at an image: convolutions and pools, and what adds, cuts or repeats its rows and columns."""

from jaxdefend import InputError
from jaxdefend.nets.kinds.base import LARGEST_SETTING, Kind, Pair, Shape, require, settings, sizes


@settings
class _Convolution(Kind):
    def _windows(self, image: Shape, size: Pair, strides: Pair, padding: str, dilation: Pair) -> Pair:
        require(max(strides) == 1 or max(dilation) == 1, "strides", strides, "1 where dilation is above 1")
        spread = ((size[0] - 1) * dilation[0] + 1, (size[1] - 1) * dilation[1] + 1)
        return _windows(image, spread, strides, padding)


@settings
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
        require(fits, "groups", self.groups, f"a divisor of {inputs[0][2]} and {self.filters} channels")
        return rows, columns, self.filters

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        kernel = (*self.kernel_size, inputs[0][2] // self.groups, self.filters)
        return {"kernel": kernel} | ({"bias": (self.filters,)} if self.use_bias else {})


@settings
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


@settings
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


@settings
class _Pooling(Kind):
    pool_size: Pair = (2, 2)
    strides: Pair = (2, 2)
    padding: str = "valid"

    def shape(self, *inputs: Shape) -> Shape:
        return (*_windows(inputs[0], self.pool_size, self.strides, self.padding), inputs[0][2])


@settings
class MaxPooling2D(_Pooling):
    pass


@settings
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
        raise InputError(f"reads {sizes(shape)}, expected rows × columns × channels")


@settings
class _GlobalPooling(Kind):
    keepdims: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        _require_image(inputs[0])
        return (1, 1, inputs[0][2]) if self.keepdims else (inputs[0][2],)


@settings
class GlobalMaxPooling2D(_GlobalPooling):
    pass


@settings
class GlobalAveragePooling2D(_GlobalPooling):
    pass


@settings
class ZeroPadding2D(Kind):
    """((above, below), (left, right))."""

    padding: tuple[Pair, Pair] = ((1, 1), (1, 1))

    def __post_init__(self):
        _check_edges("padding", self.padding)

    def shape(self, *inputs: Shape) -> Shape:
        _require_image(inputs[0])
        return inputs[0][0] + sum(self.padding[0]), inputs[0][1] + sum(self.padding[1]), inputs[0][2]


@settings
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
    whole = all(isinstance(number, int) and 0 <= number <= LARGEST_SETTING for number in numbers)
    require(len(numbers) == 4 and whole, name, value, "((above, below), (left, right))")


@settings
class UpSampling2D(Kind):
    """Every pixel `size` times (nearest)."""

    size: Pair = (2, 2)

    def shape(self, *inputs: Shape) -> Shape:
        _require_image(inputs[0])
        return inputs[0][0] * self.size[0], inputs[0][1] * self.size[1], inputs[0][2]
