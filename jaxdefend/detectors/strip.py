"""STRIP: a backdoored image keeps its label when other images are laid over it, so its predictions vary little."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import sha256
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int32, Num, PRNGKeyArray, UInt8, UInt32

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet
from jaxdefend.detectors import Blend, Strip, blend_of
from jaxdefend.detectors.base import Fit, Measure, Measures, Scene, Scores, keys
from jaxdefend.nets.batches import Batches
from jaxdefend.nets.devices import Arrays, replicated, sharded
from jaxdefend.nets.inference import entropy
from jaxdefend.nets.net import Net

# Overlays of an image that go through the net together, and after which it is looked whether its verdict is known.
# A multiple of 16, which a CPU computes side by side; the last four of 100 go with those of other images.
ROUND = 32

# Images of a round that go to the devices together.
_GROUP = 16


# What the score is, on figures; it is the negative of what is drawn.
LABEL = "entropy under overlays, bits"
NEGATED = True

# The measure that is an entropy, for people.
ENTROPY = "strip"

# The most suspicious measures that an image can have.
LEAST = {"strip": Measure(np.zeros(1), bits=True)}

# Overlays that a guard keeps: more of them take memory and add nothing.
POOL_SIZE = 512


def measure(settings: Strip, net: Net, images: ImageSet, scene: Scene) -> Measures:
    """Entropy under overlays from the scene's pool. Raises: InputError if there is none."""
    if scene.pool is None:
        raise InputError("STRIP lays clean images over this one: give it a pool of them")
    pool, key = overlay_pool(scene.pool), keys(scene.seed)[1]
    batches = scene.batches(images, "strip")
    found = entropies(net, batches, pool, key, settings.overlays, blend_of(settings.blend))
    return {"strip": Measure(found, bits=True)}


def score(measures: Measures, clean: Mapping[str, Fit]) -> Scores:
    """The entropy's negative."""
    return -measures["strip"].values


class Overlays(NamedTuple):
    """A pool of clean images to draw overlays from, where each is found, and the same images on the devices."""

    pixels: UInt8[np.ndarray, "p h w c"]
    places: dict[bytes, int]
    placed: UInt8[Array, "p h w c"]


def different(pixels: Num[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "p h w c"]:
    """Each image once. Raises: InputError if fewer than two are left."""
    pixels = np.rint(pixels).astype(np.uint8)
    first = {image.tobytes(): row for row, image in reversed(list(enumerate(pixels)))}
    if len(first) < 2:
        raise InputError(
            f"the overlay pool holds {len(first)} different images; expected two or more clean ones, best a hundred"
        )
    return pixels[sorted(first.values())]


def overlay_images(images: ImageSet) -> UInt8[np.ndarray, "p h w c"]:
    """At most `POOL_SIZE` of the images, evenly spread, each once. Raises: InputError if fewer than two are left."""
    return different(images[:: max(1, -(-len(images) // POOL_SIZE))])


def overlay_pool(pixels: Num[np.ndarray, "p h w c"]) -> Overlays:
    """The pool, each image once. Raises: InputError if fewer than two different images are left."""
    pixels = different(pixels)
    places = {image.tobytes(): place for place, image in enumerate(pixels)}
    return Overlays(pixels, places, replicated(pixels, _GROUP))


def entropies(
    net: Net,
    batches: Batches,
    pool: Overlays,
    key: PRNGKeyArray,
    overlays: int = 100,
    blend: Blend = Blend(),  # noqa: B008
) -> Float[np.ndarray, " n"]:
    """Entropy of the predictions for an image under overlays, in bits, mean over the overlays.

    An image that is in the pool itself is never its own overlay.

    Args:
        batches: the images; each draws its overlays by `key` and its own pixels, whatever stands beside it.
        overlays: how many each image draws, with replacement.
    Raises: InputError if there are none.
    Source: Gao et al. 2019 (STRIP), section "Entropy": H = (1/N) Σ Hₙ, Hₙ = −Σ yᵢ log₂ yᵢ.
    """
    shared, results = replicated(net, _GROUP), []
    for images, drawn in _drawn(batches, pool, key, overlays):
        total = np.zeros(len(images), np.float32)
        for columns in _rounds(overlays):
            total += _round_sums(shared, images, drawn[:, columns], pool, blend)
        results.append(total / np.float32(overlays))
    return np.concatenate(results)


def rejected(
    net: Net,
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
    shared, results = replicated(net, _GROUP), []
    for images, drawn in _drawn(batches, pool, key, overlays):
        total = np.zeros(len(images), np.float32)
        undecided = np.arange(len(images))
        for columns in _rounds(overlays):
            total[undecided] += _round_sums(shared, images[undecided], drawn[undecided, columns], pool, blend)
            undecided = undecided[total[undecided] / np.float32(overlays) < threshold]
        results.append(total / np.float32(overlays) < threshold)
    return np.concatenate(results)


def superimpositions(
    image: Num[Arrays, "h w c"], overlays: Num[Arrays, "o h w c"], blend: Blend
) -> Float[Arrays, "o h w c"]:
    """What the net is shown: an image under each overlay, in pixel units (they may exceed 255)."""
    total = blend.image * image.astype(np.float32) + blend.overlay * overlays.astype(np.float32)
    return total.clip(max=255) if blend.saturating else total


def _rounds(overlays: int) -> list[slice]:
    return [slice(start, min(start + ROUND, overlays)) for start in range(0, overlays, ROUND)]


def _drawn(
    batches: Batches, pool: Overlays, key: PRNGKeyArray, overlays: int
) -> Iterator[tuple[Num[np.ndarray, "n h w c"], Int[np.ndarray, "n o"]]]:
    """The images of each batch without its padding, and the places in the pool of what they draw."""
    if overlays < 1:
        raise InputError(f"{overlays} overlays per image; expected at least one")
    for pixels, labels in batches:
        n = int((labels >= 0).sum())
        if n:
            contents = [image.tobytes() for image in np.rint(pixels).astype(np.uint8)]
            own = np.asarray([pool.places.get(content, -1) for content in contents])
            drawn = _draw(key, np.asarray(list(map(number_of, contents))), own, len(pool.pixels), overlays)
            yield pixels[:n], np.asarray(drawn)[:n]


def number_of(content: bytes) -> np.uint32:
    """What an image draws by: the same alone, in any order and in any set."""
    return np.uint32(int.from_bytes(sha256(content).digest()[:4], "big"))


@partial(jax.jit, static_argnames=("size", "overlays"))
def _draw(
    key: PRNGKeyArray, numbers: UInt32[Array, " n"], own: Int[Array, " n"], size: int, overlays: int
) -> Int32[Array, "n o"]:
    def of_one(number: UInt32[Array, ""], own: Int[Array, ""]) -> Int32[Array, " o"]:
        drawn = jax.random.randint(jax.random.fold_in(key, number), (overlays,), 0, size - (own >= 0))
        return drawn + ((own >= 0) & (drawn >= own))

    return jax.vmap(of_one)(numbers, own)


def _round_sums(
    net: Net,
    images: Num[np.ndarray, "n h w c"],
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
    net: Net,
    images: Num[Array, "m h w c"],
    drawn: Int[Array, "m r"],
    pool: UInt8[Array, "p h w c"],
    blend: Blend,
) -> Float[Array, " m"]:
    def of_part(
        net: Net, images: Num[Array, "m h w c"], drawn: Int[Array, "m r"], pool: UInt8[Array, "p h w c"]
    ) -> Float[Array, " m"]:
        """As many images at a time as fill a round: that keeps a CPU's cache. Other devices take all at once."""
        n, overlays = drawn.shape
        together = math.gcd(n, max(1, ROUND // overlays)) if jax.default_backend() == "cpu" else n

        def sums(images: Num[Array, "t h w c"], drawn: Int[Array, "t r"]) -> Float[Array, " t"]:
            shown = jax.vmap(superimpositions, (0, 0, None))(images, pool[drawn], blend)
            pairs = shown.reshape(-1, *shown.shape[2:])
            return entropy(net.features(pairs, ("logits",))["logits"]).reshape(drawn.shape).sum(axis=1)

        parts = jax.tree.map(lambda each: each.reshape(-1, together, *each.shape[1:]), (images, drawn))
        return lax.map(lambda part: sums(*part), parts).reshape(n)

    return sharded(of_part, net, (images, drawn), pool)
