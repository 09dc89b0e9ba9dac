"""The inverted trigger of a suspect: its refined mark as a mask and a pattern, and what that does to images it was not
fitted to.

Source: the form is that of Wang et al. 2019 (Neural Cleanse), equation 2.
"""

import jax.numpy as jnp
import numpy as np

from jaxdefend.audits.candidates import Candidate
from jaxdefend.audits.carriers import Carriers
from jaxdefend.audits.marks import (
    OVERLAYS,
    STICKERS,
    Family,
    Mark,
    Shape,
    overlay_blend_and_addition,
    sticker_mask_and_pattern,
)
from jaxdefend.audits.refined import FITTED
from jaxdefend.datasets.images import as_images
from jaxdefend.datasets.inverted import InvertedTrigger
from jaxdefend.nets.batches import padded
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.net import Net
from jaxdefend.results.rates import Rate

# A wave is added, not blended; blended in at this opacity it has the same amplitude.
_WAVE = 0.35
# A sticker that does as much as this is what is shown: an overlay is harder to recognise.
_ENOUGH = 0.8


def inverted_trigger(net: Net, carriers: Carriers, candidate: Candidate) -> tuple[InvertedTrigger, Rate]:
    """The trigger, and the share of carriers it was not fitted to that get the class; those of that label do not
    count."""
    found = []
    for family, mark in candidate.marks.items():
        trigger = _trigger(family, jnp.asarray(mark), net.image_shape, candidate.label)
        found.append((trigger, success(net, carriers, trigger)))
        if found[-1][1].share >= _ENOUGH:
            break
    return max(found, key=lambda each: each[1].share)


def success(net: Net, carriers: Carriers, trigger: InvertedTrigger) -> Rate:
    """Of the carriers that no mark was fitted to and that have another label, how many get the target."""
    pixels, labels = carriers.pixels[FITTED:], carriers.labels[FITTED:]
    given, _ = predictions(net, padded(as_images(trigger(pixels))))
    others = labels != trigger.target
    return Rate(int((np.asarray(given) == trigger.target)[others].sum()), max(1, int(others.sum())))


def _trigger(family: Family, mark: Mark, shape: Shape, label: int) -> InvertedTrigger:
    if family == STICKERS:
        mask, pattern = sticker_mask_and_pattern(mark, shape)
        cover = np.asarray(mask)[..., 0]
    else:
        assert family == OVERLAYS
        blend, addition = map(np.asarray, overlay_blend_and_addition(mark, shape))
        cover = np.full(shape[:2], blend or _WAVE, np.float32)
        pattern = addition / blend if blend else 0.5 + addition / _WAVE
    return InvertedTrigger(np.clip(cover, 0, 1), np.clip(255 * np.asarray(pattern), 0, 255), label)
