"""Layers along one axis, mostly the last, or on each number by itself: dense, normalizations, activations."""

import math

from jaxdefend.nets.kinds.base import Kind, Shape, require, settings


@settings
class Dense(Kind):
    units: int
    use_bias: bool = True
    activation: str = "linear"

    def shape(self, *inputs: Shape) -> Shape:
        require(len(inputs[0]) > 0, "input", inputs[0], "one axis or more")
        return (*inputs[0][:-1], self.units)

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        kernel = (inputs[0][-1], self.units)
        return {"kernel": kernel} | ({"bias": (self.units,)} if self.use_bias else {})


@settings
class BatchNormalization(Kind):
    """Along the last axis, by the means and variances that training left behind."""

    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True
    momentum: float = 0.99

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        there = {"gamma": self.scale, "beta": self.center, "moving_mean": True, "moving_variance": True}
        return {name: inputs[0][-1:] for name, is_there in there.items() if is_there}


@settings
class LayerNormalization(Kind):
    """Over the axes `axis`, counted from the last one: −1 is the channels."""

    axis: tuple[int, ...] = (-1,)
    epsilon: float = 1e-3
    center: bool = True
    scale: bool = True

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        fits = all(isinstance(axis, int) and -len(inputs[0]) <= axis <= -1 for axis in self.axis)
        require(fits and len(set(self.axis)) == len(self.axis) > 0, "axis", self.axis, "axes of the input")
        along = tuple(inputs[0][axis] for axis in sorted(self.axis))
        return {name: along for name, is_there in (("gamma", self.scale), ("beta", self.center)) if is_there}


@settings
class Normalization(Kind):
    """(input − mean) / √variance along the last axis, or by one number for all of it."""

    by_channel: bool = True

    def arrays(self, *inputs: Shape) -> dict[str, Shape]:
        along = inputs[0][-1:] if self.by_channel else (1,)
        return {"mean": along, "variance": along}


@settings
class Rescaling(Kind):
    """input · scale + offset; one number each, or one per channel."""

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)

    def shape(self, *inputs: Shape) -> Shape:
        for name in ("scale", "offset"):
            numbers = getattr(self, name)
            fits = len(numbers) in (1, inputs[0][-1]) and all(map(math.isfinite, numbers))
            require(fits, name, numbers, f"one finite number, or {inputs[0][-1]}")
        return inputs[0]


@settings
class Activation(Kind):
    activation: str

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


@settings
class ReLU(Kind):
    """As it is above `threshold`, `negative_slope` · (input − threshold) below, at most `max_value`."""

    max_value: float | None = None
    negative_slope: float = 0.0
    threshold: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        require(self.max_value is None or self.max_value >= 0, "max_value", self.max_value, "0 or more")


@settings
class LeakyReLU(Kind):
    negative_slope: float = 0.3


@settings
class ELU(Kind):
    alpha: float = 1.0


@settings
class Softmax(Kind):
    """Along the last axis."""
