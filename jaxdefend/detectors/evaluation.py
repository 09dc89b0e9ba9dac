"""How well the detectors of a guard separate clean and poisoned images, and what a guarded net does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet, as_images, labelled, poisoned_sets
from jaxdefend.detectors import Blend, blend_of
from jaxdefend.detectors.base import Measures, Scores, measures, module_of
from jaxdefend.detectors.guards import Calibrated, Guard, Spread, spread
from jaxdefend.nets.diagnosis import doubts_about_clean, doubts_about_poisoned
from jaxdefend.nets.inference import labels_and_confidences, predicted
from jaxdefend.results import detection as rules
from jaxdefend.results.detection import Separation
from jaxdefend.results.progress import Report
from jaxdefend.results.rates import Rate, clean_rate, poisoned_rate
from jaxdefend.results.text import table, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = "clean"
# Of the images that STRIP's figure shows.
_OVERLAYS_SHOWN = 6


@dataclass(frozen=True)
class OnPoisoned:
    """What a detector makes of one poisoned set.

    Attributes:
        hits: images on which the attack succeeds.
        all_images, where_hit: how well it separates all of them, and those on which the attack succeeds, from clean
            ones.
        guarded: attack success where rejected images do not count.
    """

    hits: Rate
    all_images: Separation
    where_hit: Separation
    guarded: Rate

    def record(self) -> dict[str, Any]:
        block = {"n": self.hits.n, "fires": self.hits.count}
        # The names are those of earlier versions.
        return block | self.all_images.record() | self.where_hit.record("_where_it_fires")


@dataclass(frozen=True)
class OfDetector:
    """What one detector does.

    Attributes:
        frr: clean images rejected at its threshold.
        thresholds: those that leave each FRR on the clean images measured.
        guarded: clean accuracy where rejected images do not count.
    """

    calibrated: Calibrated
    frr: Rate
    score: Spread
    entropy: Spread | None
    thresholds: Mapping[float, float]
    guarded: Rate
    poisoned: Mapping[str, OnPoisoned]

    def record(self) -> dict[str, Any]:
        """Its block in detect.json."""
        calibrated = self.calibrated.record()
        block = {
            **{key: calibrated[key] for key in ("frr_asked", "threshold", "levels")},
            "frr_measured": self.frr.share,
            "frr_interval": self.frr.interval,
            "calibration_score": calibrated["clean_score"],
            "clean_score": {"mean": self.score.mean, "std": self.score.std},
            "thresholds_at_frr": {f"{frr:g}": threshold for frr, threshold in self.thresholds.items()},
            "poisoned": {name: found.record() for name, found in self.poisoned.items()},
            "guarded": {
                "clean": clean_rate(self.guarded),
                "poisoned": {name: poisoned_rate(found.guarded) for name, found in self.poisoned.items()},
            },
            "settings": calibrated["settings"],
        }
        return block if self.entropy is None else block | {"clean_entropy": vars(self.entropy)}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What the detectors of a guard do to clean and poisoned images.

    Attributes:
        by_detector: by the detector's name.
        sets: the images by set, "clean" first.
        labels: what the net says of them; `correct` says where that is the label asked for.
        scores: by set, then by detector.
        notes: what may be wrong with labels or pixels.
    """

    guard: Guard
    by_detector: Mapping[str, OfDetector]
    sets: Mapping[str, ImageSet]
    labels: Mapping[str, Int[np.ndarray, " n"]]
    correct: Mapping[str, Bool[np.ndarray, " n"]]
    scores: Mapping[str, Mapping[str, Scores]]
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """What detect.json holds of it."""
        detectors = {name: found.record() for name, found in self.by_detector.items()}
        return {"default": self.guard.default, "detectors": detectors}

    def columns(self) -> dict[str, Sequence | np.ndarray]:
        """The columns of detect.csv, one row per image."""
        sizes = {_set_title(name): len(images) for name, images in self.sets.items()}
        columns: dict[str, Sequence | np.ndarray] = {
            "set": [name for name, n in sizes.items() for _ in range(n)],
            "index": np.concatenate([np.arange(n) for n in sizes.values()]),
            "label": np.concatenate([np.asarray(images.labels) for images in self.sets.values()]),
            "predicted": np.concatenate(list(self.labels.values())),
        }
        for name, found in self.by_detector.items():
            scores = np.concatenate([by_detector[name] for by_detector in self.scores.values()])
            columns[f"{name}_score"] = scores.astype(float)
            columns[f"{name}_rejected"] = scores > found.calibrated.threshold
        return columns

    def table(self) -> str:
        """For people: a row for every detector and poisoned set; without poisoned sets, for every detector."""
        levels = (level for found in self.by_detector.values() for level in found.calibrated.levels)
        asked = sorted({level.frr for level in levels if level.frr})
        clean = ["detector", "rejects", "clean rejected", "guarded accuracy"]
        if len(self.sets) == 1:
            return table(clean, [self._clean_row(name) for name in self.by_detector])
        rates = [f"{'FAR at FRR ' if number == 0 else 'at '}{100 * frr:g} %" for number, frr in enumerate(asked)]
        header = ["detector", "poisoned set", "attack succeeds", "AUROC", *rates, "guarded accuracy", "guarded ASR"]
        rows = [self._row(name, of, asked) for name, found in self.by_detector.items() for of in found.poisoned]
        return table(header, rows)

    def _clean_row(self, name: str) -> list[str]:
        found = self.by_detector[name]
        shares = [f"{100 * rate.share:.2f} %" for rate in (found.frr, found.guarded)]
        return [name, self.guard.rule_text(name).removeprefix("rejected if the "), *shares]

    def _row(self, name: str, of: str, asked: Sequence[float]) -> list[str]:
        found = self.by_detector[name].poisoned[of]
        area, far = found.where_hit.auroc, found.where_hit.far
        return [
            name,
            of,
            f"{found.hits.count} of {found.hits.n}",
            "–" if area is None else f"{area:.4f}",
            *("–" if far is None else f"{100 * far[frr].share:.1f} %" for frr in asked),
            f"{100 * self.by_detector[name].guarded.share:.2f} %",
            f"{100 * found.guarded.share:.2f} %",
        ]

    def __repr__(self) -> str:
        return self.table()

    def _sizes(self) -> dict[str, int]:
        """The images that figures show: the clean ones, and those on which the attack succeeds."""
        return {
            name: len(images) if name == CLEAN else int(self.correct[name].sum()) for name, images in self.sets.items()
        }

    def _where_hit(self) -> dict[str, dict[str, Scores]]:
        """The scores of the clean images, and of the poisoned ones on which the attack succeeds."""
        return {
            _set_title(of): {
                name: values if of == CLEAN else values[self.correct[of]] for name, values in by_detector.items()
            }
            for of, by_detector in self.scores.items()
        }

    def figure(self, title: str = "") -> "Figure":
        """Histograms of the scores of each detector, clean and poisoned."""
        from jaxdefend.results.plots import scores_figure

        modules = {name: module_of(found.calibrated.detector) for name, found in self.by_detector.items()}
        drawn = {name: (module.LABEL, getattr(module, "NEGATED", False)) for name, module in modules.items()}
        thresholds = {name: found.calibrated.threshold for name, found in self.by_detector.items()}
        title = title or titled(self.guard.net.name, self._sizes(), 40 * len(thresholds))
        return scores_figure(title, self._where_hit(), thresholds, drawn)

    def errors_figure(self, title: str = "") -> "Figure":
        """FRR against FAR of each detector on each poisoned set."""
        from jaxdefend.results.plots import errors_figure

        return errors_figure(title or titled(self.guard.net.name, self._sizes()), self._where_hit())

    def superimposed_figure(self) -> "Figure":
        """What STRIP shows the net: an image of each set under the same overlays, and what the net calls each.

        Raises: InputError if no detector of the guard lays images over others.
        """
        from jaxdefend.detectors.strip import superimpositions
        from jaxdefend.results.plots import superimposed_figure

        pool = self.guard.pool
        if pool is None:
            raise InputError("the guard has no overlays: none of its detectors is STRIP")
        settings = [vars(found.calibrated.detector) for found in self.by_detector.values()]
        blend = next((blend_of(of["blend"]) for of in settings if "blend" in of), Blend())
        overlays = pool[:: max(1, len(pool) // _OVERLAYS_SHOWN)][:_OVERLAYS_SHOWN]
        rows = {}
        for name, images in self.sets.items():
            image = np.asarray(images[:1])[0]
            shown = np.concatenate([image[None].astype(np.float32), superimpositions(image, overlays, blend)])
            rows[_set_title(name)] = (shown, np.asarray(labels_and_confidences(self.guard.net, shown)[0]))
        return superimposed_figure(overlays, rows)


def _set_title(name: str) -> str:
    return name if name == CLEAN else f"poisoned {name}"


def evaluated(guard: Guard, clean: Any, poisoned: Mapping[str, Any] | None, report: Report) -> Evaluation:
    """See `detectors.evaluate`."""
    net = guard.net
    sets = poisoned_sets(poisoned, net.image_shape, net.classes)
    if CLEAN in sets:
        raise InputError(f"a poisoned set is called {CLEAN!r}; give it another name")
    sets = {CLEAN: labelled(as_images(clean, net.image_shape), "clean images", net.classes), **sets}

    labels = {name: predicted(net, images, _set_title(name), report)[0] for name, images in sets.items()}
    correct = {name: labels[name] == np.asarray(images.labels) for name, images in sets.items()}
    measured = {name: _measured(guard, images, _set_title(name), report) for name, images in sets.items()}
    scores = {of: {name: guard.scores(name, found[name]) for name in guard.detectors} for of, found in measured.items()}
    by_detector = {
        name: _of_detector(guard, name, {of: found[name] for of, found in scores.items()}, correct, measured[CLEAN])
        for name in guard.detectors
    }
    doubts = doubts_about_clean(net, sets[CLEAN])
    for name in list(sets)[1:]:
        doubts += doubts_about_poisoned(net, sets[name], name)
    return Evaluation(guard, by_detector, sets, labels, correct, scores, doubts)


def _measured(guard: Guard, images: ImageSet, title: str, report: Report) -> dict[str, Measures]:
    known: dict = {}
    scene = guard.scene(report, title)
    return {name: measures(held.detector, guard.net, images, scene, known) for name, held in guard.detectors.items()}


def _of_detector(
    guard: Guard,
    name: str,
    scores: Mapping[str, Scores],
    correct: Mapping[str, Bool[np.ndarray, " n"]],
    measured: Mapping[str, Measures],
) -> OfDetector:
    held = guard.detectors[name]
    clean: Float[np.ndarray, " c"] = scores[CLEAN]
    passes = {of: values <= held.threshold for of, values in scores.items()}
    asked = {level.frr for each in guard.detectors.values() for level in each.levels if level.frr}
    frrs = sorted({*rules.FRRS, *asked})

    def on(of: str) -> OnPoisoned:
        found, hit = scores[of], correct[of]
        return OnPoisoned(
            Rate(int(hit.sum()), len(found)),
            rules.separation(clean, found, frrs),
            rules.separation(clean, found[hit], frrs),
            Rate(int((hit & passes[of]).sum()), len(found)),
        )

    entropy = getattr(module_of(held.detector), "ENTROPY", None)
    return OfDetector(
        held,
        Rate(int((~passes[CLEAN]).sum()), len(clean)),
        spread(clean),
        spread(measured[name][entropy].values) if entropy else None,
        {frr: rules.quantile_threshold(clean, frr) for frr in frrs},
        Rate(int((correct[CLEAN] & passes[CLEAN]).sum()), len(clean)),
        {of: on(of) for of in scores if of != CLEAN},
    )
