"""All results of a small net once; the net is called what a page must not take for markup."""

from types import SimpleNamespace

import numpy as np
import pytest
from small import GRAPH, small_images, small_net, small_pixels

from jaxdefend import detectors, measure, reports, sweep
from jaxdefend.detectors.answering import Guarded
from jaxdefend.nets.net import Net, Source
from jaxdefend.repairs import FinePrune

HOSTILE = "<script>alert(1)</script>\"'&.h5"


def named_net() -> Net:
    return Net(GRAPH, small_net().weights, "unit", Source(HOSTILE, "ab" * 32))


@pytest.fixture(scope="session")
def made():
    net = named_net()
    valid, test = small_images(40, 1), small_images(32, 2)
    glasses = small_pixels(30, 3), np.asarray(small_net()(small_pixels(30, 3)).argmax(axis=1), np.int32)
    poisoned = {"<b>glasses</b>": glasses}
    swept = sweep(net, valid, test=test, poisoned=poisoned, drops=(2, 30))
    fixed = FinePrune(epochs=2, batch=8, channels=2)(net, valid)
    measured = measure({"badnet": net, "repaired": fixed.net}, test, poisoned)
    guarded = Guarded(net, fixed.net)
    answers = {"clean": guarded(test[0]), "<b>glasses</b>": guarded(glasses[0])}
    held = [detectors.Persistence(masks=6), detectors.Strip(overlays=4)]
    guard = detectors.calibrate(held, net, valid, frr=0.1)
    evaluated = detectors.evaluate(guard, test, poisoned)
    results = [
        reports.summarise(net),
        swept,
        reports.walk(swept, test, poisoned, n=4),
        fixed,
        measured,
        guard,
        evaluated,
        reports.sample(net, test, poisoned, n=3),
        reports.activate(net, test, poisoned),
        reports.under_overlays(net, test, poisoned, settings=detectors.Strip(overlays=3)),
        reports.under_masks(net, test, poisoned, settings=detectors.Persistence(masks=6)),
        reports.collect(net, test, answers, poisoned, evaluation=evaluated, n=5),
        reports.confuse(
            net.name,
            {"clean": answers["clean"].badnet, "<b>glasses</b>": answers["<b>glasses</b>"].badnet},
            {"clean": test[1], "<b>glasses</b>": glasses[1]},
        ),
    ]
    names = ("summary", "sweep", "walk", "repair", "measurement", "guard", "evaluation", "samples", "activations")
    names += ("overlays", "masks", "gallery", "confusions")
    by_name = dict(zip(names, results, strict=True))
    return SimpleNamespace(
        net=net, valid=valid, test=test, poisoned=poisoned, answers=answers, results=results, **by_name
    )
