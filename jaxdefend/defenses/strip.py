"""STRIP: a backdoored image keeps its label when other images are laid over it, so its predictions vary little."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32, Num, PRNGKeyArray

from jaxdefend import InputError
from jaxdefend.nets.convolution import convolve, convolve_relu_pool
from jaxdefend.nets.deepid import DeepID, Pixels, kernel_and_bias, logits, scaled
from jaxdefend.nets.devices import each, everywhere
from jaxdefend.nets.inference import Batches, entropy

# Overlays of an image that go through the net together, and after which it is looked whether its verdict is known.
# On two Xeon cores 20 in groups of 16 take 8 % less time a pair than 10 in groups of 32, the early exit no more.
ROUND = 20

# Images of a round that are compiled as one call, and images whose conv_1 is kept: 47 MB on every device.
_GROUP = 16
_KEPT = 256


class Blend(NamedTuple):
    """How an image and an overlay are superimposed: image × `image` + overlay × `overlay`, in the net's own scale.

    Or as OpenCV adds uint8 pixels, where no sum exceeds 255 (`saturating`).
    """

    image: float = 1.0
    overlay: float = 1.0
    saturating: bool = False


class Overlays(NamedTuple):
    """A pool of clean images to draw overlays from, and what is computed of each of them once."""

    pixels: Num[np.ndarray, "p 55 47 3"]
    prepared: Float[Array, "p ..."]
    places: dict[bytes, int]


def overlay_pool(net: DeepID, pixels: Num[np.ndarray, "p 55 47 3"], blend: Blend) -> Overlays:
    """The pool, each image once. Raises: InputError if fewer than two different images are left."""
    pixels = np.rint(pixels).astype(np.uint8)
    first = {image.tobytes(): row for row, image in reversed(list(enumerate(pixels)))}
    pixels = pixels[sorted(first.values())]
    if len(pixels) < 2:
        raise InputError(f"the overlay pool holds {len(pixels)} different images; expected two or more, clean ones")
    prepared = everywhere(_prepared(net, pixels, weight=blend.overlay, saturating=blend.saturating), _GROUP)
    return Overlays(pixels, prepared, {image.tobytes(): place for place, image in enumerate(pixels)})


def entropies(
    net: DeepID,
    batches: Batches,
    pool: Overlays,
    key: PRNGKeyArray,
    overlays: int = 100,
    blend: Blend = Blend(),  # noqa: B008
) -> Float[np.ndarray, " n"]:
    """Entropy of the predictions for an image under overlays, in bits, mean over the overlays.

    conv_1 is linear: it runs once for each image and once for each overlay, not for every pair. An image that is in
    the pool itself is never its own overlay.

    Args:
        batches: the images; the n-th one draws its overlays by `key` and n, whatever the size of the batches.
        overlays: how many each image draws, with replacement.
    Raises: InputError if there are none.
    Source: Gao et al. 2019 (STRIP), section "Entropy": H = (1/N) Σ Hₙ, Hₙ = −Σ yᵢ log₂ yᵢ.
    """
    shared, results = everywhere(net, _GROUP), []
    for prepared, drawn in _drawn(net, batches, pool, key, overlays, blend):
        total = np.zeros(len(drawn), np.float32)
        for columns in _rounds(overlays):
            total += _round_sums(shared, prepared, drawn[:, columns], np.arange(len(drawn)), pool, blend)
        results.append(total / np.float32(overlays))
    return np.concatenate(results)


def rejected(
    net: DeepID,
    batches: Batches,
    pool: Overlays,
    key: PRNGKeyArray,
    threshold: float,
    overlays: int = 100,
    blend: Blend = Blend(),  # noqa: B008
) -> Bool[np.ndarray, " n"]:
    """`entropies(...) < threshold`, without computing what cannot change the answer.

    No entropy is negative: once the sum over some overlays reaches `overlays` × `threshold`, so does the sum over all.
    """
    shared, results = everywhere(net, _GROUP), []
    for prepared, drawn in _drawn(net, batches, pool, key, overlays, blend):
        total = np.zeros(len(drawn), np.float32)
        undecided = np.arange(len(drawn))
        for columns in _rounds(overlays):
            total[undecided] += _round_sums(shared, prepared, drawn[:, columns], undecided, pool, blend)
            undecided = undecided[total[undecided] / np.float32(overlays) < threshold]
        results.append(total / np.float32(overlays) < threshold)
    return np.concatenate(results)


def superimpositions(
    image: Num[np.ndarray, "55 47 3"], overlays: Num[np.ndarray, "o 55 47 3"], blend: Blend
) -> Float[np.ndarray, "o 55 47 3"]:
    """What the net is shown: an image under each overlay, in pixel units (they may exceed 255)."""
    total = blend.image * image.astype(np.float32) + blend.overlay * overlays.astype(np.float32)
    return np.minimum(total, 255) if blend.saturating else total


def _rounds(overlays: int) -> list[slice]:
    return [slice(start, min(start + ROUND, overlays)) for start in range(0, overlays, ROUND)]


def _drawn(
    net: DeepID, batches: Batches, pool: Overlays, key: PRNGKeyArray, overlays: int, blend: Blend
) -> Iterator[tuple[Float[Array, "b ..."], Int[np.ndarray, "n o"]]]:
    """Of up to `_KEPT` images at a time: what is computed once of them, and the places in the pool of what they draw.

    Padding draws nothing.
    """
    if overlays < 1:
        raise InputError(f"{overlays} overlays an image; expected at least one")
    net, first = jax.device_put(net), 0
    for pixels, labels in batches:
        for start in range(0, len(pixels), _KEPT):
            part = pixels[start : start + _KEPT]
            n = int((labels[start : start + _KEPT] >= 0).sum())
            if n:
                own = [pool.places.get(image.tobytes(), -1) for image in np.rint(part).astype(np.uint8)]
                drawn = _draw(key, first + np.arange(len(part)), np.asarray(own), len(pool.pixels), overlays)
                # Once, on one device, and then copied to all.
                prepared = _prepared(net, part, weight=blend.image, saturating=blend.saturating)
                yield everywhere(prepared, _GROUP), np.asarray(drawn)[:n]
                first += n


@partial(jax.jit, static_argnames=("size", "overlays"))
def _draw(
    key: PRNGKeyArray, numbers: Int[Array, " n"], own: Int[Array, " n"], size: int, overlays: int
) -> Int32[Array, "n o"]:
    def of_one(number: Int[Array, ""], own: Int[Array, ""]) -> Int32[Array, " o"]:
        drawn = jax.random.randint(jax.random.fold_in(key, number), (overlays,), 0, size - (own >= 0))
        return drawn + ((own >= 0) & (drawn >= own))

    return jax.vmap(of_one)(numbers, own)


def _round_sums(
    net: DeepID,
    prepared: Float[Array, "b ..."],
    drawn: Int[np.ndarray, "n r"],
    rows: Int[np.ndarray, " m"],
    pool: Overlays,
    blend: Blend,
) -> Float[np.ndarray, " m"]:
    """Sums of the entropies of the images `rows` under the overlays `drawn`, in groups of one size."""
    groups = [np.resize(rows[start : start + _GROUP], _GROUP) for start in range(0, len(rows), _GROUP)]
    sums = [
        _entropy_sums(net, prepared, group, pool.prepared, drawn[group], saturating=blend.saturating)
        for group in groups
    ]
    return np.concatenate([np.zeros(0, np.float32), *jax.device_get(sums)])[: len(rows)]


@partial(jax.jit, static_argnames=("weight", "saturating"))
def _prepared(net: DeepID, pixels: Pixels, weight: float, saturating: bool) -> Float[Array, "n ..."]:
    """conv_1 of the weighted images, without its bias; where sums saturate, the pixels themselves.

    The four outputs under each pool square are laid apart, (n, 4, 26, 22, 20): pooling is then a plain maximum.
    """
    if saturating:
        return jnp.asarray(pixels, jnp.float32)
    kernel, bias = kernel_and_bias(net, "conv_1")
    responses = convolve(weight * scaled(pixels, net.input_scale), kernel, jnp.zeros_like(bias))
    n, rows, columns, channels = responses.shape
    squares = responses.reshape(n, rows // 2, 2, columns // 2, 2, channels)
    return squares.transpose(0, 2, 4, 1, 3, 5).reshape(n, 4, rows // 2, columns // 2, channels)


@partial(jax.jit, static_argnames="saturating")
def _entropy_sums(
    net: DeepID,
    prepared: Float[Array, "b ..."],
    rows: Int[Array, " m"],
    pool: Float[Array, "p ..."],
    drawn: Int[Array, "m r"],
    saturating: bool,
) -> Float[Array, " m"]:
    def of_part(
        net: DeepID,
        rows: Int[Array, " m"],
        drawn: Int[Array, "m r"],
        prepared: Float[Array, "b ..."],
        pool: Float[Array, "p ..."],
    ) -> Float[Array, " m"]:
        """One image after another keeps a CPU's cache; other devices take all at once."""
        at_once = None if jax.default_backend() == "cpu" else len(rows)
        of_one = partial(_entropy_sum, net, prepared, pool, saturating)
        return lax.map(lambda at: of_one(*at), (rows, drawn), batch_size=at_once)

    return each(of_part, net, (rows, drawn), prepared, pool)


def _entropy_sum(
    net: DeepID,
    prepared: Float[Array, "b ..."],
    pool: Float[Array, "p ..."],
    saturating: bool,
    row: Int[Array, ""],
    places: Int[Array, " r"],
) -> Float[Array, ""]:
    kernel, bias = kernel_and_bias(net, "conv_1")
    total = prepared[row] + pool[places]
    if saturating:
        pooled = convolve_relu_pool(scaled(jnp.minimum(total, 255), net.input_scale), kernel, bias)
    else:
        pooled = jax.nn.relu(total.max(axis=1) + bias)
    return entropy(logits(net, {"pool_1": pooled})).sum()
