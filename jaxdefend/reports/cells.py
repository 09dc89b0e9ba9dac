"""What `compare` computed, kept in a folder by what it was computed from."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import numpy as np

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.devices import of_first, place
from jaxdefend.nets.keras_files import read_model, write_model
from jaxdefend.nets.net import Net
from jaxdefend.reports.comparison import NetScores
from jaxdefend.results.records import replacing

# Part of every cell's key: one more whenever a cell would hold something else.
_VERSION = 2


@dataclass(frozen=True)
class Detected:
    threshold: float
    scores: Mapping[str, np.ndarray]
    seconds: float


class Cells:
    """What was computed, by key, in a folder; without one, nothing is kept. Of several processes, all compute what
    process 0 has not kept."""

    def __init__(self, folder: Path | None):
        self._folder = folder
        if folder is not None and place()[0] == 0:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another place") from error

    def _path(self, key: object, ending: str) -> Path | None:
        if self._folder is None:
            return None
        name = sha256(json.dumps([_VERSION, key], default=str).encode()).hexdigest()[:24]
        return self._folder / f"{name}{ending}"

    def array(self, key: object, compute: Any) -> np.ndarray:
        path = self._path(key, ".npz")
        kept = of_first(_read(path))
        if kept is not None and "answers" in kept:
            return kept["answers"]
        found = np.asarray(compute())
        _write(path, {"answers": found})
        return found

    def repair(self, key: object, net: Net, compute: Any) -> tuple[Net, str, float]:
        """The repaired net, its GoodNet's rule, and the seconds that it took."""
        path, told = self._path(key, ".h5"), self._path(key, ".json")
        kept = of_first(_read_repair(net, path, told))
        if kept is not None:
            return net.with_weights(kept[0]), kept[1], kept[2]
        saved = self._path(key, ".run")
        began = perf_counter()
        result = compute(saved)
        seconds = perf_counter() - began
        if path is not None and told is not None and place()[0] == 0:
            write_model(result.net, path)
            with replacing(told) as temporary:
                temporary.write_text(json.dumps({"rule": result.rule, "seconds": round(seconds, 3)}), encoding="utf-8")
            if saved is not None and saved.exists():
                shutil.rmtree(saved)
        return result.net, result.rule, seconds

    def detectors(self, keys: Mapping[str, object], compute: Any) -> dict[str, Detected]:
        """Those that are missing are computed together, since they share measures."""
        found = {}
        for name, key in keys.items():
            kept = of_first(_read(self._path(key, ".npz")))
            if kept is not None and "threshold" in kept:
                scores = {of.removeprefix("scores_"): kept[of] for of in kept if of.startswith("scores_")}
                found[name] = Detected(float(kept["threshold"]), scores, float(kept["seconds"]))
        missing = [name for name in keys if name not in found]
        if missing:
            for name, detected in compute(missing).items():
                found[name] = detected
                scores = {f"scores_{of}": values for of, values in detected.scores.items()}
                _write(
                    self._path(keys[name], ".npz"),
                    {"threshold": np.float64(detected.threshold), "seconds": np.float64(detected.seconds), **scores},
                )
        return found


def _read_repair(net: Net, path: Path | None, told: Path | None) -> tuple[Any, str, float] | None:
    """The weights, the rule and the seconds of a cell; a damaged one is as good as none."""
    if path is None or told is None or not (path.exists() and told.exists()):
        return None
    try:
        record = json.loads(told.read_text(encoding="utf-8"))
        fixed = net.with_weights(read_model(path).net.weights)
        return fixed.weights, str(record["rule"]), float(record["seconds"])
    except (InputError, OSError, ValueError, KeyError):
        return None


def _read(path: Path | None) -> dict[str, np.ndarray] | None:
    """A damaged cell is as good as none."""
    if path is None or not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            return dict(kept)
    except Exception:
        return None


def _write(path: Path | None, arrays: Mapping[str, Any]) -> None:
    if path is not None and place()[0] == 0:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)


def write_scores(path: Path, scores: Mapping[str, NetScores]) -> None:
    """For the figures of a later table."""
    arrays: dict[str, np.ndarray] = {}
    told: dict[str, Any] = {}
    for net, of in scores.items():
        places: dict[str, dict[str, int]] = {}
        for name, by_detector in of.scores.items():
            for detector, values in by_detector.items():
                places.setdefault(name, {})[detector] = len(arrays)
                arrays[f"scores_{len(arrays)}"] = values
        told[net] = {"scores": places, "thresholds": dict(of.thresholds), "drawn": dict(of.drawn)}
    _write(path, {"told": np.array(json.dumps(told)), **arrays})


def read_scores(path: Path) -> dict[str, NetScores]:
    """What `write_scores` wrote; nothing if the file is not there or damaged."""
    kept = _read(path)
    try:
        told = json.loads(str(kept["told"])) if kept else {}
        return {
            net: NetScores(
                {
                    name: {detector: kept[f"scores_{place}"] for detector, place in places.items()}
                    for name, places in of["scores"].items()
                },
                {name: float(threshold) for name, threshold in of["thresholds"].items()},
                {name: (str(label), bool(entropy)) for name, (label, entropy) in of["drawn"].items()},
            )
            for net, of in told.items()
            if kept
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def of_net(net: Net) -> str:
    """A digest of what a net computes."""
    digest = sha256(f"{net.input_scale} {net.graph.layers} {net.graph.output}".encode())
    for leaf in jax.tree.leaves(net.weights):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def of_images(images: ImageSet) -> str:
    digest = sha256(np.asarray(images.labels).astype(np.int64).tobytes())
    for pixels, _ in images.chunks(1024):
        digest.update(np.ascontiguousarray(np.asarray(pixels, np.float32)).tobytes())
    return digest.hexdigest()


def key_of(settings: Any) -> dict[str, str]:
    """Settings as part of a cell's key."""
    assert is_dataclass(settings)
    own = {each.name: str(getattr(settings, each.name)) for each in fields(settings)}
    return {"kind": type(settings).__name__} | own
