"""Layers that give the same numbers in another form, and those that make one of several layers."""

import math
from typing import ClassVar

import numpy as np

from jaxdefend import InputError
from jaxdefend.nets.kinds.base import Kind, Shape, require, settings, sizes

# Another form


@settings
class Flatten(Kind):
    def shape(self, *inputs: Shape) -> Shape:
        return (math.prod(inputs[0]),)


@settings
class Reshape(Kind):
    """To `target_shape`, of which one axis may be −1: what is left."""

    target_shape: Shape

    def shape(self, *inputs: Shape) -> Shape:
        size, target = math.prod(inputs[0]), self.target_shape
        known = math.prod(axis for axis in target if axis != -1)
        fits = target.count(-1) <= 1 and known > 0 and (size % known == 0 if -1 in target else size == known)
        require(fits, "target_shape", target, f"{size} numbers, as in {sizes(inputs[0])}")
        return tuple(size // known if axis == -1 else axis for axis in target)


@settings
class Permute(Kind):
    """Axes in the order `dims`, counted from 1."""

    dims: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        fits = sorted(self.dims) == list(range(1, len(inputs[0]) + 1))
        require(fits, "dims", self.dims, f"the axes 1…{len(inputs[0])} in another order")
        return tuple(inputs[0][axis - 1] for axis in self.dims)


# Several layers into one


@settings
class _Merging(Kind):
    reads: ClassVar[int | None] = None

    def shape(self, *inputs: Shape) -> Shape:
        try:
            return np.broadcast_shapes(*inputs)
        except ValueError:
            shapes = " and ".join(sizes(shape) for shape in sorted(set(inputs)))
            raise InputError(f"reads {shapes}, expected equal shapes") from None


@settings
class Add(_Merging):
    pass


@settings
class Subtract(_Merging):
    """The first less the second."""

    reads: ClassVar[int | None] = 2


@settings
class Multiply(_Merging):
    pass


@settings
class Average(_Merging):
    pass


@settings
class Maximum(_Merging):
    pass


@settings
class Minimum(_Merging):
    pass


@settings
class Concatenate(Kind):
    """Side by side along `axis`, counted from the last one: −1 is the channels."""

    reads: ClassVar[int | None] = None
    axis: int = -1

    def shape(self, *inputs: Shape) -> Shape:
        rank = len(inputs[0])
        require(-rank <= self.axis <= -1, "axis", self.axis, f"−{rank}…−1")
        place = rank + self.axis
        others = {shape[:place] + shape[place + 1 :] for shape in inputs}
        if any(len(shape) != rank for shape in inputs) or len(others) != 1:
            shapes = " and ".join(sizes(shape) for shape in sorted(set(inputs)))
            raise InputError(f"reads {shapes}, expected shapes that differ in one axis only")
        return (*inputs[0][:place], sum(shape[place] for shape in inputs), *inputs[0][place + 1 :])
