"""STRIP: against the published scripts' loop, against ART, and with the early exit against without."""

import sys
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from benchmarks import keras_peer
from benchmarks.measuring import Row, Size, clean_faces, interleaved
from benchmarks.report import main
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.detectors import Blend, strip
from jaxdefend.nets import shipped
from jaxdefend.nets.batches import padded
from jaxdefend.nets.devices import batch_size
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.loading import load_net

OVERLAYS = 100
FALSE_REJECTIONS = 0.01
PLAIN_SUM = Blend()


def rows(size: Size) -> list[Row]:
    import jax

    path = shipped.path_of(shipped.BADNET)
    net, key = load_net(path), jax.random.key(0)
    pixels, _ = clean_faces(max(128, size.strip_images) + 512)
    images, pool = ArrayImages(pixels[: size.strip_images]), strip.overlay_pool(pixels[-512:])

    def entropies() -> np.ndarray:
        return strip.entropies(net, padded(images, len(images)), pool, key, OVERLAYS)

    found = entropies()

    # Images are computed in groups: of too few, none can be left out.
    more = ArrayImages(pixels[: max(128, size.strip_images)])
    of_more = strip.entropies(net, padded(more, len(more)), pool, key, OVERLAYS)
    threshold = float(np.quantile(of_more, FALSE_REJECTIONS))

    def every() -> np.ndarray:
        return strip.entropies(net, padded(more, len(more)), pool, key, OVERLAYS) < threshold

    def rejected() -> np.ndarray:
        return strip.rejected(net, padded(more, len(more)), pool, key, threshold, OVERLAYS)

    same = np.array_equal(rejected(), of_more < threshold)
    early, whole = interleaved(size.repeats, rejected, every)
    peer = f"the same without it, {len(more)} clean images, threshold at 1 % false rejections"
    last = Row("early_exit", early, peer, whole, same, smallest_ratio=1.5)

    loop = _loop(net, path, images, pool, key) if keras_peer.name() else None
    art = _art(path, images, net.input_scale) if find_spec("art") and find_spec("tensorflow") else None
    same_loop = np.allclose(loop(), found, rtol=1e-3, atol=1e-3) if loop else None
    same_labels = np.array_equal(art(), predictions(net, padded(images, len(images)))[0]) if art else None
    contestants = [entropies, *([loop] if loop else []), *([art] if art else [])]
    ours, *theirs = interleaved(max(2, size.repeats // 2), *contestants)
    per_image = f"{keras_peer.name()}, one predict of {OVERLAYS} an image" if loop else f"Keras, {keras_peer.INSTALL}"
    return [
        Row("strip_loop", ours, per_image, theirs[0] if loop else None, same_loop),
        Row(
            "strip_art",
            ours,
            "ART's STRIP; same result: labels" if art else f"ART on TensorFlow, {keras_peer.INSTALL}",
            theirs[-1] if art else None,
            same_labels,
        ),
        _of_pairs(net, images, entropies, size),
        last,
    ]


def _of_pairs(net, images: ArrayImages, entropies: Callable[[], np.ndarray], size: Size) -> Row:
    """A pair of image and overlay against an image of a plain pass."""
    many = ArrayImages(np.resize(images.pixels, (len(images) * OVERLAYS, *images.pixels.shape[1:])))

    def labels() -> np.ndarray:
        return predictions(net, padded(many, batch_size()))[0]

    labels()
    ours, plain = interleaved(max(2, size.repeats // 2), entropies, labels)
    return Row("strip_pairs", ours, "labels of as many images as there are pairs", plain, smallest_ratio=1)


def _loop(net, path, images: ArrayImages, pool: strip.Overlays, key) -> Callable[[], np.ndarray]:
    """The published scripts' loop, with the overlays that jaxdefend draws."""
    model = keras_peer.load(path)
    places = [drawn for _, drawn in strip._drawn(padded(images, len(images)), pool, key, OVERLAYS)]

    def entropy(image: np.ndarray, drawn: np.ndarray) -> float:
        shown = strip.superimpositions(image, pool.pixels[drawn], PLAIN_SUM)
        shares = model.predict(keras_peer.as_input(shown, net.input_scale), batch_size=OVERLAYS, verbose=0)
        return float(-(shares * np.log2(np.maximum(shares, 1e-30))).sum(axis=1).mean())

    @keras_peer.quiet()
    def entropies() -> np.ndarray:
        return np.array([entropy(*pair) for pair in zip(images.pixels, np.concatenate(places), strict=True)])

    return entropies


@keras_peer.quiet()
def _art(path, images: ArrayImages, input_scale: str) -> Callable[[], np.ndarray]:
    """Labels under ART's STRIP, at a threshold of 0.

    ART takes the entropy over the images instead of the classes, where it may be undefined, so it cannot set a
    threshold of its own for this net. The work is the same.
    """
    from art.defences.transformer.poisoning import STRIP
    from art.estimators.classification import KerasClassifier

    shown = keras_peer.as_input(images.pixels, input_scale)
    defended = STRIP(KerasClassifier(keras_peer.load(path)))(num_samples=OVERLAYS)
    defended.validation_data, defended.entropy_threshold = shown, 0.0

    @keras_peer.quiet()
    def labels() -> np.ndarray:
        with np.errstate(all="ignore"):
            return defended.predict(shown).argmax(axis=1)

    return labels


if __name__ == "__main__":
    sys.exit(main(rows))
