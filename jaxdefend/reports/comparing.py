"""The table of one net: what every repair and every detector does, each computed once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from jaxdefend import InputError
from jaxdefend.datasets.images import ArrayImages, ImageSet, as_images, labelled, poisoned_sets
from jaxdefend.detectors import Detector, calibrate, evaluate
from jaxdefend.detectors.base import module_of, name_of, parts_of
from jaxdefend.nets.goodnet import goodnet_labels
from jaxdefend.nets.inference import predicted
from jaxdefend.nets.net import Net
from jaxdefend.repairs import Method
from jaxdefend.reports.cells import Cells, Detected, key_of, of_images, of_net
from jaxdefend.reports.comparison import CLEAN, NONE, Comparison, NetScores, Row
from jaxdefend.results.detection import separation
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.rates import Rate, defense_effectiveness

# By set, "clean" first: what is known of each image.
_BySet = Mapping[str, np.ndarray]


def compare(
    net: Net,
    clean: Any,
    poisoned: Mapping[str, Any] | None = None,
    *,
    test: Any = None,
    repairs: Mapping[str, Method] | None = None,
    repaired: Mapping[str, Net] | None = None,
    detectors: Mapping[str, Detector] | None = None,
    name: str = "",
    frr: float | Sequence[float] | None = None,
    fit: Any = "conformal",
    limit: int | None = None,
    seed: int = 0,
    folder: Path | None = None,
    progress: Report = silent,
) -> Comparison:
    """What repairs and detectors do for one net; `together` joins the tables of several.

    Args:
        clean: labelled clean images, from which repairs and thresholds are made; `test` are those to report, by
            default the same.
        poisoned: sets of images with a trigger by name, labelled with the attacker's target.
        repairs: what the tables call them, and their settings. `repaired`: nets that were repaired elsewhere.
        detectors: what the tables call them, and their settings.
        name: what the tables call the net; by default its file's name.
        frr, fit: see `Detector.calibrate`.
        limit: images of each set that detectors see, evenly spread; by default all.
        folder: where cells are kept; what is there already is not computed again.
    Raises: InputError if anything handed in cannot be used.
    """
    for of in (detectors or {}).values():
        if of.uses_repaired:
            raise InputError(
                f"the detector {type(of).__name__.lower()} asks a repaired net; its GoodNet is in the table"
            )
    scene = _scene(net, clean, test, poisoned, name, seed, folder, progress)
    defenses = _defenses(scene, repairs or {}, repaired or {})
    said = {key: _answers(scene, key, defense.net) for key, defense in defenses.items()}
    goodnets = {
        key: {of: goodnet_labels(said[NONE][of], said[key][of][None], net.classes, defense.rule) for of in scene.sets}
        for key, defense in defenses.items()
        if key != NONE
    }
    rows = _repair_rows(scene, defenses, said, goodnets)
    if not detectors:
        return Comparison(tuple(rows))
    found = _detected(scene, detectors, frr, fit, limit)
    seen = {key: _spread(len(images), limit) for key, images in scene.sets.items()}
    answers = {key: {of: labels[of][seen[of]] for of in seen} for key, labels in {NONE: said[NONE], **goodnets}.items()}
    labels = {of: scene.labels[of][seen[of]] for of in seen}
    for key, detector in detectors.items():
        rows += _detector_rows(scene, key, detector, found[key], answers, labels)
    return Comparison(tuple(rows), {scene.title: _net_scores(detectors, found, _hits(answers[NONE], labels))})


class _Scene(NamedTuple):
    """The net and the images of a table, and where its cells are kept.

    Attributes:
        valid: clean images that repairs and thresholds are made from; `sets` are those that are reported.
        digests: of what the sets hold; `valid_digest` likewise.
    """

    title: str
    net: Net
    valid: ImageSet
    sets: Mapping[str, ImageSet]
    labels: _BySet
    digests: Mapping[str, str]
    valid_digest: str
    cells: Cells
    seed: int
    report: Report


class _Defense(NamedTuple):
    """A repaired net, how its GoodNet answers, and the seconds that the repair took."""

    net: Net
    rule: Any
    seconds: float


def _scene(
    net: Net, clean: Any, test: Any, poisoned: Any, name: str, seed: int, folder: Path | None, report: Report
) -> _Scene:
    shape, classes = net.image_shape, net.classes
    valid = labelled(as_images(clean, shape), "clean images", classes)
    tested = valid if test is None else labelled(as_images(test, shape), "test images", classes)
    sets = poisoned_sets(poisoned, shape, classes)
    if CLEAN in sets:
        raise InputError(f"a poisoned set is called {CLEAN!r}; give it another name")
    sets = {CLEAN: tested, **sets}
    labels = {key: np.asarray(images.labels) for key, images in sets.items()}
    digests = {key: of_images(images) for key, images in sets.items()}
    valid_digest = digests[CLEAN] if valid is tested else of_images(valid)
    return _Scene(name or net.name, net, valid, sets, labels, digests, valid_digest, Cells(folder), seed, report)


def _defenses(scene: _Scene, repairs: Mapping[str, Method], repaired: Mapping[str, Net]) -> dict[str, _Defense]:
    """The net itself, then every repair of it."""
    net, found = scene.net, {NONE: _Defense(scene.net, "goodnet", 0.0)}
    for key, settings in repairs.items():
        cell = ("repair", of_net(net), scene.valid_digest, key_of(settings), scene.seed)

        def repair(saved: Path | None, settings: Method = settings) -> Any:
            return settings(net, scene.valid, seed=scene.seed, progress=scene.report, saved=saved)

        found[key] = _Defense(*scene.cells.repair(cell, net, repair))
    for key, fixed in repaired.items():
        if (fixed.image_shape, fixed.classes) != (net.image_shape, net.classes):
            raise InputError(f"{key}: not a repaired form of {scene.title}: its images or classes differ")
        found[key] = _Defense(fixed, (fixed.source and fixed.source.rule) or "goodnet", 0.0)
    return found


def _answers(scene: _Scene, key: str, net: Net) -> dict[str, Int[np.ndarray, " n"]]:
    """What the net says to every set."""
    what, own = scene.title if key == NONE else f"{scene.title} {key}", of_net(net)
    return {
        name: scene.cells.array(
            ("answers", own, scene.digests[name]),
            lambda name=name, images=images: predicted(net, images, f"{what}, {name}", scene.report)[0],
        )
        for name, images in scene.sets.items()
    }


def _hits(answers: _BySet, labels: _BySet) -> dict[str, np.ndarray]:
    return {name: answers[name] == labels[name] for name in labels}


def _rates(hits: _BySet) -> tuple[Rate, dict[str, Rate]]:
    """Clean accuracy, and attack success by set."""
    counted = {name: Rate(int(hit.sum()), len(hit)) for name, hit in hits.items()}
    return counted.pop(CLEAN), counted


def _repair_rows(
    scene: _Scene,
    defenses: Mapping[str, _Defense],
    said: Mapping[str, _BySet],
    goodnets: Mapping[str, _BySet],
) -> list[Row]:
    """The net, and every repaired net with its GoodNet."""
    before = _rates(_hits(said[NONE], scene.labels))
    rows = [Row(scene.title, NONE, "net", NONE, *before, {})]
    for key, goodnet in goodnets.items():
        for form, answers in (("net", said[key]), ("goodnet", goodnet)):
            after = _rates(_hits(answers, scene.labels))
            der, seconds = defense_effectiveness(before, after), defenses[key].seconds
            flagged = answers[CLEAN] == scene.net.classes
            frr = Rate(int(flagged.sum()), len(flagged)) if form == "goodnet" else None
            rows.append(Row(scene.title, key, form, NONE, *after, der, frr=frr, seconds=seconds))
    return rows


def _detected(
    scene: _Scene, detectors: Mapping[str, Detector], frr: Any, fit: Any, limit: int | None
) -> dict[str, Detected]:
    """Threshold and scores of every detector."""
    digests = scene.valid_digest, sorted(scene.digests.items())
    base = ("detector", of_net(scene.net), *digests, scene.seed, frr, fit, limit)

    def compute(missing: Sequence[str]) -> dict[str, Detected]:
        chosen = {key: detectors[key] for key in missing}
        return _scored(scene.net, chosen, scene.valid, scene.sets, frr, fit, limit, scene.seed, scene.report)

    return scene.cells.detectors({key: (*base, key_of(of)) for key, of in detectors.items()}, compute)


def _detector_rows(
    scene: _Scene,
    key: str,
    detector: Detector,
    found: Detected,
    answers: Mapping[str, _BySet],
    labels: _BySet,
) -> list[Row]:
    """The net behind a detector, and every GoodNet behind it.

    Args:
        answers: of the net and of the GoodNets, to the images that detectors see; `labels` of these.
    """
    hits = _hits(answers[NONE], labels)
    before = _rates(hits)
    passes = {of: scores <= found.threshold for of, scores in found.scores.items()}
    attacked = {of: found.scores[of][hit] for of, hit in hits.items() if of != CLEAN}
    far = {
        of: Rate(int((scores <= found.threshold).sum()), len(scores)) if len(scores) else None
        for of, scores in attacked.items()
    }
    auroc = {of: separation(found.scores[CLEAN], scores) for of, scores in attacked.items()}
    rows = []
    for repair, said in answers.items():
        is_net = repair == NONE
        after = _rates({of: hit & passes[of] for of, hit in _hits(said, labels).items()})
        rejected = ~passes[CLEAN] | (said[CLEAN] == scene.net.classes)
        rows.append(
            Row(
                scene.title,
                repair,
                "net" if is_net else "goodnet",
                key,
                *after,
                defense_effectiveness(before, after),
                frr=Rate(int(rejected.sum()), len(rejected)),
                threshold=found.threshold,
                in_bits=_is_entropy(detector),
                far=far if is_net else {},
                auroc=auroc if is_net else {},
                seconds=found.seconds,
            )
        )
    return rows


def _is_entropy(detector: Detector) -> bool:
    return getattr(module_of(detector), "NEGATED", False)


def _net_scores(detectors: Mapping[str, Detector], found: Mapping[str, Detected], hits: _BySet) -> NetScores:
    """For the figures: the scores of clean images, and of the poisoned ones on which the attack succeeds."""
    scores = {
        of: {key: found[key].scores[of] if of == CLEAN else found[key].scores[of][hit] for key in detectors}
        for of, hit in hits.items()
    }
    drawn = {key: (module_of(of).LABEL, _is_entropy(of)) for key, of in detectors.items()}
    return NetScores(scores, {key: found[key].threshold for key in detectors}, drawn)


def _scored(
    net: Net,
    detectors: Mapping[str, Detector],
    valid: ImageSet,
    sets: Mapping[str, ImageSet],
    frr: Any,
    fit: Any,
    limit: int | None,
    seed: int,
    report: Report,
) -> dict[str, Detected]:
    """Detectors that share measures are computed together; `seconds` are those of all of them."""
    found: dict[str, Detected] = {}
    thin = {key: thinned(images, limit) for key, images in sets.items()}
    for members in _groups(detectors):
        began = perf_counter()
        guard = calibrate(
            list(members.values()), net, thinned(valid, limit), frr=frr, fit=fit, seed=seed, progress=report
        )
        attacked = {key: images for key, images in thin.items() if key != CLEAN}
        scores = evaluate(guard, thin[CLEAN], attacked, progress=report).scores
        seconds = perf_counter() - began
        for title, of in members.items():
            name = name_of(of)
            own = {key: np.asarray(by_detector[name]) for key, by_detector in scores.items()}
            found[title] = Detected(guard.detectors[name].threshold, own, seconds)
    return found


def _groups(detectors: Mapping[str, Detector]) -> list[dict[str, Detector]]:
    """Those that fit into one guard: it holds one detector of each name, and the parts of the others."""
    groups: list[tuple[dict[str, Detector], dict[str, Detector]]] = []
    for title, of in detectors.items():
        own = {name_of(part): part for part in (*parts_of(of), of)}
        for held, members in groups:
            is_new = name_of(of) not in map(name_of, members.values())
            if is_new and all(held.get(name, part) == part for name, part in own.items()):
                held |= own
                members[title] = of
                break
        else:
            groups.append((own, {title: of}))
    return [members for _, members in groups]


def thinned(images: ImageSet, limit: int | None) -> ImageSet:
    """At most so many of the images, evenly spread, in memory."""
    if limit is None or len(images) <= limit:
        return images
    rows = _spread(len(images), limit)
    step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
    labels = None if images.labels is None else np.asarray(images.labels)[::step]
    return ArrayImages(images[::step], labels, list(images.names[::step]))


def _spread(n: int, limit: int | None) -> Int[np.ndarray, " k"]:
    return np.arange(0, n, 1 if limit is None else max(1, -(-n // limit)))
