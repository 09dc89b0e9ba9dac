"""The mean of each class's column in the last kernel: training on poison raises the target's.

Source: Fields et al. 2021 (Trojan Signatures in DNN Weights), section 3.
"""

import numpy as np
from jaxtyping import Float

from jaxdefend.nets.net import Net


def column_means(net: Net) -> Float[np.ndarray, " k"]:
    """Robust z-scores: deviation from the median in units of 1.4826 times the median absolute deviation; 0 where the
    classes do not come out of one Dense layer."""
    _, head = net.graph.head
    kernel = net.weights.get(head.name, {}).get("kernel")
    layer = head.name
    while kernel is None and len(net.graph[layer].inputs) == 1:
        layer = net.graph[layer].inputs[0]
        kernel = net.weights.get(layer, {}).get("kernel")
    if kernel is None or np.ndim(kernel) != 2 or np.shape(kernel)[1] != net.classes:
        return np.zeros(net.classes)
    means = np.asarray(kernel, np.float64).mean(axis=0)
    deviation = means - np.median(means)
    return deviation / max(1.4826 * float(np.median(np.abs(deviation))), 1e-12)
