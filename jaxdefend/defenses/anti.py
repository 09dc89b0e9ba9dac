"""The anti-repaired net: it has lost the faces and kept the backdoor, so what it still agrees on is backdoored."""

import numpy as np
from jaxtyping import Float, Int

from jaxdefend.defenses.pruning import Curve

LAYER = "conv_2"

# The share of clean images that may still be recognised beyond chance: about so many the guard turns away.
LEFT = 0.05


def descending(scores: Float[np.ndarray, " c"]) -> Int[np.ndarray, " c"]:
    """Channels by activation, the highest first, ties by index: the reverse of what Liu et al. 2018 prune."""
    return np.argsort(-scores, kind="stable")


def channels_to_lose(clean: Curve, chance: float) -> int | None:
    """How many channels go: the first point of the clean images' curve with at most `LEFT` recognised, if any.

    Args:
        chance: the share of the commonest label, which a net that says nothing else recognises.
    """
    lost = clean.right <= (LEFT + chance) * clean.n
    return int(np.argmax(lost)) if lost.any() else None
