"""Shares of images, each with its count and its interval."""

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Rate:
    """`count` of `n` images."""

    count: int
    n: int

    @property
    def share(self) -> float:
        return self.count / self.n

    @property
    def interval(self) -> list[float]:
        """The 95 % Wilson interval of the share."""
        return wilson(np.asarray(self.count), self.n).tolist()

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.share:.2f} % [{100 * low:.1f}, {100 * high:.1f}]"


def clean_rate(rate: Rate) -> dict:
    """{n, correct, accuracy, interval}: clean images that are given their label."""
    return {"n": rate.n, "correct": rate.count, "accuracy": rate.share, "interval": rate.interval}


def poisoned_rate(rate: Rate) -> dict:
    """{n, hits, attack_success, interval}: poisoned images that are given the attacker's target."""
    return {"n": rate.n, "hits": rate.count, "attack_success": rate.share, "interval": rate.interval}


def named_rate(name: str, rate: Rate) -> dict:
    """{name, name_count, name_interval}, for a rate that stands beside another one of the same images."""
    return {name: rate.share, f"{name}_count": rate.count, f"{name}_interval": rate.interval}


def defense_effectiveness(
    before: tuple[Rate, Mapping[str, Rate]], after: tuple[Rate, Mapping[str, Rate]]
) -> dict[str, float]:
    """Of each poisoned set: (max(0, fall of attack success) − max(0, fall of clean accuracy) + 1) / 2.

    1 is a defense that stops a sure attack at no cost, 0.5 one that does nothing, less one that only costs.

    Args:
        before, after: clean accuracy, and attack success by poisoned set, of the net and of the defended one.
    Source: BackdoorBench's defense effectiveness rating (Zhu et al. 2023, FT-SAM, section 4.1).
    """
    cost = max(0.0, before[0].share - after[0].share)
    return {name: (max(0.0, rate.share - after[1][name].share) - cost + 1) / 2 for name, rate in before[1].items()}
