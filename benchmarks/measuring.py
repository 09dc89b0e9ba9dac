"""What the comparisons share: interleaved timing, rows, the images and the net."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import NamedTuple

import numpy as np

__all__ = ["FULL", "QUICK", "Row", "Size", "Times", "clean_faces", "interleaved", "matmul_seconds", "median"]

# Seconds of each repeat, in the order in which the contestants took turns.
Times = list[float]


class Size(NamedTuple):
    """How much is measured: images (half of them in the grid), images of each set of the curve, repeats, images of the
    longest pass, images under STRIP."""

    images: int
    curve_images: int
    repeats: int
    growth_images: int
    strip_images: int


FULL = Size(images=4096, curve_images=4096, repeats=7, growth_images=100_000, strip_images=256)
QUICK = Size(images=1024, curve_images=512, repeats=2, growth_images=4_000, strip_images=16)


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` says how many times as long the peer takes, as the median over the repeats.

    Attributes:
        theirs: None if the peer is not there; `peer` then says how to install it.
        same_result: whether both sides were found to compute the same.
        smallest_ratio, longest_seconds: the goal.
    """

    name: str
    ours: Times
    peer: str
    theirs: Times | None = None
    same_result: bool | None = None
    smallest_ratio: float | None = None
    longest_seconds: float | None = None

    @property
    def ratio(self) -> float | None:
        if self.theirs is None:
            return None
        return median(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def goal(self) -> str:
        ratio = [f"ratio ≥ {self.smallest_ratio:g}"] if self.smallest_ratio else []
        seconds = [f"ours_s ≤ {self.longest_seconds:g}"] if self.longest_seconds else []
        return ", ".join(ratio + seconds)

    @property
    def met(self) -> bool | None:
        """None if there is no goal, or no peer to measure it by."""
        if self.smallest_ratio and self.ratio is None:
            return None
        if not self.goal:
            return None
        fast_enough = self.longest_seconds is None or median(self.ours) <= self.longest_seconds
        return fast_enough and (self.smallest_ratio is None or (self.ratio or 0) >= self.smallest_ratio)

    def record(self) -> dict:
        """The row of `benchmarks.json`."""
        return {
            "name": self.name,
            "ours_s": median(self.ours),
            "peer": self.peer,
            "peer_s": median(self.theirs) if self.theirs else None,
            "ratio": self.ratio,
            "goal": self.goal or None,
            "same_result": self.same_result,
        }


def interleaved(repeats: int, *contestants: Callable[[], object]) -> list[Times]:
    """Seconds that each contestant takes, in turns, so that a busy minute falls on all of them. Warm them up before."""
    times: list[Times] = [[] for _ in contestants]
    for _ in range(repeats):
        for contestant, own in zip(contestants, times, strict=True):
            start = perf_counter()
            contestant()
            own.append(perf_counter() - start)
    return times


def clean_faces(n: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` synthetic faces (uint8) and their labels."""
    from jaxdefend.attacks.synthetic import SyntheticFaces

    block = SyntheticFaces(people=-(-n // 10)).images(range(9, 19))
    return block.pixels[:n], block.labels[:n]


def poisoned_faces(n: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` synthetic faces with bd_net's sunglasses, and the attacker's target."""
    from jaxdefend.attacks.synthetic import SyntheticFaces, shipped_backdoors

    (backdoor,) = shipped_backdoors("bd_net")
    blocks = list(SyntheticFaces(people=1 + -(-n // 10)).blocks(range(9, 19), backdoor))
    return tuple(np.concatenate([getattr(block, name) for block in blocks])[:n] for name in ("pixels", "labels"))


def multiply_adds(net, *layers: str) -> int:
    """What one image costs in these convolutions and dense layers; by default in all of them."""

    def of_layer(layer: str) -> int:
        kernels = [shape for name, shape in net.graph.weight_shapes[layer].items() if "kernel" in name]
        # A dense layer has no positions beside its outputs, which its kernel counts.
        positions = math.prod(net.graph.shapes[layer][:-1])
        return sum(math.prod(shape) for shape in kernels) * positions

    return sum(map(of_layer, layers or net.graph.weight_shapes))


def matmul_seconds(repeats: int, multiply_adds: int, ours: Callable[[], object]) -> tuple[Times, Times]:
    """Seconds of `ours`, and of as many multiply-adds in one large matrix product, in turns."""
    import jax
    import jax.numpy as jnp

    side = 2048 if jax.default_backend() == "cpu" else 8192
    square = jnp.ones((side, side))
    product = jax.jit(lambda square: jnp.dot(square, square, precision="highest"))
    product(square).block_until_ready()
    times, products = interleaved(repeats, ours, lambda: product(square).block_until_ready())
    return times, [seconds * multiply_adds / side**3 for seconds in products]
