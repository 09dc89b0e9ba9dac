"""guard.json read back: made by a stranger until it is checked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images
from jaxdefend.detectors import DETECTORS
from jaxdefend.detectors.base import LEAST_STD, Fit, highest_score, module_of, name_of, parts_of
from jaxdefend.detectors.guards import (
    POOL_FILE,
    THRESHOLDS,
    VERSION,
    Calibrated,
    Guard,
    Level,
    Spread,
    digest,
    number_of,
)
from jaxdefend.nets.net import Net
from jaxdefend.results.text import printable

# A guard that holds all detectors takes 10 kB.
_SIZE_LIMIT = 2**20

_AGAIN = "make it again with python -m jaxdefend.detect calibrate"


def read_guard(path: Path, net: Net) -> Guard:
    """See `Guard.load`."""
    record, shown = _record(path), printable(path, 200)
    version = record.get("guard")
    if version not in (2, VERSION):
        raise InputError(f"{shown}: guard version {printable(version, 40)}, expected {VERSION}; {_AGAIN}")
    try:
        model_sha256, scale = str(record["model"]["sha256"]), record["input_scale"]
        seed = record["settings"]["seed"] if version == 2 else record["seed"]
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise ValueError("seed")
        clean = {str(name): Fit(number_of(fit["mean"]), number_of(fit["std"])) for name, fit in record["clean"].items()}
        if not all(fit.std >= LEAST_STD for fit in clean.values()):
            raise ValueError("clean")
        blocks = record["detectors"]
        detectors = {name: _calibrated(name, blocks[name], record, version) for name in blocks}
        default, pool_file, pool_sha256 = record["detector"], record["overlays_file"], record["overlays_sha256"]
        parts = {name_of(part) for held in detectors.values() for part in parts_of(held.detector)}
        if default not in detectors or not parts <= set(detectors):
            raise ValueError("detectors")
        if record["threshold"] != detectors[default].threshold:
            raise ValueError("threshold")
        needed = [name for held in detectors.values() for name in getattr(module_of(held.detector), "FITS", ())]
        if not set(needed) <= set(clean):
            raise ValueError("clean")
        for name, held in detectors.items():
            if any(level.threshold > highest_score(held.detector, clean) for level in held.levels):
                raise ValueError(f"{name}: a threshold that no score exceeds")
        fit = record.get("fit", "conformal")
        if fit not in THRESHOLDS:
            raise ValueError("fit")
    except InputError as error:
        raise InputError(f"{shown}: {printable(error, 160)}; {_AGAIN}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{shown}: {printable(error, 80)} is missing or wrong; {_AGAIN}") from error
    _check_net(shown, model_sha256, scale, net)
    pool = None
    if any(held.detector.uses_pool for held in detectors.values()):
        if pool_file != POOL_FILE:
            raise InputError(f"{shown}: names no overlays for STRIP; {_AGAIN}")
        pool = _read_pool(path.with_name(POOL_FILE), pool_sha256, net)
    return Guard(net, default, detectors, clean, seed, fit, pool)


def _unreadable(path: Path) -> str:
    return f"{printable(path, 200)}: cannot be read as a guard; make one with python -m jaxdefend.detect calibrate"


def _record(path: Path) -> dict[str, Any]:
    """The JSON object in the file. Raises: InputError if it holds none, or is not a file of a guard's size."""
    told = _unreadable(path)
    try:
        if not path.is_file() or path.stat().st_size > _SIZE_LIMIT:
            raise InputError(told)
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(told) from error
    if not isinstance(record, dict):
        raise InputError(told)
    return record


def _calibrated(name: str, block: Mapping[str, Any], record: Mapping[str, Any], version: int) -> Calibrated:
    """Raises: KeyError, TypeError or ValueError for what calibrate does not write."""
    if name not in DETECTORS:
        raise ValueError(f"detector {name}")
    settings = block["settings"] if version == VERSION else _settings_of_version_2(name, record["settings"])
    levels = []
    for level in block["levels"]:
        confidence = {
            key: number_of(level[key]) for key in ("expected_frr", "confidence", "frr_95") if level.get(key) is not None
        }
        # None: the threshold was chosen by hand.
        if level["frr_asked"] is not None and not 0 < number_of(level["frr_asked"]) < 1:
            raise ValueError("frr_asked")
        levels.append(Level(level["frr_asked"], number_of(level["threshold"]), confidence))
    if not levels or block["threshold"] != levels[0].threshold:
        raise ValueError("threshold")
    score, entropy = (
        None if found is None else Spread(int(found["n"]), number_of(found["mean"]), number_of(found["std"]))
        for found in (block["clean_score"], block.get("clean_entropy"))
    )
    if score is None:
        raise ValueError("clean_score")
    return Calibrated(DETECTORS[name](**settings), tuple(levels), score, entropy)


def _settings_of_version_2(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All detectors shared one set of settings then."""
    weights = settings["blend"]
    plain = (weights["image"], weights["overlay"]) == (1, 1)
    if not plain and weights["saturating"]:
        raise ValueError("blend")
    blend = f"{weights['image']!r}+{weights['overlay']!r}"
    if plain:
        blend = "saturating" if weights["saturating"] else "sum"
    known = {
        "masks": settings["masks"],
        "keep": settings["keep_few" if name == "persistence" else "keep"],
        "overlays": settings["overlays"],
        "blend": blend,
    }
    return {key: known[key] for key in DETECTORS[name]().record()}


def _check_net(shown: str, model_sha256: str, scale: object, net: Net) -> None:
    if net.source is None or model_sha256 != net.source.sha256:
        is_now = "a net that does not come from a file" if net.source is None else net.source.sha256[:16] + "…"
        raise InputError(
            f"{shown}: made for another net (sha256 {printable(model_sha256[:16])}…), {printable(net.name, 80)} is "
            f"{is_now}; make one for it with python -m jaxdefend.detect calibrate"
        )
    if scale != net.input_scale:
        raise InputError(
            f"{shown}: made for the input scale {printable(scale, 40)}, the net runs on {net.input_scale}; load the "
            "net with that scale, or make another guard"
        )


def input_scale_of(path: Path | str) -> str | None:
    """The input scale a guard was made for; what else may be wrong with it `Guard.load` says."""
    try:
        scale = _record(Path(path)).get("input_scale")
    except InputError:
        return None
    return scale if isinstance(scale, str) else None


def _read_pool(path: Path, expected: object, net: Net) -> UInt8[np.ndarray, "p h w c"]:
    pool = np.rint(open_images(path, shape=net.image_shape, labelled=False)[:]).astype(np.uint8)
    if digest(pool) != expected:
        raise InputError(f"{printable(path, 200)}: not the overlays that the guard was made with; {_AGAIN}")
    return pool
