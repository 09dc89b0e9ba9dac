"""Channel Lipschitz Pruning: channels that can raise their input far more than others, found without any data."""

import numpy as np
from jaxtyping import Bool, Float

from jaxdefend.nets.deepid import CONVOLUTIONS, DeepID, to_weights, with_channels_zeroed

# Standard deviations above the mean at which a channel goes: the paper's default.
DEVIATIONS = 3.0


def channel_bounds(net: DeepID, layer: str) -> Float[np.ndarray, " c"]:
    """Upper bound of each channel's Lipschitz constant: the spectral norm of its kernel as inputs × positions.

    Source: Zheng et al. 2022 (CLP), section 4.2; there is no batch norm here to fold in.
    """
    kernel = to_weights(net)[layer]["kernel"]
    matrices = np.moveaxis(kernel.reshape(-1, *kernel.shape[2:]), 2, 0)
    return np.linalg.norm(matrices, ord=2, axis=(1, 2))


def flagged(net: DeepID, layer: str) -> Bool[np.ndarray, " c"]:
    """The channels of a convolution whose bound lies `DEVIATIONS` above the layer's mean (CLP, algorithm 1)."""
    bounds = channel_bounds(net, layer)
    return bounds > bounds.mean() + DEVIATIONS * bounds.std(ddof=1)


def lipschitz_pruned(net: DeepID) -> tuple[DeepID, dict[str, np.ndarray]]:
    """The net without the flagged channels of each convolution, and their numbers by layer."""
    channels = {layer: np.flatnonzero(flagged(net, layer)) for layer in CONVOLUTIONS}
    for layer, found in channels.items():
        net = with_channels_zeroed(net, layer, found)
    return net, channels
