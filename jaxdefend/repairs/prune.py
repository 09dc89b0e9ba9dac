"""Pruning alone: the channels that clean images activate least."""

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.net import Net
from jaxdefend.repairs import Prune
from jaxdefend.repairs.base import Repair, Run, channels_to_prune


def repair(settings: Prune, net: Net, clean: ImageSet, run: Run) -> Repair:
    """Source: Liu et al. 2018 (Fine-Pruning), section "Pruning Defense"."""
    channels, amount = channels_to_prune(settings, net, clean, run.report)
    return Repair("prune", settings, net.pruned(amount["layer"], channels), amount)
