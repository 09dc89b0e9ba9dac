"""Channel Lipschitz Pruning: channels that can raise their input far more than others, found without any data."""

import numpy as np
from jaxtyping import Bool, Float

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.net import Net
from jaxdefend.repairs import Clp
from jaxdefend.repairs.base import Repair, Run, without_channels
from jaxdefend.repairs.curve import last_kernel, prunable

# Standard deviations above the mean at which a channel goes: the paper's default.
DEVIATIONS = 3.0


def repair(settings: Clp, net: Net, clean: ImageSet, run: Run) -> Repair:
    """The net without the flagged channels of each convolution."""
    channels = {layer: np.flatnonzero(flagged(net, layer)) for layer in prunable(net)}
    return Repair("clp", settings, without_channels(net, channels), {"channels": channels})


def channel_bounds(net: Net, layer: str) -> Float[np.ndarray, " c"]:
    """Upper bound of each channel's Lipschitz constant: the spectral norm of its kernel as inputs × positions.

    A batch normalization behind the convolution scales it by |γ| / √(σ² + ε).
    Source: Zheng et al. 2022 (CLP), section 4.2.
    """
    kernel = np.asarray(last_kernel(net, layer))
    matrices = np.moveaxis(kernel.reshape(-1, *kernel.shape[2:]), 2, 0)
    bounds = np.linalg.norm(matrices, ord=2, axis=(1, 2))
    for name in net.graph.behind(layer):
        if net.graph[name].kind == "BatchNormalization":
            arrays = {kind: np.asarray(array) for kind, array in net.weights[name].items()}
            scale = np.abs(arrays["gamma"]) if "gamma" in arrays else 1.0
            bounds = bounds * scale / np.sqrt(arrays["moving_variance"] + net.graph[name]["epsilon"])
    return bounds


def flagged(net: Net, layer: str) -> Bool[np.ndarray, " c"]:
    """The channels of a convolution whose bound lies `DEVIATIONS` above the layer's mean (CLP, algorithm 1)."""
    bounds = channel_bounds(net, layer)
    return bounds > bounds.mean() + DEVIATIONS * bounds.std(ddof=1)
