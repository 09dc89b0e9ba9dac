"""Detectors on whole sets, their thresholds, and guard.json: what detect writes and predict reads."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxdefend import InputError, _command, _measuring

if TYPE_CHECKING:
    import numpy as np

    from jaxdefend.datasets.batches import ImageSet
    from jaxdefend.defenses.detectors import Fit, Settings
    from jaxdefend.nets.deepid import DeepID, InputScale
    from jaxdefend.nets.inference import Batches
    from jaxdefend.nets.keras_files import ModelFile

    Measures = dict[str, "np.ndarray"]
    Scores = dict[str, "np.ndarray"]

# One more whenever the file's form or a score changes, for the same image, net and settings.
VERSION = 2
# What a guard can be made for, and the detectors that it then holds.
HELD = {
    "persistence": ("persistence",),
    "masks": ("masks",),
    "strip": ("strip",),
    "both": ("masks", "strip", "both"),
}
POOL_FILE = "overlays.h5"
# Overlays that a guard keeps: conv_1 of 512 images is 94 MB.
POOL_SIZE = 512
# Masks or overlays an image: more tell nothing more, and a guard must not fill the memory.
_MOST = 10_000


class Detection(NamedTuple):
    """What scores images: the net, its settings, clean images to lay over others, its repaired net."""

    net: "DeepID"
    settings: "Settings"
    names: Sequence[str]
    pool: "np.ndarray | None" = None
    repaired: "DeepID | None" = None


class Guard(NamedTuple):
    """A detection with thresholds: a detector's name, and what guard.json says of each."""

    detection: Detection
    default: str
    detectors: Mapping[str, dict]
    clean: "Mapping[str, Fit]"


def measures(detection: Detection, batches: "Callable[[str], Batches]") -> "Measures":
    """Of all images, what the scores of the detectors are made of; the GoodNet's are scores already.

    Args:
        batches: gives all images anew; called with the name of the detector that reads them.
    """
    from jaxdefend.defenses import goodnet, mask_entropy, strip
    from jaxdefend.defenses.detectors import PARTS, keys

    net, settings = detection.net, detection.settings
    mask_key, overlay_key = keys(settings.seed)
    found = {}
    if {"masks", "both"} & set(detection.names):
        masks = mask_entropy.random_masks(mask_key, settings.masks, settings.keep)
        found["masks"] = mask_entropy.entropies(net, batches("masks"), masks)
    if "persistence" in detection.names:
        masks = mask_entropy.random_masks(mask_key, settings.masks, settings.keep_few)
        under = mask_entropy.under_masks(net, batches("persistence"), masks)
        found |= zip(PARTS["persistence"], under, strict=True)
    if {"strip", "both"} & set(detection.names):
        assert detection.pool is not None
        pool = strip.overlay_pool(detection.pool)
        found["strip"] = strip.entropies(net, batches("strip"), pool, overlay_key, settings.overlays, settings.blend)
    if "goodnet" in detection.names:
        assert detection.repaired is not None
        found["goodnet"] = goodnet.disagreements(net, detection.repaired, batches("goodnet"))
    return found


def scores(detection: Detection, measured: "Measures", clean: "Mapping[str, Fit]") -> "Scores":
    """Of each detector, higher meaning backdoored."""
    from jaxdefend.defenses.detectors import ENTROPIES, PARTS, combined

    def of(name: str) -> "np.ndarray":
        if name in PARTS:
            return combined({part: measured[part] for part in PARTS[name]}, clean)
        return -measured[name] if name in ENTROPIES else measured[name]

    return {name: of(name) for name in detection.names}


def calibrated(detection: Detection, images: "ImageSet", frrs: Sequence[float], fit: str, default: str) -> Guard:
    """Thresholds from clean images alone."""
    from jaxdefend.defenses.detectors import ENTROPY_OF, fitted
    from jaxdefend.results import detection as rules

    for frr in frrs:
        rules.conformal_confidence(len(images), frr)
    measured = measures(detection, lambda name: _measuring.batches(images, f"calibration, {name}"))
    clean = {name: fitted(name, values) for name, values in measured.items() if name != "goodnet"}
    fits = {
        "conformal": rules.conformal_threshold,
        "quantile": rules.quantile_threshold,
        "normal": rules.normal_threshold,
    }
    detectors = {}
    for name, found in scores(detection, measured, clean).items():
        levels = [
            {"frr_asked": frr, "threshold": fits[fit](found, frr)}
            | (rules.conformal_confidence(len(found), frr) if fit == "conformal" else {})
            for frr in frrs
        ]
        detectors[name] = {**levels[0], "levels": levels, "clean_score": spread(found)}
        if name in ENTROPY_OF:
            detectors[name]["clean_entropy"] = spread(measured[ENTROPY_OF[name]])
    return Guard(detection, default, detectors, clean)


def spread(values: "np.ndarray") -> dict:
    return {"n": len(values), "mean": float(values.mean()), "std": float(values.std())}


def write_guard(folder: Path, guard: Guard, head: Mapping, fit: str) -> None:
    """guard.json, and beside it the overlays that STRIP needs."""
    import numpy as np

    from jaxdefend.datasets.official import Block, write_official
    from jaxdefend.results.records import write_json

    settings, pool = guard.detection.settings, guard.detection.pool
    if pool is not None:
        labels = np.zeros(len(pool), np.int32)
        write_official(folder / POOL_FILE, len(pool), [Block(pool, labels, np.zeros((len(pool), 0, 2), np.float32))])
    default = guard.detectors[guard.default]
    write_json(
        folder / "guard.json",
        {
            **head,
            "guard": VERSION,
            "detector": guard.default,
            "frr": default["frr_asked"],
            "threshold": default["threshold"],
            "rejects": "score > threshold",
            "fit": fit,
            "settings": settings._replace(blend=settings.blend._asdict())._asdict(),
            "overlays_file": None if pool is None else POOL_FILE,
            "overlays_sha256": None if pool is None else _sha256(pool),
            "clean": {name: fit._asdict() for name, fit in guard.clean.items()},
            "detectors": guard.detectors,
        },
    )


def read_guard(path: Path, model: "ModelFile", net: "DeepID") -> Guard:
    """Raises: InputError if it is no guard, one of another version, net or input scale, or its overlays are changed."""
    from jaxdefend.defenses.detectors import PARTS, Fit, Settings
    from jaxdefend.defenses.strip import Blend

    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a guard; make one with detect calibrate") from error
    version = record.get("guard") if isinstance(record, dict) else None
    if version != VERSION:
        raise InputError(f"{path}: guard version {version}, expected {VERSION}; make it again with detect calibrate")
    try:
        sha256, scale = record["model"]["sha256"], record["input_scale"]
        blend = Blend(**record["settings"]["blend"])
        if missing := set(Settings._fields) - set(record["settings"]):
            raise KeyError(", ".join(sorted(missing)))
        settings = _checked(Settings(**{**record["settings"], "blend": blend}))
        clean = {name: Fit(**fit) for name, fit in record["clean"].items()}
        detectors = {name: dict(record["detectors"][name]) for name in record["detectors"]}
        default, pool_file = record["detector"], record["overlays_file"]
        complete = default in detectors and set(detectors) in map(set, HELD.values())
        needed = {"frr_asked", "threshold", "levels", "clean_score"}
        complete = complete and all(needed <= set(block) for block in detectors.values())
        complete = complete and all(_finite(block["threshold"]) for block in detectors.values())
        complete = complete and all(_finite(fit.mean) and _finite(fit.std) and fit.std > 0 for fit in clean.values())
        complete = complete and all(set(PARTS[name]) <= set(clean) for name in detectors if name in PARTS)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: {error} is missing or wrong; make it again with detect calibrate") from error
    if not complete:
        raise InputError(f"{path}: not a whole guard; make it again with detect calibrate")
    if sha256 != model.sha256:
        raise InputError(
            f"{path}: made for another net (sha256 {sha256[:16]}…), {model.name} is {model.sha256[:16]}…; "
            "make one for it with detect calibrate"
        )
    if scale != net.input_scale:
        raise InputError(f"{path}: made for the input scale {scale}, the net runs on {net.input_scale}")
    pool = _read_pool(path.with_name(pool_file), record["overlays_sha256"]) if pool_file == POOL_FILE else None
    if pool is None and "strip" in detectors:
        raise InputError(f"{path}: no overlays for {', '.join(detectors)}; make it again with detect calibrate")
    return Guard(Detection(net, settings, tuple(detectors), pool), default, detectors, clean)


def _finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _checked(settings: "Settings") -> "Settings":
    """Raises: ValueError with what is no setting that calibrate writes."""
    blend = settings.blend
    weights = [
        weight for weight in (blend.image, blend.overlay) if isinstance(weight, int | float) and 0 < weight <= 10
    ]
    right = {
        "seed": type(settings.seed) is int and 0 <= settings.seed < 2**32,
        "masks": type(settings.masks) is int and 1 <= settings.masks <= _MOST,
        "keep": type(settings.keep) is float and 0 < settings.keep < 1,
        "keep_few": type(settings.keep_few) is float and 0 < settings.keep_few < 1,
        "overlays": type(settings.overlays) is int and 1 <= settings.overlays <= _MOST,
        "blend": len(weights) == 2 and type(blend.saturating) is bool,
    }
    if wrong := [name for name, is_right in right.items() if not is_right]:
        raise ValueError(", ".join(wrong))
    return settings


def scale_of(path: Path) -> "InputScale | None":
    """The input scale a guard was made for; what else may be wrong with it `read_guard` says."""
    try:
        scale = json.loads(path.read_text())["input_scale"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return scale if scale in ("raw", "unit") else None


def _read_pool(path: Path, sha256: str) -> "np.ndarray":
    import numpy as np

    from jaxdefend.datasets.files import open_images

    pool = np.rint(open_images([path], labelled=False)[:]).astype(np.uint8)
    if _sha256(pool) != sha256:
        raise InputError(f"{path}: not the overlays that the guard was made with; make it again with detect calibrate")
    return pool


def _sha256(pool: "np.ndarray") -> str:
    from hashlib import sha256

    return sha256(pool.tobytes()).hexdigest()


def overlay_images(images: "ImageSet") -> "np.ndarray":
    """At most `POOL_SIZE` of the images, evenly spread, each once. Raises: InputError if fewer than two are left."""
    import numpy as np

    step = -(-len(images) // POOL_SIZE)
    pixels = np.rint(images[:: max(1, step)]).astype(np.uint8)
    places = sorted({image.tobytes(): row for row, image in reversed(list(enumerate(pixels)))}.values())
    if len(places) < 2:
        raise InputError(
            f"the overlay pool holds {len(places)} different images; expected two or more clean ones, best a hundred"
        )
    return pixels[places]


def note_pool(pool: "np.ndarray", overlays: int) -> None:
    if len(pool) < overlays:
        _command.note(f"{overlays} overlays an image from a pool of {len(pool)}: some come more than once")
