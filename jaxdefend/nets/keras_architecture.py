"""An architecture as a Keras file keeps it: a graph, and the order and the names of its arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jaxdefend.nets.graph import Graph


@dataclass(frozen=True)
class Entry:
    """A layer as its file keeps it.

    Attributes:
        name, kind: Keras's name and class.
        layer: what it is called in the graph; None for a model, whose layers are `inside`.
        arrays: the names of its arrays, in the order in which they are kept.
        statistics: how many of these, at the end, are not trained.
        trainable: whether the others are; the arrays of a model that are not come last.
        is_pruned: a mask for the kernel is kept behind them.
    """

    name: str
    kind: str
    layer: str | None = None
    arrays: tuple[str, ...] = ()
    statistics: int = 0
    trainable: bool = True
    is_pruned: bool = False
    inside: "tuple[Entry, ...] | None" = None

    @property
    def has_arrays(self) -> bool:
        # A pruning wrapper counts its steps, whatever lies within.
        return bool(self.arrays) or self.is_pruned or any(entry.has_arrays for entry in self.inside or ())


@dataclass(frozen=True)
class Architecture:
    """A graph, how a file that holds it keeps the arrays, and what was found on the way.

    Attributes:
        given: arrays that are part of the architecture.
        input_scale: what a layer at the front says about it.
        notes: what a user should know, one line each.
    """

    graph: Graph
    entries: tuple[Entry, ...]
    given: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    input_scale: str | None = None
    notes: tuple[str, ...] = ()
