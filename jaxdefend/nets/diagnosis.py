"""Why a figure may be wrong: what would have been with other colours, axes or labels. Nothing is changed by it."""

import numpy as np
from jaxtyping import Bool, Int, Num

from jaxdefend.datasets.images import ArrayImages, ImageSet
from jaxdefend.datasets.pixels import fitted
from jaxdefend.nets.batches import padded
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.net import Net

# Images that are looked at, evenly spread.
_SAMPLED = 256
# Fewer do not show what dominates.
_FEWEST = 5
# Below this share of clean images that are given their label, the labels or the pixels are in doubt.
_POOR = 0.5
# Below this share something is wrong, even where nobody knows what.
_NEXT_TO_NOTHING = 0.05
# What another reading of the same images must gain to be worth a word.
_GAIN = 0.3


def recognised_share(net: Net, images: ImageSet) -> float:
    """The share of some labelled images, evenly spread, that are given their label."""
    pixels, labels = _sample(images)
    return float((_answers(net, pixels) == labels).mean())


def doubts_about_clean(net: Net, images: ImageSet, what: str = "clean images") -> tuple[str, ...]:
    """Where few of these labelled clean images are given their label: which other reading of them would give more.

    Tried are red and blue exchanged, rows and columns exchanged, labels counted from 1 or one too low, and labels cut
    to 8 bits; and whether the images are black, or one label is the answer to most, as for poisoned ones.
    """
    pixels, labels = _sample(images)
    answers = _answers(net, pixels)
    share = float((answers == labels).mean())
    if len(labels) >= _FEWEST and len(np.unique(labels)) == 1:
        return (f"{what}: all {len(images)} have the label {labels[0]}: are these poisoned images?",)
    if share > 1 - _GAIN:
        return ()
    if pixels.max() <= 1:
        return (_black(what),)
    head = f"{what}: {100 * share:.1f} % are given their label"
    found = _better(head, share, _other_labels(net, answers, labels) | _other_pixels(net, pixels, labels))
    if found or share >= _POOR:
        return tuple(found)
    common, count = _commonest(answers)
    if len(answers) >= _FEWEST and count > len(answers) / 2 and len(np.unique(labels)) > 1:
        found.append(f"{head}, and {count} of {len(answers)} get the label {common}: are these poisoned images?")
    if not found and share < _NEXT_TO_NOTHING and len(labels) >= _FEWEST:
        found.append(f"{head}: do labels, colours and input scale suit the net? No other reading that was tried helps")
    return tuple(found)


def doubts_about_poisoned(net: Net, images: ImageSet, what: str) -> tuple[str, ...]:
    """Where these images may have their true labels, or may not be poisoned at all.

    Either most of them are given one label that is not theirs, or most are given their own, and nearly all of these
    differ. Where the attack seems to fail: what red and blue, or rows and columns, exchanged would give, and a target
    counted from 1.
    """
    pixels, labels = _sample(images)
    answers = _answers(net, pixels)
    common, count = _commonest(answers)
    n, hits = len(answers), int((answers == labels).sum())
    different = len(np.unique(labels))
    if n >= _FEWEST and hits >= _POOR * n and different > n / 2:
        return (f"{what}: {hits} of {n} are given the label that they have, {different} different ones: clean images?",)
    if n < _FEWEST or hits > (1 - _GAIN) * n:
        return ()
    if pixels.max() <= 1:
        return (_black(what),)
    readings = _other_pixels(net, pixels, labels) | (_other_labels(net, answers, labels) if different == 1 else {})
    if found := _better(f"{what}: {hits} of {n} are given the label that they have", hits / n, readings):
        return tuple(found)
    if hits >= _POOR * n or count <= n / 2:
        return ()
    lead = f"{what}: {count} of {n} get the label {common}, {hits} the label that they have"
    return (f"{lead}: are these true labels? Then the target is {common}",)


# By what is exchanged: which images are then given their label, and what that means.
_Readings = dict[str, tuple[Bool[np.ndarray, " n"], str]]


def _black(what: str) -> str:
    return f"{what}: no pixel is above 1, the images are black; were pixels 0–1 stored as whole numbers?"


def _other_labels(net: Net, answers: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> _Readings:
    readings = {
        "labels one lower": (answers == labels - 1, "they seem to be counted from 1"),
        "labels one higher": (answers == labels + 1, "they seem to be one too low"),
    }
    if net.classes > 256 > labels.max():
        readings["labels modulo 256"] = (answers % 256 == labels, "they seem to have been cut to 8 bits")
    return readings


def _other_pixels(net: Net, pixels: Num[np.ndarray, "n h w c"], labels: Int[np.ndarray, " n"]) -> _Readings:
    height, width, channels = net.image_shape
    readings: _Readings = {}
    if channels == 3:
        readings["red and blue exchanged"] = (_answers(net, pixels[..., ::-1]) == labels, "this looks like BGR")
    turned = fitted(np.swapaxes(pixels, 1, 2), (height, width, channels))
    readings["rows and columns exchanged"] = (_answers(net, turned) == labels, "the images seem to be turned")
    return readings


def _better(head: str, share: float, readings: _Readings) -> list[str]:
    """The best of the readings, if it is worth a word."""
    shares = {reading: float(hits.mean()) for reading, (hits, _) in readings.items()}
    best = max(shares, key=shares.__getitem__, default=None)
    if best is None or shares[best] < share + _GAIN:
        return []
    return [f"{head}; with {best}: {100 * shares[best]:.1f} % ({readings[best][1]})"]


def _sample(images: ImageSet) -> tuple[Num[np.ndarray, "n h w c"], Int[np.ndarray, " n"]]:
    rows = slice(None, None, max(1, -(-len(images) // _SAMPLED)))
    return images[rows], np.asarray(images.labels)[rows]


def _answers(net: Net, pixels: Num[np.ndarray, "n h w c"]) -> Int[np.ndarray, " n"]:
    return predictions(net, padded(ArrayImages(np.ascontiguousarray(pixels))))[0]


def _commonest(answers: Int[np.ndarray, " n"]) -> tuple[int, int]:
    values, counts = np.unique(answers, return_counts=True)
    return int(values[counts.argmax()]), int(counts.max())
