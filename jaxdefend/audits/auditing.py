"""An audit from beginning to end: graph, candidates, scores, suspects and their triggers."""

from typing import Any

import numpy as np

from jaxdefend import InputError
from jaxdefend.audits.calibration import calibration_of
from jaxdefend.audits.candidates import candidates
from jaxdefend.audits.carriers import FEW, Carriers, carriers, images_for
from jaxdefend.audits.file import FileFacts
from jaxdefend.audits.graph import graph_findings
from jaxdefend.audits.inverted import inverted_trigger
from jaxdefend.audits.result import Audit, Suspect
from jaxdefend.datasets.images import as_images
from jaxdefend.nets.loading import scaled_by_assumption
from jaxdefend.nets.net import Net
from jaxdefend.results.progress import Report
from jaxdefend.results.settings import checked_seed, require
from jaxdefend.results.text import counted

_SHOWN = 3


def audited(net: Net, clean: Any, file: FileFacts | None, frr: float, seed: int, report: Report) -> Audit:
    """See `audits.audit`."""
    require("frr", frr, lambda value: 0.001 <= value <= 0.5, "0.001 to 0.5")
    seed = checked_seed(seed)
    name = net.name
    pixels, kind = images_for(net.image_shape, clean, seed)
    net = scaled_by_assumption(net, as_images(pixels))
    found = carriers(net, pixels, kind, seed)
    calibration = calibration_of(net.classes, found.kind)
    graph = graph_findings(net)
    if _answers(found) == 1 and net.classes > 2 and not (graph or (file and file.findings)):
        raise InputError(
            f"{name}: the net answers {found.labels[0]} to {_all(found)}, of which nothing can be told; expected "
            "images of several classes, on the net's own input scale"
        )
    ranked = candidates(net, found, seed, report)
    scores = [(each, calibration.score(each.statistics)) for each in ranked.candidates]
    scored = sorted(scores, key=lambda each: -each[1])
    threshold = calibration.threshold(frr)
    suspects = tuple(
        Suspect(each.label, calibration.p_value(score), score, each.statistics, *inverted_trigger(net, found, each))
        for each, score in scored
        if score >= threshold and net.classes > 2
    )
    return Audit(
        suspects=suspects,
        candidates=tuple(scored),
        stickers=ranked.stickers,
        graph=graph,
        frr=frr,
        threshold=threshold,
        calibration=calibration.record(),
        carriers={"kind": found.kind, "n": found.distinct, "answers": _answers(found)},
        samples=found.pixels[-_SHOWN:],
        notes=tuple(_notes(net, found)),
        file=file,
        name=name,
        input_scale=net.input_scale,
    )


def _all(carriers: Carriers) -> str:
    """What the marks were put on, in words."""
    own = {"drawn shapes": "all drawn images", "synthetic faces": "all synthetic faces"}
    n = carriers.distinct
    return own.get(carriers.kind, "the only clean image" if n == 1 else f"all {n} clean images that were looked at")


def _answers(carriers: Carriers) -> int:
    return len(np.unique(carriers.labels))


def _notes(net: Net, carriers: Carriers) -> list[str]:
    notes = []
    answers = _answers(carriers)
    if carriers.distinct < FEW:
        notes.append(
            f"{counted(carriers.distinct, 'clean image')}: fewer than {FEW} say little about images that a trigger "
            "was not fitted to; the p-values come from 64"
        )
    if carriers.kind == "drawn shapes":
        notes.append("without clean images of the net's own kind, shapes were drawn: false alarms are more likely")
    if answers == 1:
        notes.append(f"the net answers {carriers.labels[0]} to {_all(carriers)}: no class can be judged by its scores")
    elif answers < min(net.classes, len(carriers.labels)) / 8:
        notes.append(f"the net gives only {answers} answers to {carriers.distinct} images: is its input scale right?")
    if net.classes == 2:
        notes.append("two classes: what one does not get the other does; only the graph and the file are judged")
    return notes
