"""Guards: detectors with thresholds from clean images, in memory and as guard.json."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from jaxdefend import InputError
from jaxdefend.datasets.images import as_images
from jaxdefend.datasets.official import Block, write_official
from jaxdefend.detectors import Detector, Masks, ThresholdFit
from jaxdefend.detectors.base import (
    Fit,
    Measures,
    Scene,
    Scores,
    fitted,
    highest_score,
    measures,
    module_of,
    name_of,
    parts_of,
)
from jaxdefend.nets.net import Net
from jaxdefend.results import detection as rules
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.records import write_json
from jaxdefend.results.settings import checked_seed
from jaxdefend.results.text import printable, table

# One more whenever the file's form changes, or a score for the same image, net and settings. Version 2 is read too.
VERSION = 3
POOL_FILE = "overlays.h5"

# Scores are bits or standard deviations.
_LARGEST = 1e6

THRESHOLDS = {
    "conformal": rules.conformal_threshold,
    "quantile": rules.quantile_threshold,
    "normal": rules.normal_threshold,
}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of `n` numbers."""

    n: int
    mean: float
    std: float


def spread(values: Scores) -> Spread:
    return Spread(len(values), float(values.mean()), float(values.std()))


@dataclass(frozen=True)
class Level:
    """A threshold for a false rejection rate; `confidence` is what the number of images says of the true rate.

    `frr` is None where the threshold was chosen by hand.
    """

    frr: float | None
    threshold: float
    confidence: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        return {"frr_asked": self.frr, "threshold": self.threshold, **self.confidence}


@dataclass(frozen=True)
class Calibrated:
    """A detector with its thresholds, and what clean images measure.

    Attributes:
        entropy: the entropies of the clean images in bits, of a detector that has one.
    """

    detector: Detector
    levels: tuple[Level, ...]
    score: Spread
    entropy: Spread | None = None

    @property
    def threshold(self) -> float:
        """The first one: it decides."""
        return self.levels[0].threshold

    def record(self) -> dict[str, Any]:
        levels = [level.record() for level in self.levels]
        block = {**levels[0], "levels": levels, "clean_score": vars(self.score)}
        if self.entropy is not None:
            block["clean_entropy"] = vars(self.entropy)
        return block | {"settings": self.detector.record()}


@dataclass(frozen=True, repr=False)
class Verdicts:
    """What a guard says of images.

    Attributes:
        scores: higher means backdoored.
        rejected: whether the score is above the threshold.
    """

    names: Sequence[str]
    detector: str
    threshold: float
    scores: Scores
    rejected: Bool[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.scores)

    def record(self) -> list[dict[str, Any]]:
        """An object per image."""
        columns = zip(self.names, self.scores.astype(float).tolist(), self.rejected.tolist(), strict=True)
        return [{"image": name, "score": score, "rejected": rejected} for name, score, rejected in columns]

    def table(self) -> str:
        rows = [[row["image"], f"{row['score']:.3f}", "rejected" if row["rejected"] else ""] for row in self.record()]
        return table(["image", self.detector, f"threshold {self.threshold:.3f}"], rows)

    def __repr__(self) -> str:
        share = 100 * float(self.rejected.mean())
        head = f"{self.detector}: {int(self.rejected.sum())} of {len(self)} images rejected ({share:.1f} %)"
        return f"{head}\n{self.table()}" if len(self) <= 20 else head


@dataclass(frozen=True, repr=False)
class Guard:
    """Detectors with thresholds from clean images alone. Call it with images for verdicts.

    Attributes:
        default: the name of the detector that decides.
        detectors: by name.
        clean: the fits to clean images that scores are made with, by measure.
        seed: of masks and overlays.
        pool: clean images to draw STRIP's overlays from.
        repaired: the repaired net that the detector `goodnet` asks; it is not saved.
    """

    net: Net
    default: str
    detectors: Mapping[str, Calibrated]
    clean: Mapping[str, Fit]
    seed: int = 0
    fit: ThresholdFit = "conformal"
    pool: UInt8[np.ndarray, "p h w c"] | None = None
    repaired: Net | None = None

    @property
    def threshold(self) -> float:
        """That of the detector that decides."""
        return self.detectors[self.default].threshold

    def __call__(self, images: Any, *, progress: Report = silent) -> Verdicts:
        """Score and verdict of each image; no labels are needed.

        Args:
            images: what `open_images` gives, an array of pixels 0–255, …
        """
        shown = as_images(images, self.net.image_shape)
        detector = self.detectors[self.default].detector
        scene = self.scene(progress)._replace(smallest=1)
        found = measures(detector, self.net, shown, scene, {})
        scores = self.scores(self.default, found)
        return Verdicts(shown.names, self.default, self.threshold, scores, scores > self.threshold)

    def with_threshold(self, threshold: float, detector: str | None = None) -> "Guard":
        """The guard with a threshold of one's own for one detector, by default the one that decides.

        Args:
            threshold: as `rule_text` has it: an entropy in bits for a detector whose score is an entropy's negative.
        """
        name = detector or self.default
        if name not in self.detectors:
            raise InputError(f"detector {name!r}: the guard holds {', '.join(self.detectors)}")
        detector_asked = self.detectors[name].detector
        negated = getattr(module_of(detector_asked), "NEGATED", False)
        level = Level(None, _number_asked(-threshold if negated else threshold), {})
        if level.threshold > (highest := highest_score(detector_asked, self.clean)):
            reached = "no entropy is negative" if negated else f"no image scores above {highest:.3g}"
            raise InputError(f"threshold {threshold:g}: {reached}, so {name} would reject nothing; choose another")
        changed = replace(self.detectors[name], levels=(level,))
        return replace(self, detectors={**self.detectors, name: changed})

    def only(self, *names: str) -> "Guard":
        """The guard with these detectors and their parts alone; the first one decides.

        Raises: InputError if it does not hold one of them.
        """
        if not names or not set(names) <= set(self.detectors):
            raise InputError(f"detectors {', '.join(names) or 'none'}: the guard holds {', '.join(self.detectors)}")
        kept = {name_of(part) for name in names for part in parts_of(self.detectors[name].detector)} | set(names)
        held = {name: detector for name, detector in self.detectors.items() if name in kept}
        return replace(self, default=names[0], detectors=held)

    def rule_text(self, name: str | None = None) -> str:
        """For people: when a detector, by default the one that decides, rejects an image."""
        held = self.detectors[name or self.default]
        if getattr(module_of(held.detector), "NEGATED", False):
            return f"rejected if the entropy is below {-held.threshold:.4f} bits"
        return f"rejected if the score is above {held.threshold:.4f}"

    def verdict_rule(self) -> str:
        """For people: what decides, and when it rejects an image."""
        return f"{self.default}: an image is {self.rule_text()}"

    def scene(self, report: Report, title: str = "") -> Scene:
        """What its detectors measure with."""
        return Scene(self.seed, report, self.pool, self.repaired, title)

    def scores(self, name: str, found: Measures) -> Scores:
        """Of one of its detectors, higher meaning backdoored."""
        return module_of(self.detectors[name].detector).score(found, self.clean)

    def table(self) -> str:
        """For people: every threshold, and the scores of clean images."""
        rows = [
            [
                name,
                "by hand" if level.frr is None else f"{100 * level.frr:.3g} %",
                f"{level.threshold:.4f}",
                f"{held.score.mean:.4f}",
                f"{held.score.std:.4f}",
            ]
            for name, held in self.detectors.items()
            for level in held.levels
        ]
        return table(["detector", "FRR asked", "threshold", "clean scores: mean", "std"], rows)

    def __repr__(self) -> str:
        return self.table()

    def record(self) -> dict[str, Any]:
        """What guard.json holds of it."""
        first = self.detectors[self.default].levels[0]
        return {
            "guard": VERSION,
            "detector": self.default,
            "frr": first.frr,
            "threshold": first.threshold,
            "rejects": "score > threshold",
            "fit": self.fit,
            "overlays_file": None if self.pool is None else POOL_FILE,
            "overlays_sha256": None if self.pool is None else digest(self.pool),
            "clean": {name: fit._asdict() for name, fit in self.clean.items()},
            "detectors": {name: held.record() for name, held in self.detectors.items()},
        }

    def save(self, folder: Path | str, head: Mapping[str, Any] | None = None) -> None:
        """guard.json, and beside it the overlays that STRIP needs.

        Args:
            head: what the file says before; by default the net, its input scale and the seed.
        Raises: InputError if it cannot be written, or the net does not come from a file.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another place") from error
        if head is None:
            if self.net.source is None:
                raise InputError("the guarded net does not come from a file: write it, load it, and calibrate anew")
            model = {"name": self.net.source.name, "sha256": self.net.source.sha256}
            head = {"schema": 1, "model": model, "input_scale": self.net.input_scale, "seed": self.seed}
        if self.pool is not None:
            n = len(self.pool)
            block = Block(self.pool, np.zeros(n, np.int32), np.zeros((n, 0, 2), np.float32))
            write_official(folder / POOL_FILE, n, [block])
        write_json(folder / "guard.json", {**head, **self.record()})

    @staticmethod
    def load(path: Path | str, net: Net, repaired: Net | None = None) -> "Guard":
        """The guard in a guard.json that was made for this net.

        Args:
            repaired: the repaired net that the detector `goodnet` asks.
        Raises: InputError if it is not a guard, or one of another version, net or input scale, or its overlays were
            changed.
        """
        from jaxdefend.detectors.guard_files import read_guard

        return replace(read_guard(Path(path), net), repaired=repaired)


def calibrated(
    detectors: Sequence[Detector],
    net: Net,
    clean: Any,
    frr: float | Sequence[float] | None,
    fit: ThresholdFit,
    seed: int,
    pool: Any,
    repaired: Net | None,
    report: Report,
) -> Guard:
    """A guard of these detectors and their parts; the first one decides."""
    images = as_images(clean, net.image_shape)
    if fit not in THRESHOLDS:
        raise InputError(f"fit {fit!r}: expected {', '.join(THRESHOLDS)}")
    rates, seed = _rates(frr, len(images)), checked_seed(seed)
    if fit == "conformal":
        for rate in rates:
            rules.conformal_confidence(len(images), rate)
    held: dict[str, Detector] = {}
    for part in [part for detector in detectors for part in (*parts_of(detector), detector)]:
        name = name_of(part)
        if held.setdefault(name, part) != part:
            raise InputError(
                f"{name} with two settings, {held[name].record()} and {part.record()}; a guard holds each detector, "
                "and each part of both, once"
            )
    overlays = None
    if any(detector.uses_pool for detector in held.values()):
        from jaxdefend.detectors.strip import overlay_images

        overlays = overlay_images(images if pool is None else as_images(pool, net.image_shape))
    scene, known = Scene(seed, report, overlays, repaired, "calibration"), {}
    found = {name: measures(detector, net, images, scene, known) for name, detector in held.items()}
    fits = {name: fitted(measure) for of in found.values() for name, measure in of.items()}
    calibrated = {}
    for name, detector in held.items():
        module = module_of(detector)
        scores = module.score(found[name], fits)
        if fit == "normal":
            _check_reachable(detector, scores, fits, rates)
        levels = tuple(
            Level(
                rate,
                THRESHOLDS[fit](scores, rate),
                rules.conformal_confidence(len(scores), rate) if fit == "conformal" else {},
            )
            for rate in rates
        )
        entropy = getattr(module, "ENTROPY", None)
        calibrated[name] = Calibrated(
            detector, levels, spread(scores), spread(found[name][entropy].values) if entropy else None
        )
    return Guard(net, name_of(detectors[0]), calibrated, fits, seed, fit, overlays, repaired)


def _check_reachable(detector: Detector, scores: Scores, clean: Mapping[str, Fit], rates: Sequence[float]) -> None:
    """Raises: InputError if a normal fit puts the threshold where no image lies, such as at a negative entropy."""
    negated = getattr(module_of(detector), "NEGATED", False)
    highest = 0.0 if negated else highest_score(detector, clean)
    for rate in rates:
        if (threshold := rules.normal_threshold(scores, rate)) > highest:
            place = f"an entropy of {-threshold:.3g} bits" if negated else f"a score of {threshold:.3g}"
            raise InputError(
                f"{name_of(detector)}: the normal fit puts the threshold for {100 * rate:g} % at {place}, which no "
                "image has; use a conformal or quantile threshold"
            )


def _rates(frr: float | Sequence[float] | None, n: int) -> list[float]:
    """The rates asked for; by default those of 1 and 5 % that n clean images allow, or the finest that they do."""
    if frr is None:
        return [rate for rate in (0.01, 0.05) if rate * (n + 1) >= 1] or [1 / (n + 1)]
    rates = [float(rate) for rate in np.atleast_1d(np.asarray(frr, float))]
    if not rates:
        raise InputError("no false rejection rate given; expected one or more, such as 0.01")
    return rates


def number_of(value: object) -> float:
    """Raises: ValueError unless it is a finite number of a size that scores have."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:20]} for a number")
    if abs(value) > _LARGEST:
        raise ValueError(f"{value:g} for a score")
    return float(value)


def _number_asked(threshold: float) -> float:
    try:
        return number_of(threshold)
    except ValueError as error:
        raise InputError(f"threshold {printable(threshold, 40)}: expected a number that scores have") from error


def digest(pool: np.ndarray) -> str:
    return sha256(pool.tobytes()).hexdigest()


def scores_without_guard(net: Net, images: Any, *, seed: int = 0, progress: Report = silent) -> Scores:
    """Scores of the detector `masks`, the one that needs no clean images; higher means backdoored."""
    shown = as_images(images, net.image_shape)
    detector = Masks()
    return module_of(detector).score(measures(detector, net, shown, Scene(seed, progress, smallest=1), {}), {})
