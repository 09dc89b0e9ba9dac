"""The more suspicious of entropy under masks and entropy under overlays."""

from collections.abc import Mapping

from jaxdefend.detectors import Both, Detector, Masks, Strip, masks, strip
from jaxdefend.detectors.base import Fit, Measures, Scores, combined

# What the score is, on figures.
LABEL = "standard deviations below clean"

# The measures whose fits to clean images the score is made with.
FITS = ("masks", "strip")

# The most suspicious measures that an image can have.
LEAST = masks.LEAST | strip.LEAST


def parts(settings: Both) -> tuple[Detector, ...]:
    """The detectors that measure for this one."""
    return Masks(settings.masks, settings.keep), Strip(settings.overlays, settings.blend)


def score(measures: Measures, clean: Mapping[str, Fit]) -> Scores:
    """Standard deviations below clean images, of the more suspicious measure."""
    return combined({name: measures[name] for name in FITS}, clean)
