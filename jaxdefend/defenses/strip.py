"""STRIP: a backdoored image keeps its label when other images are laid over it, so its predictions vary little."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32, Num, PRNGKeyArray, UInt8

from jaxdefend import InputError
from jaxdefend.nets.deepid import DeepID, features
from jaxdefend.nets.devices import Arrays, each, everywhere
from jaxdefend.nets.inference import Batches, entropy

# Overlays of an image that go through the net together, and after which it is looked whether its verdict is known.
# A multiple of 16, which a CPU computes side by side; the last four of 100 go alone.
ROUND = 32

# Images of a round that go to the devices together.
_GROUP = 16


class Blend(NamedTuple):
    """How an image and an overlay are superimposed: image × `image` + overlay × `overlay`.

    `saturating`: as OpenCV adds uint8 pixels, where no sum exceeds 255.
    """

    image: float = 1.0
    overlay: float = 1.0
    saturating: bool = False


class Overlays(NamedTuple):
    """A pool of clean images to draw overlays from, where each is found, and the same images on the devices."""

    pixels: UInt8[np.ndarray, "p 55 47 3"]
    places: dict[bytes, int]
    placed: UInt8[Array, "p 55 47 3"]


def overlay_pool(pixels: Num[np.ndarray, "p 55 47 3"]) -> Overlays:
    """The pool, each image once. Raises: InputError if fewer than two different images are left."""
    pixels = np.rint(pixels).astype(np.uint8)
    first = {image.tobytes(): row for row, image in reversed(list(enumerate(pixels)))}
    pixels = pixels[sorted(first.values())]
    if len(pixels) < 2:
        raise InputError(f"the overlay pool holds {len(pixels)} different images; expected two or more, clean ones")
    places = {image.tobytes(): place for place, image in enumerate(pixels)}
    return Overlays(pixels, places, everywhere(pixels, _GROUP))


def entropies(
    net: DeepID,
    batches: Batches,
    pool: Overlays,
    key: PRNGKeyArray,
    overlays: int = 100,
    blend: Blend = Blend(),  # noqa: B008
) -> Float[np.ndarray, " n"]:
    """Entropy of the predictions for an image under overlays, in bits, mean over the overlays.

    An image that is in the pool itself is never its own overlay.

    Args:
        batches: the images; the n-th one draws its overlays by `key` and n, whatever the size of the batches.
        overlays: how many each image draws, with replacement.
    Raises: InputError if there are none.
    Source: Gao et al. 2019 (STRIP), section "Entropy": H = (1/N) Σ Hₙ, Hₙ = −Σ yᵢ log₂ yᵢ.
    """
    shared, results = everywhere(net, _GROUP), []
    for images, drawn in _drawn(batches, pool, key, overlays):
        total = np.zeros(len(images), np.float32)
        for columns in _rounds(overlays):
            total += _round_sums(shared, images, drawn[:, columns], pool, blend)
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
    for images, drawn in _drawn(batches, pool, key, overlays):
        total = np.zeros(len(images), np.float32)
        undecided = np.arange(len(images))
        for columns in _rounds(overlays):
            total[undecided] += _round_sums(shared, images[undecided], drawn[undecided, columns], pool, blend)
            undecided = undecided[total[undecided] / np.float32(overlays) < threshold]
        results.append(total / np.float32(overlays) < threshold)
    return np.concatenate(results)


def superimpositions(
    image: Num[Arrays, "55 47 3"], overlays: Num[Arrays, "o 55 47 3"], blend: Blend
) -> Float[Arrays, "o 55 47 3"]:
    """What the net is shown: an image under each overlay, in pixel units (they may exceed 255)."""
    total = blend.image * image.astype(np.float32) + blend.overlay * overlays.astype(np.float32)
    return total.clip(max=255) if blend.saturating else total


def _rounds(overlays: int) -> list[slice]:
    return [slice(start, min(start + ROUND, overlays)) for start in range(0, overlays, ROUND)]


def _drawn(
    batches: Batches, pool: Overlays, key: PRNGKeyArray, overlays: int
) -> Iterator[tuple[Num[np.ndarray, "n 55 47 3"], Int[np.ndarray, "n o"]]]:
    """The images of each batch without its padding, and the places in the pool of what they draw."""
    if overlays < 1:
        raise InputError(f"{overlays} overlays an image; expected at least one")
    first = 0
    for pixels, labels in batches:
        n = int((labels >= 0).sum())
        if n:
            own = [pool.places.get(image.tobytes(), -1) for image in np.rint(pixels).astype(np.uint8)]
            drawn = _draw(key, first + np.arange(len(pixels)), np.asarray(own), len(pool.pixels), overlays)
            yield pixels[:n], np.asarray(drawn)[:n]
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
    images: Num[np.ndarray, "n 55 47 3"],
    drawn: Int[np.ndarray, "n r"],
    pool: Overlays,
    blend: Blend,
) -> Float[np.ndarray, " n"]:
    """Sums of the entropies of the images under the overlays `drawn`, in groups of one size."""
    n = len(images)
    groups = [np.resize(np.arange(start, min(start + _GROUP, n)), _GROUP) for start in range(0, n, _GROUP)]
    sums = [_entropy_sums(net, images[group], drawn[group], pool.placed, blend=blend) for group in groups]
    return np.concatenate([np.zeros(0, np.float32), *jax.device_get(sums)])[:n]


@partial(jax.jit, static_argnames="blend")
def _entropy_sums(
    net: DeepID,
    images: Num[Array, "m 55 47 3"],
    drawn: Int[Array, "m r"],
    pool: UInt8[Array, "p 55 47 3"],
    blend: Blend,
) -> Float[Array, " m"]:
    def of_part(
        net: DeepID, images: Num[Array, "m 55 47 3"], drawn: Int[Array, "m r"], pool: UInt8[Array, "p 55 47 3"]
    ) -> Float[Array, " m"]:
        """One image after another keeps a CPU's cache; other devices take all at once."""
        at_once = None if jax.default_backend() == "cpu" else len(images)
        return lax.map(lambda of: _entropy_sum(net, of[0], pool[of[1]], blend), (images, drawn), batch_size=at_once)

    return each(of_part, net, (images, drawn), pool)


def _entropy_sum(
    net: DeepID, image: Num[Array, "55 47 3"], overlays: UInt8[Array, "r 55 47 3"], blend: Blend
) -> Float[Array, ""]:
    return entropy(features(net, superimpositions(image, overlays, blend), ("logits",))["logits"]).sum()
