"""The GoodNet's rule: what a BadNet and its repaired nets say together."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Int

Rule = Literal["goodnet", "anti"]
RULES: tuple[Rule, ...] = get_args(Rule)


def goodnet_labels(
    badnet: Int[np.ndarray, " n"], repaired: Int[np.ndarray, "*r n"], classes: int, rule: Rule = "goodnet"
) -> Int[np.ndarray, " n"]:
    """G(x) = B(x) where most repaired nets vote for it, else N = `classes`, "backdoored"; a tie is N.

    A repaired net B′ votes for B(x) where it says the same; under the rule "anti", where it says something else: an
    anti-repaired net keeps the backdoor and has lost the faces.

    Args:
        repaired: the labels of one repaired net, or a row for each.
    Source: the CSAW HackML 2020 competition's rule for a repaired net; Liu et al. 2018 for B′.
    """
    rows = np.atleast_2d(repaired)
    votes = rows == badnet if rule == "goodnet" else rows != badnet
    return np.where(2 * votes.sum(axis=0) > len(rows), badnet, classes)
