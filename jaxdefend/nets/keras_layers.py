"""The settings of each kind of layer as Keras writes them into JSON, and back."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from jaxdefend import InputError
from jaxdefend.nets import kinds
from jaxdefend.nets.kinds import Kind
from jaxdefend.results.text import printable, shortened

Config = Mapping[str, Any]
T = TypeVar("T")

# Names that Keras or TensorFlow has given to the same function.
_ALIASES = {
    "swish": "silu",
    "hard_swish": "hard_silu",
    "softmax_v2": "softmax",
    "identity": "linear",
    "exp": "exponential",
}


def settings_of(kind: str, config: Config) -> Kind:
    """The settings of a layer whose activation function, axes and data format are looked at elsewhere.

    Raises: InputError if a setting is not what Keras writes.
    """
    reader = _READERS.get(kind)
    return kinds.KINDS[kind]() if reader is None else reader(config)


def activation_of(config: Config, major: int) -> str | list[Kind]:
    """A layer's activation function: one of `kinds.ACTIVATIONS`, or layers that do the same.

    Args:
        major: Keras's version: the hard sigmoid was another function before 3.
    Raises: InputError if it is none that is known.
    """
    value = config.get("activation")
    if isinstance(value, Mapping):
        inner = value.get("config")
        if value.get("class_name") in kinds.KINDS and isinstance(inner, Mapping):
            # A layer in the place of a function.
            if value["class_name"] == "Activation":
                return activation_of(inner, major)
            return [settings_of(value["class_name"], inner)]
        name = inner if isinstance(inner, str) else value.get("class_name")
        if not isinstance(name, str) or value.get("registered_name") not in (None, name):
            raise InputError(f"activation is {shown(value)}, expected a function of Keras: nothing in a file is run")
        value = name
    value = "linear" if value is None else value
    name = _ALIASES.get(value, value) if isinstance(value, str) else value
    if name == "hard_sigmoid":
        return [kinds.Rescaling((0.2,) if major < 3 else (1 / 6,), (0.5,)), kinds.ReLU(max_value=1.0)]
    if name not in kinds.ACTIVATIONS:
        expected = ", ".join(kinds.ACTIVATIONS)
        raise InputError(f"activation is {shown(value)}, expected one of {expected}")
    return name


def shown(value: object, limit: int = 80) -> str:
    """A value for a message; what is long is cut before it is written out."""
    if isinstance(value, str):
        return repr(shortened(printable(value[:1000]), limit))
    if isinstance(value, list | tuple | dict) and len(value) > 20:
        return f"a {type(value).__name__} of {len(value):,} values"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**18:
        return "a number beyond 10¹⁸"
    return shortened(printable(repr(value)), limit) if _is_flat(value) else f"a nested {type(value).__name__}"


def _is_flat(value: object) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return all(isinstance(each, str | int | float | bool | None) and len(str(each)[:200]) < 200 for each in inner)


def whole(config: Config, key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 2**31:
        raise InputError(f"{key} is {shown(value)}, expected a whole number")
    return value


def number(config: Config, key: str, default: float | None = None) -> float:
    value = plain_number(config.get(key, default))
    if value is None:
        raise InputError(f"{key} is {shown(config.get(key))}, expected a number")
    return value


def plain_number(value: object) -> float | None:
    """A number, which Keras writes as an object where it came from NumPy; None if it is none."""
    if isinstance(value, Mapping):
        inner = value.get("config")
        value = inner.get("value") if isinstance(inner, Mapping) else value.get("value")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    return None


def numbers(config: Config, key: str, default: float) -> tuple[float, ...]:
    """One number, or one per channel."""
    value = config.get(key, default)
    if isinstance(value, Mapping):
        inner = value.get("config")
        value = inner.get("value") if isinstance(inner, Mapping) else value.get("value")
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    found = [plain_number(each) for each in (value if isinstance(value, list) else [value])]
    if not 1 <= len(found) <= 4096 or any(each is None for each in found):
        raise InputError(f"{key} is {shown(config.get(key))}, expected a number, or one per channel")
    return tuple(each for each in found if each is not None)


def flag(config: Config, key: str, default: bool = True) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool | int):
        raise InputError(f"{key} is {shown(value)}, expected true or false")
    return bool(value)


def pair(config: Config, key: str, default: object = None) -> tuple[int, int]:
    value = config.get(key, default)
    both = [value, value] if isinstance(value, int) else value
    if not isinstance(both, list | tuple) or len(both) != 2 or not all(map(_is_whole, both)):
        raise InputError(f"{key} is {shown(value)}, expected two whole numbers")
    return both[0], both[1]


def whole_numbers(config: Config, key: str) -> tuple[int, ...]:
    value = config.get(key)
    if not isinstance(value, list | tuple) or len(value) > 8 or not all(map(_is_whole, value)):
        raise InputError(f"{key} is {shown(value)}, expected whole numbers")
    return tuple(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _edges(config: Config, key: str) -> tuple[tuple[int, int], tuple[int, int]]:
    value = config.get(key, 1)
    if isinstance(value, int):
        value = [value, value]
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(f"{key} is {shown(value)}, expected ((above, below), (left, right))")
    rows, columns = (pair({key: side}, key) for side in value)
    return rows, columns


def _word(config: Config, key: str, default: str) -> str:
    value = config.get(key, default)
    if not isinstance(value, str):
        raise InputError(f"{key} is {shown(value)}, expected a word such as {default}")
    return value.lower()


def _windows(config: Config) -> dict[str, Any]:
    return {
        "kernel_size": pair(config, "kernel_size"),
        "strides": pair(config, "strides", 1),
        "padding": _word(config, "padding", "valid"),
        "dilation_rate": pair(config, "dilation_rate", 1),
        "use_bias": flag(config, "use_bias"),
    }


def _pool(kind: Callable[..., T]) -> Callable[[Config], T]:
    def read(config: Config) -> T:
        size = pair(config, "pool_size", 2)
        strides = size if config.get("strides") is None else pair(config, "strides")
        return kind(size, strides, _word(config, "padding", "valid"))

    return read


def _upsampling(config: Config) -> Kind:
    if _word(config, "interpolation", "nearest") != "nearest":
        raise InputError(f"interpolation is {shown(config['interpolation'])}, expected nearest")
    return kinds.UpSampling2D(pair(config, "size", 2))


def _leaky(config: Config) -> Kind:
    key = "negative_slope" if "negative_slope" in config else "alpha"
    return kinds.LeakyReLU(number(config, key, 0.3))


def _relu(config: Config) -> Kind:
    limit = None if config.get("max_value") is None else number(config, "max_value")
    slope = 0.0 if config.get("negative_slope") is None else number(config, "negative_slope")
    threshold = 0.0 if config.get("threshold") is None else number(config, "threshold")
    return kinds.ReLU(limit, slope, threshold)


def _batch_normalization(config: Config) -> Kind:
    if config.get("renorm"):
        raise InputError("renorm is on, expected a batch normalization without it")
    return kinds.BatchNormalization(
        number(config, "epsilon", 1e-3),
        flag(config, "center"),
        flag(config, "scale"),
        number(config, "momentum", 0.99),
    )


def _layer_normalization(config: Config) -> Kind:
    if config.get("rms_scaling"):
        raise InputError("rms_scaling is on, expected a layer normalization without it")
    return kinds.LayerNormalization(
        (-1,), number(config, "epsilon", 1e-3), flag(config, "center"), flag(config, "scale")
    )


_READERS: dict[str, Callable[[Config], Kind]] = {
    "Conv2D": lambda config: kinds.Conv2D(
        whole(config, "filters"), groups=whole(config, "groups", 1), **_windows(config)
    ),
    "DepthwiseConv2D": lambda config: kinds.DepthwiseConv2D(
        depth_multiplier=whole(config, "depth_multiplier", 1), **_windows(config)
    ),
    "SeparableConv2D": lambda config: kinds.SeparableConv2D(
        whole(config, "filters"), depth_multiplier=whole(config, "depth_multiplier", 1), **_windows(config)
    ),
    "Dense": lambda config: kinds.Dense(whole(config, "units"), flag(config, "use_bias")),
    "MaxPooling2D": _pool(kinds.MaxPooling2D),
    "AveragePooling2D": _pool(kinds.AveragePooling2D),
    "GlobalMaxPooling2D": lambda config: kinds.GlobalMaxPooling2D(flag(config, "keepdims", False)),
    "GlobalAveragePooling2D": lambda config: kinds.GlobalAveragePooling2D(flag(config, "keepdims", False)),
    "ZeroPadding2D": lambda config: kinds.ZeroPadding2D(_edges(config, "padding")),
    "Cropping2D": lambda config: kinds.Cropping2D(_edges(config, "cropping")),
    "UpSampling2D": _upsampling,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "Rescaling": lambda config: kinds.Rescaling(numbers(config, "scale", 1.0), numbers(config, "offset", 0.0)),
    "Activation": lambda config: kinds.Activation("linear"),
    "ReLU": _relu,
    "LeakyReLU": _leaky,
    "ELU": lambda config: kinds.ELU(number(config, "alpha", 1.0)),
    "Reshape": lambda config: kinds.Reshape(whole_numbers(config, "target_shape")),
    "Permute": lambda config: kinds.Permute(whole_numbers(config, "dims")),
    "Dropout": lambda config: kinds.Dropout(number(config, "rate", 0.5)),
    "AlphaDropout": lambda config: kinds.AlphaDropout(number(config, "rate", 0.5)),
    "SpatialDropout2D": lambda config: kinds.SpatialDropout2D(number(config, "rate", 0.5)),
    "GaussianDropout": lambda config: kinds.GaussianDropout(number(config, "rate", 0.5)),
    "GaussianNoise": lambda config: kinds.GaussianNoise(number(config, "stddev", 1.0)),
    "ActivityRegularization": lambda config: kinds.ActivityRegularization(
        number(config, "l1", 0.0), number(config, "l2", 0.0)
    ),
}


# In Keras's order.
_OF_CONVOLUTIONS = (
    "filters",
    "kernel_size",
    "strides",
    "padding",
    "data_format",
    "dilation_rate",
    "groups",
    "depth_multiplier",
    "activation",
    "use_bias",
)


def config_of(settings: Kind) -> dict[str, Any]:
    """A layer's settings as Keras 2 writes them; Keras 3 reads them too."""
    last = {"data_format": "channels_last"}
    match settings:
        case kinds.InputLayer():
            return {"batch_input_shape": [None, *settings.image_shape]}
        case kinds.Conv2D() | kinds.DepthwiseConv2D() | kinds.SeparableConv2D():
            found = vars(settings) | last
            return {key: _as_json(found[key]) for key in _OF_CONVOLUTIONS if key in found}
        case kinds.MaxPooling2D() | kinds.AveragePooling2D():
            size, strides = list(settings.pool_size), list(settings.strides)
            return {"pool_size": size, "padding": settings.padding, "strides": strides, **last}
        case kinds.GlobalMaxPooling2D() | kinds.GlobalAveragePooling2D():
            return {**last, "keepdims": settings.keepdims}
        case kinds.ZeroPadding2D():
            return {"padding": [list(edge) for edge in settings.padding], **last}
        case kinds.Cropping2D():
            return {"cropping": [list(edge) for edge in settings.cropping], **last}
        case kinds.UpSampling2D():
            return {"size": list(settings.size), **last, "interpolation": "nearest"}
        case kinds.Flatten():
            return last
        case kinds.Dense():
            return {"units": settings.units, "activation": settings.activation, "use_bias": settings.use_bias}
        case kinds.BatchNormalization():
            names = ("momentum", "epsilon", "center", "scale")
            return {"axis": [-1], **{name: getattr(settings, name) for name in names}}
        case kinds.LayerNormalization():
            names = ("epsilon", "center", "scale")
            return {"axis": sorted(settings.axis), **{name: getattr(settings, name) for name in names}}
        case kinds.Normalization():
            return {"axis": [-1] if settings.by_channel else None}
        case kinds.Rescaling():
            scale, offset = (
                list(values) if len(values) > 1 else sum(values) for values in (settings.scale, settings.offset)
            )
            return {"scale": scale, "offset": offset}
        case kinds.LeakyReLU():
            return {"alpha": settings.negative_slope}
        case kinds.Softmax():
            return {"axis": -1}
        case _:
            return {name: _as_json(value) for name, value in vars(settings).items()}


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
