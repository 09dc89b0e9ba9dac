"""Fine-pruning: the dormant channels go, and what is left is trained on clean images."""

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.net import Net
from jaxdefend.repairs import FinePrune
from jaxdefend.repairs.base import Repair, Run, channels_to_train_without, split
from jaxdefend.repairs.tuning import Tuning, held_at_zero, tuned_repair


def repair(settings: FinePrune, net: Net, clean: ImageSet, run: Run) -> Repair:
    """These channels pruned, then training on clean images. They stay zero: no gradient comes to them.

    Source: Liu et al. 2018 (Fine-Pruning), section "Fine-Pruning Defense".
    """
    parts = split(settings, clean, run.seed)
    channels, amount = channels_to_train_without(settings, net, clean, run.report)
    gradient = held_at_zero(net, amount["layer"], channels)
    tuning = Tuning(net.pruned(amount["layer"], channels), gradient, is_shared=True)
    return tuned_repair(settings, tuning, net, parts, run, amount)
