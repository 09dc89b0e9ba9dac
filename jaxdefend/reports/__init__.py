"""Reports: figures and tables of typed results, and the one page to hand on. The table of contents of this room.

    reports.activate(net, clean, poisoned).figure()
    reports.compare(net, clean, poisoned, repairs={"noise": Noise()}, detectors={"strip": Strip()}).table()
    reports.write_report("report.html", sweep, fixed, evaluation)

Everything is imported when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxdefend.reports.activations import Activations, activate
    from jaxdefend.reports.along import Walk, walk
    from jaxdefend.reports.bars import drops_figure, rates_at_drops
    from jaxdefend.reports.comparing import compare
    from jaxdefend.reports.comparison import Comparison, together
    from jaxdefend.reports.confusions import Confusions, confuse
    from jaxdefend.reports.demonstrations import Demonstration, under_masks, under_overlays
    from jaxdefend.reports.facts import Origin
    from jaxdefend.reports.gallery import Gallery, collect
    from jaxdefend.reports.page import write_report
    from jaxdefend.reports.samples import Samples, sample
    from jaxdefend.reports.saved import Saved, read_saved
    from jaxdefend.reports.summary import Summary, summarise

_PLACES = {
    "Activations": "activations",
    "Comparison": "comparison",
    "Confusions": "confusions",
    "Demonstration": "demonstrations",
    "Gallery": "gallery",
    "Origin": "facts",
    "Samples": "samples",
    "Saved": "saved",
    "Summary": "summary",
    "Walk": "along",
    "activate": "activations",
    "collect": "gallery",
    "compare": "comparing",
    "confuse": "confusions",
    "drops_figure": "bars",
    "rates_at_drops": "bars",
    "read_saved": "saved",
    "sample": "samples",
    "summarise": "summary",
    "together": "comparison",
    "under_masks": "demonstrations",
    "under_overlays": "demonstrations",
    "walk": "along",
    "write_report": "page",
}

__all__ = [
    "Activations",
    "Comparison",
    "Confusions",
    "Demonstration",
    "Gallery",
    "Origin",
    "Samples",
    "Saved",
    "Summary",
    "Walk",
    "activate",
    "collect",
    "compare",
    "confuse",
    "drops_figure",
    "rates_at_drops",
    "read_saved",
    "sample",
    "summarise",
    "together",
    "under_masks",
    "under_overlays",
    "walk",
    "write_report",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
