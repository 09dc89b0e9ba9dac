"""The table of contents: settings of the detectors, and what can be reached from what chooses."""

import dataclasses
import inspect
import subprocess
import sys

import numpy as np
import pytest
from small import small_net, small_pixels

from jaxdefend import detectors
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.detectors import DETECTORS, Both, Detector, Persistence, base, guards, persistence


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_is_settings_with_a_manual(name):
    kind = DETECTORS[name]
    assert issubclass(kind, Detector) and dataclasses.is_dataclass(kind)
    assert kind() == kind() and hash(kind()) == hash(kind()) and (kind.__doc__ or "").strip()
    for field in dataclasses.fields(kind):
        assert field.metadata["help"] and field.metadata["expected"]
    assert kind.uses_pool == ("overlays" in kind().record())


def test_settings_are_read_without_jax():
    code = (
        "import sys; from jaxdefend import detectors; [kind() for kind in detectors.DETECTORS.values()]; "
        "sys.exit(int('jax' in sys.modules or 'numpy' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LEAKS = ("test", "poison", "options", "namespace", "asr", "attack", "target", "kwargs", "trigger", "label")


@pytest.mark.parametrize(
    "chooses",
    [
        *(kind.calibrate for kind in DETECTORS.values()),
        detectors.calibrate,
        detectors.default_detector,
        guards.calibrated,
        base.measures,
        persistence.changed_share,
    ],
)
def test_nothing_that_chooses_could_see_test_or_poisoned_images(chooses):
    for parameter in inspect.signature(chooses).parameters.values():
        assert not any(leak in parameter.name for leak in LEAKS), parameter
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    for name in base.Scene._fields:
        assert not any(leak in name for leak in LEAKS)


@pytest.mark.parametrize(("share", "chosen"), [(0.74, Both()), (0.75, Persistence()), (1.0, Persistence())])
def test_the_default_detector_is_chosen_by_how_often_masks_change_clean_labels(monkeypatch, share, chosen):
    seen = []

    def changed_share(settings, net, images, scene):
        seen.append((settings, len(images), scene.seed))
        return share

    monkeypatch.setattr(persistence, "changed_share", changed_share)
    assert detectors.default_detector(small_net(), small_pixels(600), seed=4) == chosen
    assert seen == [(Persistence(), 300, 4)]


def test_the_share_that_masks_change():
    detector = Persistence(masks=6)
    images = small_pixels(20)
    scene = base.Scene(0, lambda step: None)
    share = persistence.changed_share(detector, small_net(), ArrayImages(images), scene)
    found = persistence.measure(detector, small_net(), ArrayImages(images), scene)
    assert share == pytest.approx(np.mean(found["few_changed"].values))
