"""What every kind of layer has: settings that are checked and set once, the shape of what it gives, and its arrays.

Shapes are those of one image: without the batch axis, channels last.
"""

import math
from dataclasses import FrozenInstanceError, dataclass, fields
from typing import Any, ClassVar, Literal, dataclass_transform, get_args

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
LARGEST_SETTING = 2**20
_LARGEST_OUTPUT = 2**28


# What `frozen=True` would make anew for each of forty classes is written once, in `Kind`: 15 ms of every start.
@dataclass_transform(frozen_default=True)
def settings(kind: type) -> Any:
    return dataclass(eq=False, repr=False)(kind)


@settings
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


@settings
class InputLayer(Kind):
    """Images, in the net's own scale."""

    reads: ClassVar[int | None] = 0
    image_shape: Shape

    def shape(self, *inputs: Shape) -> Shape:
        return self.image_shape


def _check(name: str, value: object) -> None:
    if name == "padding" and isinstance(value, str):
        require(value in ("valid", "same"), name, value, "valid or same")
    elif name == "activation":
        require(value in ACTIVATIONS, name, value, "one of " + ", ".join(ACTIVATIONS))
    elif isinstance(value, tuple) and name not in ("axis", "scale", "offset", "padding", "cropping"):
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in value)
        least = -1 if name == "target_shape" else 1
        require(whole and all(least <= n <= LARGEST_SETTING for n in value), name, value, "whole numbers above 0")
    elif isinstance(value, int) and not isinstance(value, bool):
        require(-8 <= value <= LARGEST_SETTING, name, value, f"at most {LARGEST_SETTING}")
    elif isinstance(value, float):
        require(math.isfinite(value), name, value, "a finite number")


def require(true: bool, name: str, value: object, expected: str) -> None:
    if not true:
        raise InputError(f"{name} is {value!r}, expected {expected}")


def of_zero(activation: str) -> float | None:
    """What the activation makes of a channel of zeros; None if that depends on the other channels."""
    return _OF_ZERO.get(activation, 0.0)


def check_shape(shape: Shape) -> None:
    """Raises: InputError for a layer that gives nothing, or more than any net for pictures does."""
    if min(shape, default=1) < 1 or math.prod(shape) > _LARGEST_OUTPUT:
        raise InputError(f"gives {sizes(shape)} numbers per image, expected 1…{_LARGEST_OUTPUT:,}")


def sizes(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "a single number"
