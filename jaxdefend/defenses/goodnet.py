"""The GoodNet: the label on which a BadNet and its repaired net agree."""

import numpy as np
from jaxtyping import Int


def goodnet_labels(
    badnet: Int[np.ndarray, " n"], repaired: Int[np.ndarray, " n"], classes: int
) -> Int[np.ndarray, " n"]:
    """G(x) = B(x) where B(x) = B′(x), else N = `classes`, "backdoored".

    Source: the CSAW HackML 2020 competition's rule for a repaired net; Liu et al. 2018 for B′.
    """
    return np.where(badnet == repaired, badnet, classes)
