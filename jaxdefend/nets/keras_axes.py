"""The axes that the layers of a Keras file work along, and what they become where the channels are last."""

from collections.abc import Mapping
from dataclasses import replace

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.keras_building import Building, Tensor
from jaxdefend.nets.keras_json import from_last, one_axis, require_last, says_channels_first
from jaxdefend.nets.keras_layers import flag, shown, whole_numbers
from jaxdefend.nets.kinds import Kind

# Layers that look at an image of rows, columns and channels.
ON_IMAGES = (
    kinds.Conv2D,
    kinds.DepthwiseConv2D,
    kinds.SeparableConv2D,
    kinds.MaxPooling2D,
    kinds.AveragePooling2D,
    kinds.GlobalMaxPooling2D,
    kinds.GlobalAveragePooling2D,
    kinds.ZeroPadding2D,
    kinds.Cropping2D,
    kinds.UpSampling2D,
)
# Layers that look at each number by itself, or at numbers in the same place.
_ANY_ORDER = (kinds.Idle, kinds.ReLU, kinds.LeakyReLU, kinds.ELU)
_MERGES = (kinds.Add, kinds.Subtract, kinds.Multiply, kinds.Average, kinds.Maximum, kinds.Minimum)


def placed(building: Building, settings: Kind, config: Mapping, inputs: list[Tensor]) -> tuple[Kind, list[Tensor]]:
    """The settings as they are with the channels last, and the inputs in the order in which they are read."""
    first = says_channels_first({"config": config})
    rank = len(building.shapes[inputs[0].layer])
    if isinstance(settings, ON_IMAGES):
        return settings, [building.with_channels(tensor, first) for tensor in inputs]
    match settings:
        case kinds.Flatten():
            # Keras moves the channels to the end before it flattens them.
            return settings, [building.with_channels(inputs[0], first) if rank == 3 else inputs[0]]
        case kinds.BatchNormalization():
            axis = one_axis(config, rank)
            if rank == 3 and axis == 1:
                return settings, [building.with_channels(inputs[0], True)]
            require_last(axis, rank)
            return settings, [building.natural(inputs[0])]
        case kinds.LayerNormalization():
            natural = building.natural(inputs[0])
            axes = config.get("axis", -1)
            axes = [axes] if isinstance(axes, int) else whole_numbers(config, "axis")
            return replace(settings, axis=tuple(sorted(from_last(axis, rank) for axis in axes))), [natural]
        case kinds.Normalization():
            if flag(config, "invert", False):
                raise InputError("invert is on, expected a normalization")
            axes = config.get("axis", -1)
            if axes is None or axes == []:
                return kinds.Normalization(False), inputs
            axis = one_axis(config, rank)
            if rank == 3 and axis == 1 and inputs[0].first:
                return settings, inputs
            require_last(axis, rank)
            return settings, [building.natural(inputs[0])]
        case kinds.Softmax():
            natural = building.natural(inputs[0])
            require_last(one_axis(config, rank), rank)
            return settings, [natural]
        case kinds.Concatenate():
            axis = config.get("axis", -1)
            if not isinstance(axis, int) or isinstance(axis, bool) or not -rank <= axis <= rank or axis == 0:
                raise InputError(f"axis is {shown(axis)}, expected one of an image's")
            place = axis if axis > 0 else rank + 1 + axis
            if rank == 3 and all(tensor.first for tensor in inputs):
                return kinds.Concatenate({1: -1, 2: -3, 3: -2}[place]), inputs
            return kinds.Concatenate(place - rank - 1), [building.natural(tensor) for tensor in inputs]
        case kinds.Rescaling():
            one = len(settings.scale) == len(settings.offset) == 1
            return settings, inputs if one else [building.natural(inputs[0])]
    if isinstance(settings, _ANY_ORDER):
        return settings, inputs
    if isinstance(settings, _MERGES) and len({tensor.first for tensor in inputs}) == 1:
        ranks = {len(building.shapes[tensor.layer]) for tensor in inputs}
        return settings, inputs if len(ranks) == 1 else [building.natural(tensor) for tensor in inputs]
    return settings, [building.natural(tensor) for tensor in inputs]
