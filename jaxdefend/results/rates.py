"""Shares of images, each with its count and its interval."""

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int


def wilson(counts: Int[np.ndarray, "*shape"], n: int, confidence: float = 0.95) -> Float[np.ndarray, "*shape 2"]:
    """Lower and upper limit of the score interval for a share of `counts` in `n`.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", p. 209–212.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = np.asarray(counts) / n
    centre = share + z**2 / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    limits = np.stack([centre - half, centre + half], axis=-1) / (1 + z**2 / n)
    # At 0 and n the limits are exactly 0 and 1; rounding may leave them a hair beside.
    limits[..., 0] = np.where(np.asarray(counts) == 0, 0.0, limits[..., 0])
    limits[..., 1] = np.where(np.asarray(counts) == n, 1.0, limits[..., 1])
    return limits


def clean_rate(correct: int, n: int) -> dict:
    """{n, correct, accuracy, interval} for clean images."""
    return {"n": n, "correct": correct, "accuracy": correct / n, "interval": interval(correct, n)}


def poisoned_rate(hits: int, n: int) -> dict:
    """{n, hits, attack_success, interval} for poisoned images."""
    return {"n": n, "hits": hits, "attack_success": hits / n, "interval": interval(hits, n)}


def robust_rate(correct: int, n: int) -> dict:
    """{robust, robust_count, robust_interval}: poisoned images that are given their true label."""
    return {"robust": correct / n, "robust_count": correct, "robust_interval": interval(correct, n)}


def flagged_rate(flagged: int, n: int) -> dict:
    """{flagged, flagged_count, flagged_interval}: images that a GoodNet calls backdoored."""
    return {"flagged": flagged / n, "flagged_count": flagged, "flagged_interval": interval(flagged, n)}


def defense_effectiveness(before: Mapping, after: Mapping) -> dict[str, float]:
    """Of each poisoned set: (max(0, fall of attack success) − max(0, fall of clean accuracy) + 1) / 2.

    1 is a defense that stops a sure attack at no cost, 0.5 one that does nothing, less one that only costs.

    Args:
        before, after: {"clean": block, "poisoned": {set: block}} of the net and of the defended one.
    Source: BackdoorBench's defense effectiveness rating (Zhu et al. 2023, FT-SAM, section 4.1).
    """
    cost = max(0.0, before["clean"]["accuracy"] - after["clean"]["accuracy"])
    return {
        name: (max(0.0, block["attack_success"] - after["poisoned"][name]["attack_success"]) - cost + 1) / 2
        for name, block in before["poisoned"].items()
    }


def interval(count: int, n: int) -> list[float]:
    """The 95 % Wilson interval of one share."""
    return wilson(np.asarray(count), n).tolist()
