"""The channels of a convolution, seen from the layers that read them: what each adds, and the rest of the net."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jaxdefend.nets import kinds
from jaxdefend.nets.backend import PRECISION
from jaxdefend.nets.graph import CONVOLUTIONS, Graph, Layer
from jaxdefend.nets.net import Net

# Layers that treat every channel by itself, and linearly: a zero channel stays zero.
_CHANNEL_BY_CHANNEL = (kinds.AveragePooling2D, kinds.Cropping2D, kinds.Idle, kinds.UpSampling2D, kinds.ZeroPadding2D)


class Reader(NamedTuple):
    """A layer whose input, before its activation function, is linear in the channels of another one.

    Attributes:
        layer: a Conv2D or Dense.
        through: the layers between, which treat every channel by itself.
        flattened: whether a Flatten, or a global average, stands before the Dense, and which.
    """

    layer: str
    through: tuple[str, ...] = ()
    flattened: str | None = None


def linear_readers(graph: Graph, place: str) -> tuple[Reader, ...] | None:
    """Who reads the channels of `place`; None if anything but sums of channels is made of them."""
    found = []
    for name in graph.readers(place):
        reader = _followed(graph, name, place)
        if reader is None:
            return None
        found.append(reader)
    return tuple(found) or None


def _followed(graph: Graph, name: str, place: str) -> Reader | None:
    through: list[str] = []
    flattened = None
    while True:
        layer = graph[name]
        if len(layer.inputs) != 1:
            return None
        if layer.kind == "Dense":
            return Reader(name, tuple(through), flattened) if flattened else None
        if flattened is None and layer.kind == "Conv2D" and layer["groups"] == 1:
            return Reader(name, tuple(through))
        if flattened is None and layer.kind in ("Flatten", "GlobalAveragePooling2D"):
            flattened = layer.kind
        elif flattened is None and isinstance(layer.settings, _CHANNEL_BY_CHANNEL):
            through.append(name)
        elif not isinstance(layer.settings, kinds.Idle):
            return None
        if len(graph.readers(name)) != 1:
            return None
        (name,) = graph.readers(name)


def behind(graph: Graph, places: tuple[str, ...]) -> set[str]:
    """All layers that are computed from any of these."""
    found: set[str] = set()
    for layer in graph.layers:
        if any(name in found or name in places for name in layer.inputs):
            found.add(layer.name)
    return found


def beside(graph: Graph, place: str) -> tuple[str, ...]:
    """What else determines the net's answer where the activations of `place` are known."""
    later = behind(graph, (place,))
    wanted = {name for layer in graph.layers if layer.name in later for name in layer.inputs}
    return tuple(layer.name for layer in graph.layers if layer.name in wanted - later - {place})


def is_cheap(graph: Graph, place: str) -> bool:
    """Whether the readers of the channels are linear and no convolution comes behind them."""
    readers = linear_readers(graph, place)
    if readers is None:
        return False
    later = behind(graph, tuple(reader.layer for reader in readers))
    return not any(graph[name].kind in CONVOLUTIONS for name in later)


def sums_of_nothing(net: Net, reader: Reader, n: int) -> Float[Array, "n ..."]:
    """What `reader` computes for `n` images, before its activation function, when all channels are zero."""
    shape = net.graph.shapes[reader.layer]
    bias = net.weights[reader.layer].get("bias")
    return jnp.broadcast_to(jnp.zeros(shape[-1], jnp.float32) if bias is None else jnp.asarray(bias), (n, *shape))


def share_of(
    net: Net, reader: Reader, activation: Float[Array, "n h w"], channel: Int[Array, ""]
) -> Float[Array, "n ..."]:
    """What one channel, given by its activations, adds to the input of `reader`, before its activation function."""
    for name in reader.through:
        activation = net.applied(name, activation[..., None])[..., 0]
    kernel = jnp.asarray(net.weights[reader.layer]["kernel"])
    n, rows, columns = activation.shape
    if reader.flattened == "Flatten":
        of_channel = kernel.reshape(rows, columns, -1, kernel.shape[-1])[:, :, channel].reshape(rows * columns, -1)
        return jnp.dot(activation.reshape(n, -1), of_channel, precision=PRECISION)
    if reader.flattened:
        return activation.mean(axis=(1, 2))[:, None] * kernel[channel]
    layer = net.graph[reader.layer]
    of_channel = kernel[:, :, channel]
    if _is_plain(layer):
        height, width = of_channel.shape[:2]
        windows = [
            activation[:, top : top + rows - height + 1, left : left + columns - width + 1]
            for top in range(height)
            for left in range(width)
        ]
        return jnp.dot(jnp.stack(windows, axis=-1), of_channel.reshape(height * width, -1), precision=PRECISION)
    return lax.conv_general_dilated(
        activation[..., None],
        of_channel[:, :, None],
        layer["strides"],
        layer["padding"].upper(),
        rhs_dilation=layer["dilation_rate"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=PRECISION,
    )


def shares_of_all(net: Net, reader: Reader, activations: Float[Array, "h w c"]) -> Float[Array, "c ..."]:
    """`share_of` for all channels of one image at once."""
    for name in reader.through:
        activations = net.applied(name, activations[None])[0]
    kernel = jnp.asarray(net.weights[reader.layer]["kernel"])
    rows, columns, channels = activations.shape
    if reader.flattened == "Flatten":
        kernel = kernel.reshape(rows * columns, channels, -1)
        return jnp.einsum("pc,pcd->cd", activations.reshape(-1, channels), kernel, precision=PRECISION)
    if reader.flattened:
        return activations.mean(axis=(0, 1))[:, None] * kernel
    layer = net.graph[reader.layer]
    if _is_plain(layer):
        height, width = kernel.shape[:2]
        windows = jnp.stack(
            [
                activations[top : top + rows - height + 1, left : left + columns - width + 1]
                for top in range(height)
                for left in range(width)
            ]
        )
        kernel = kernel.reshape(height * width, channels, -1)
        return jnp.einsum("tijc,tck->cijk", windows, kernel, precision=PRECISION)
    # One group per channel: each output channel of a group reads that group's input channel alone.
    filters = kernel.shape[-1]
    apart = kernel.reshape(*kernel.shape[:2], 1, channels * filters)
    found = lax.conv_general_dilated(
        activations[None],
        apart,
        layer["strides"],
        layer["padding"].upper(),
        rhs_dilation=layer["dilation_rate"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
        precision=PRECISION,
    )[0]
    return jnp.moveaxis(found.reshape(*found.shape[:2], channels, filters), 2, 0)


def _is_plain(layer: Layer) -> bool:
    """A convolution without padding, strides or dilation, whose windows are slices."""
    return layer["padding"] == "valid" and tuple(layer["strides"]) == tuple(layer["dilation_rate"]) == (1, 1)


def logits_of_sums(net: Net, sums: dict[str, Float[Array, "n ..."]], others: dict[str, Array]) -> Float[Array, "n k"]:
    """The net's logits, from the inputs of the readers before their activation functions, and what is beside them."""
    known = dict(others)
    for name, values in sums.items():
        known |= net.given(name, values)
    return net.logits(known)


def masked_logits(
    net: Net,
    place: str,
    activations: Float[Array, "h w c"],
    others: dict[str, Float[Array, "..."]],
    masks: Float[Array, "m c"],
) -> Float[Array, "m k"]:
    """The logits of one image under each mask of the channels of `place`.

    Where the readers are linear in the channels, the share of each channel is computed once, and a mask only adds
    shares.

    Args:
        others: the image's activations of `beside(net.graph, place)`, without an axis for images.
    """
    repeated = {name: jnp.broadcast_to(values, (len(masks), *values.shape)) for name, values in others.items()}
    readers = linear_readers(net.graph, place)
    if readers is None:
        under = activations[None] * masks[:, None, None, :]
        return net.logits({place: under} | repeated)
    sums = {}
    for reader in readers:
        shares = shares_of_all(net, reader, activations)
        bias = net.weights[reader.layer].get("bias")
        # A matrix product as it is, any other axes behind it.
        total = jnp.tensordot(masks, shares, 1, precision=PRECISION)
        sums[reader.layer] = total if bias is None else total + bias
    return logits_of_sums(net, sums, repeated)
