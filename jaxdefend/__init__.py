"""Find, measure and remove backdoors in trained image classifiers.

    import jaxdefend as jd

    net = jd.load_net("bd_net.h5")
    clean = jd.open_images("clean.h5")
    sweep = jd.sweep(net, clean, poisoned={"sunglasses": jd.open_images("sunglasses.h5")})
    fixed = jd.repairs.Noise(drop=4)(net, clean)

Everything here is imported when it is first used, so that `import jaxdefend` does not wait for jax. The commands are
the modules beside this file: `python -m jaxdefend.NAME --help`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxdefend import attacks, audits, datasets, detectors, nets, repairs, reports
    from jaxdefend.datasets.files import Images, open_images
    from jaxdefend.detectors.answering import Guarded
    from jaxdefend.detectors.guards import Guard
    from jaxdefend.nets.keras_files import write_model
    from jaxdefend.nets.loading import load_net
    from jaxdefend.nets.net import Net
    from jaxdefend.repairs.measurement import measure
    from jaxdefend.repairs.sweeping import sweep
    from jaxdefend.reports.page import write_report

__version__ = "0.2.0"


class InputError(ValueError):
    """What a user handed in cannot be used. The message says what is wrong, where, and what to do, in one line."""


class TrainingDiverged(RuntimeError):
    """The loss of a training run is not a number any more."""


class ProcessEnded(RuntimeError):
    """Another process of a run over several processes has ended."""


class Interrupted(RuntimeError):
    """Raised by a progress callback to stop long work. What can be resumed has been saved when it comes through."""


class Note(UserWarning):
    """Something that had to be guessed, or that the user should know."""


_PLACES = {
    "Guard": "detectors.guards",
    "Guarded": "detectors.answering",
    "Images": "datasets.files",
    "Net": "nets.net",
    "load_net": "nets.loading",
    "measure": "repairs.measurement",
    "open_images": "datasets.files",
    "sweep": "repairs.sweeping",
    "write_model": "nets.keras_files",
    "write_report": "reports.page",
}
_ROOMS = ("attacks", "audits", "datasets", "detectors", "nets", "repairs", "reports")

__all__ = [
    "Guard",
    "Guarded",
    "Images",
    "InputError",
    "Interrupted",
    "Net",
    "Note",
    "ProcessEnded",
    "TrainingDiverged",
    "attacks",
    "audits",
    "datasets",
    "detectors",
    "load_net",
    "measure",
    "nets",
    "open_images",
    "repairs",
    "reports",
    "sweep",
    "write_model",
    "write_report",
]


class _Package(ModuleType):
    """The package itself: importing the command `jaxdefend.sweep` must not replace the function `jaxdefend.sweep`."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PLACES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _PLACES:
        found = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES, *_ROOMS])
