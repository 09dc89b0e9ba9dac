"""The anti-repaired net: it has lost the faces and kept the backdoor, so what it still agrees on is backdoored."""

import numpy as np
from jaxtyping import Float, Int

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.batches import batches, sampled
from jaxdefend.nets.net import Net
from jaxdefend.repairs import Anti
from jaxdefend.repairs.base import Repair, Run
from jaxdefend.repairs.curve import Curve, curve, mean_activations, prunable

# The share of clean images that may still be recognised beyond chance: about so many the guard turns away.
LEFT = 0.05

# A thousand images, evenly spread, tell where the faces are lost.
_SAMPLED = 1024


def repair(settings: Anti, net: Net, clean: ImageSet, run: Run) -> Repair:
    """The most active channels of the second convolution go until few clean images are recognised.

    Raises: InputError if the net recognises them without any channel, or does not recognise them to begin with.
    """
    layer = prunable(net)[:2][-1]
    order = descending(mean_activations(net, batches(clean, "activations", run.report), layer))
    chance = float(np.unique(np.asarray(clean.labels), return_counts=True)[1].max()) / len(clean)
    # Every process counts the same images: the shares are those of one.
    number = channels_to_lose(curve(net, sampled(clean, _SAMPLED), order, layer), chance)
    if number is None:
        raise InputError(
            f"without any channel of {layer} the net still gives more than {100 * (LEFT + chance):g} % of the clean "
            "images their label; expected as many images of each class"
        )
    if number == 0:
        raise InputError(
            f"the net gives {100 * (LEFT + chance):g} % of the clean images their label, or fewer: there is nothing to "
            "take from it; check the images, their labels and the input scale"
        )
    channels = order[:number]
    return Repair("anti", settings, net.pruned(layer, channels), {"layer": layer, "channels": channels})


def descending(scores: Float[np.ndarray, " c"]) -> Int[np.ndarray, " c"]:
    """Channels by activation, the highest first, ties by index: the reverse of what Liu et al. 2018 prune."""
    return np.argsort(-scores, kind="stable")


def channels_to_lose(clean: Curve, chance: float) -> int | None:
    """How many channels go: the first point of the clean images' curve with at most `LEFT` recognised, if any.

    Args:
        chance: the share of the commonest label, which a net that says nothing else recognises.
    """
    lost = clean.correct <= (LEFT + chance) * clean.n
    return int(np.argmax(lost)) if lost.any() else None
