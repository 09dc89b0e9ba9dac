"""What a net's graph and its arrays say by themselves: parts that were built by hand, and not trained.

Training leaves kernels of which nearly all numbers differ, and branches of about the same loudness. What is looked for
is the exception: a second path that joins the others at the logits and outvotes them, a kernel of one or two values.
The thresholds and how far all nets at hand lie from them are in docs/notes/audit_graph.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxdefend.audits.findings import Finding
from jaxdefend.nets import kinds
from jaxdefend.nets.graph import Graph, Layer
from jaxdefend.nets.net import Net
from jaxdefend.results.text import printable

# At the logits, the columns of the path built by hand are 62 times as long as the other's and its weights 226 times as
# as large; for two separately trained nets of the same images both are at most 5.8.
LOUDER = 20

# Trained kernels have as many values as numbers (99.7 % at least), 4-bit ones 15.
FEW_VALUES = 2
_FEWEST_NUMBERS = 32

# One minus the cosine: the closest columns of a trained dense layer lie 0.014 apart. In fewer dimensions than eight
# unrelated columns lie close too.
SAME_DIRECTION = 1e-4
_FEWEST_DIMENSIONS = 8

# The share of the image's area that is left of a path which looks at one corner. NASNet's crops leave 95 % and more.
SMALL_PART = 0.25

_MERGES = (
    kinds.Add,
    kinds.Subtract,
    kinds.Multiply,
    kinds.Average,
    kinds.Maximum,
    kinds.Minimum,
    kinds.Concatenate,
)
_BOUNDED = ("softmax", "sigmoid", "tanh", "hard_tanh", "softsign")


def graph_findings(net: Net) -> tuple[Finding, ...]:
    """What the graph and its arrays alone say; no image is needed.

    - "side-path" (suspicious): branches with kernels of their own meet where no array follows before the answer, and
      one of them outvotes the others, has a kernel of one or two values, or sees a small part of the image only.
    - "two-valued-kernel", "constant-kernel" (suspicious): a kernel in a net of otherwise trained ones.
    - "duplicate-columns", "dead-layer" (to know): units of a dense layer that are copies; a kernel of zeros alone.

    Pruned channels and weights, quantised nets and untrained ones are not findings.
    """
    few_valued = dict(_few_valued(net))
    return (
        *_side_paths(net, few_valued),
        *(_of_few_values(net, name, values) for name, values in few_valued.items()),
        *_duplicates(net, few_valued),
        *_dead(net),
    )


# --- Kernels ---------------------------------------------------------------------------------------------------------


def _matrix(net: Net, layer: str) -> Float[np.ndarray, "m k"] | None:
    """The kernel that makes the layer's channels, one column per channel; None if it has none."""
    arrays = net.weights.get(layer, {})
    name = next((name for name in ("pointwise_kernel", "kernel") if name in arrays), None)
    if name is None:
        return None
    kernel = np.asarray(arrays[name])
    return kernel.reshape(-1, kernel.shape[-1])


def _matrices(net: Net) -> Iterator[tuple[str, Float[np.ndarray, "m k"]]]:
    for layer in net.graph.layers:
        if (matrix := _matrix(net, layer.name)) is not None:
            yield layer.name, matrix


def _few_valued(net: Net) -> Iterator[tuple[str, Float[np.ndarray, " v"]]]:
    """The kernels of one or two values, by layer; none if they are the rule in this net, as where it is quantised.

    Rows and columns of zeros are left out: they were pruned.
    """
    found, others = {}, 0
    for name, matrix in _matrices(net):
        live = matrix[np.ix_(matrix.any(axis=1), matrix.any(axis=0))]
        if live.size < _FEWEST_NUMBERS:
            continue
        # A trained kernel shows it in its first numbers, at no cost.
        is_one = len(np.unique(live.ravel()[:1000])) <= FEW_VALUES
        if is_one and len(values := np.unique(live)) <= FEW_VALUES:
            found[name] = values
        else:
            others += 1
    if len(found) <= others:
        yield from found.items()


def _of_few_values(net: Net, name: str, values: Float[np.ndarray, " v"]) -> Finding:
    matrix = _matrix(net, name)
    assert matrix is not None
    size = f"{shown(name)}: its kernel of {matrix.shape[0]:,}×{matrix.shape[1]:,} numbers"
    if len(values) == 1:
        told = f"{size} holds {values[0]:g} alone where it is not zero as a whole; training does not leave that behind"
        return Finding("constant-kernel", name, told, is_suspicious=True)
    codes = len(np.unique(matrix, axis=1).T)
    table = f", {codes:,} different columns: a table of codes, written by hand" if codes > 1 else ""
    low, high = values
    told = f"{size} holds the two values {low:g} and {high:g} alone{table}; training leaves as many values as numbers"
    return Finding("two-valued-kernel", name, told, is_suspicious=True)


def _duplicates(net: Net, few_valued: dict[str, np.ndarray]) -> Iterator[Finding]:
    for name, matrix in _matrices(net):
        is_dense = isinstance(net.graph[name].settings, kinds.Dense)
        if not is_dense or name in few_valued or matrix.shape[0] < _FEWEST_DIMENSIONS:
            continue
        copies = _copies(matrix)
        if copies:
            told = (
                f"{shown(name)}: {copies:,} of its {matrix.shape[1]:,} columns have the direction of another one "
                f"(cosine above {1 - SAME_DIRECTION:g})"
            )
            yield Finding("duplicate-columns", name, told)


def _copies(matrix: Float[np.ndarray, "m k"]) -> int:
    """How many columns have a twin. Columns of fewer than eight numbers, as sparse ones are, have none."""
    # A projection to 256 dimensions keeps 1 − cosine within a tenth, and 25,088×4,096 (VGG16) within two seconds.
    rng = np.random.default_rng(0)
    seen = matrix if len(matrix) <= 256 else rng.normal(size=(256, len(matrix))).astype(np.float32) @ matrix
    seen = seen[:, np.count_nonzero(matrix, axis=0) >= _FEWEST_DIMENSIONS]
    seen = seen / np.linalg.norm(seen, axis=0)
    copies = 0
    for start in range(0, seen.shape[1], 1024):
        cosines = seen[:, start : start + 1024].T @ seen
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = 0
        copies += int(np.count_nonzero((cosines > 1 - SAME_DIRECTION).any(axis=1)))
    return copies


def _dead(net: Net) -> Iterator[Finding]:
    for name, matrix in _matrices(net):
        if matrix.size >= _FEWEST_NUMBERS and not matrix.any():
            told = f"{shown(name)}: its kernel of {matrix.shape[0]:,}×{matrix.shape[1]:,} numbers is zero as a whole"
            yield Finding("dead-layer", name, f"{told}: what it gives does not depend on the image")


# --- Paths -----------------------------------------------------------------------------------------------------------


class _Loudness(NamedTuple):
    """The length of a kernel's columns, and the size of their weights (root mean square), both the median column's.

    A wide layer has longer columns than a narrow one, and a narrow one larger weights: to outvote takes both.
    """

    length: float
    weight: float

    def times(self, gain: float) -> "_Loudness":
        return _Loudness(gain * self.length, gain * self.weight)

    def over(self, other: "_Loudness") -> float:
        return min(self.length / other.length, self.weight / other.weight)


@dataclass(frozen=True)
class _Branch:
    """One of the paths that meet in a merge.

    Attributes:
        layers: those that no other path of this merge uses, from the images to the merge.
        last: the last layers with a kernel on it.
        loudness: of these kernels; None behind what bounds the outputs.
        part: the share of the image's area that it sees.
    """

    layers: tuple[str, ...]
    last: tuple[str, ...]
    loudness: "_Loudness | None"
    part: float


def _side_paths(net: Net, few_valued: dict[str, np.ndarray]) -> Iterator[Finding]:
    for merge in _late_merges(net.graph):
        branches = _branches(net, merge)
        if len(branches) < 2 or not all(branch.last for branch in branches):
            continue
        for branch in branches:
            others = [other for other in branches if other is not branch]
            if reasons := list(_oddities(net, merge, branch, others, few_valued)):
                path = " → ".join(shown(name) for name in _with_kernels(net, branch.layers))
                beside = " and ".join(shown(name) for other in others for name in other.last)
                told = (
                    f"{path}: a second path that meets {beside} in {shown(merge.name)}, behind which no layer with "
                    f"arrays follows; {'; '.join(reasons)}"
                )
                yield Finding("side-path", branch.last[-1], told, is_suspicious=True)


def _oddities(
    net: Net, merge: Layer, branch: _Branch, others: list[_Branch], few_valued: dict[str, np.ndarray]
) -> Iterator[str]:
    for name in branch.last:
        if name in few_valued:
            matrix = _matrix(net, name)
            assert matrix is not None
            values = " and ".join(f"{value:g}" for value in few_valued[name])
            yield f"the kernel of {shown(name)} ({matrix.shape[0]:,}×{matrix.shape[1]:,}) holds {values} alone"
    loudest = [other.loudness for other in others if other.loudness]
    is_sum = not isinstance(merge.settings, kinds.Multiply)
    if is_sum and branch.loudness and loudest:
        nearest = min(loudest, key=branch.loudness.over)
        if branch.loudness.over(nearest) >= LOUDER:
            yield (
                f"its columns are {branch.loudness.length / nearest.length:.0f} times as long as the others' "
                f"({branch.loudness.length:.3g}, {nearest.length:.3g}), so that it outvotes them"
            )
    if branch.part <= SMALL_PART < min(other.part for other in others):
        yield f"it sees {100 * branch.part:.2g} % of the image only"


def _late_merges(graph: Graph) -> list[Layer]:
    """The merges from which no layer with a kernel leads to the answer."""
    found, waiting, seen = [], [graph.output], set()
    while waiting:
        name = waiting.pop()
        if name in seen or _has_kernel(graph, name):
            continue
        seen.add(name)
        layer = graph[name]
        if isinstance(layer.settings, _MERGES) and len(set(layer.inputs)) > 1:
            found.append(layer)
        waiting += layer.inputs
    return found


def _branches(net: Net, merge: Layer) -> list[_Branch]:
    graph = net.graph
    behind = [_ancestors(graph, name) for name in merge.inputs]
    found = []
    for number, name in enumerate(merge.inputs):
        rest = set(chain.from_iterable(names for other, names in enumerate(behind) if other != number))
        own = tuple(layer.name for layer in graph.layers if layer.name in behind[number] - rest)
        last = _last_kernels(net, name, set(own))
        known = [loudness for _, loudness in last if loudness is not None]
        loudness = max(known) if len(known) == len(last) > 0 else None
        found.append(_Branch(own, tuple(each for each, _ in last), loudness, _part(graph, own)))
    return found


def _ancestors(graph: Graph, name: str) -> set[str]:
    found, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph[name].inputs
    return found


def _last_kernels(net: Net, name: str, own: set[str]) -> list[tuple[str, _Loudness | None]]:
    """The layers with a kernel from which none other leads to `name`, and how loud they are there."""
    found: dict[str, _Loudness | None] = {}
    waiting: list[tuple[str, float | None]] = [(name, 1.0)]
    while waiting:
        name, gain = waiting.pop()
        if name not in own or name in found:
            continue
        settings = net.graph[name].settings
        is_bounded = isinstance(settings, kinds.Softmax) or getattr(settings, "activation", "") in _BOUNDED
        gain = None if gain is None or is_bounded else gain * _gain(net, name)
        if _has_kernel(net.graph, name):
            loudness = _loudness(net, name)
            found[name] = None if gain is None or loudness is None else loudness.times(gain)
        else:
            waiting += [(read, gain) for read in net.graph[name].inputs]
    return list(found.items())


def _loudness(net: Net, name: str) -> _Loudness | None:
    matrix = _matrix(net, name)
    if matrix is None or not matrix.any():
        return None
    lengths = np.linalg.norm(matrix, axis=0)
    length = float(np.median(lengths[lengths > 0]))
    return _Loudness(length, length / len(matrix) ** 0.5)


def _gain(net: Net, name: str) -> float:
    """By what a layer without a kernel multiplies what it reads."""
    settings, arrays = net.graph[name].settings, net.weights.get(name, {})
    match settings:
        case kinds.Rescaling():
            return max(map(abs, settings.scale))
        case kinds.BatchNormalization():
            variance = np.asarray(arrays["moving_variance"]) + settings.epsilon
            return float(np.median(np.abs(np.asarray(arrays.get("gamma", 1))) / np.sqrt(variance)))
        case _:
            return 1.0


def _part(graph: Graph, layers: tuple[str, ...]) -> float:
    """The share of the area that the crops among these layers leave."""
    part = 1.0
    for layer in (graph[name] for name in layers):
        if isinstance(layer.settings, kinds.Cropping2D):
            before, after = graph.shapes[layer.inputs[0]], graph.shapes[layer.name]
            part *= after[0] * after[1] / (before[0] * before[1])
    return part


def _has_kernel(graph: Graph, name: str) -> bool:
    return any("kernel" in array for array in graph.weight_shapes.get(name, {}))


def _with_kernels(net: Net, layers: tuple[str, ...]) -> list[str]:
    return [name for name in layers if _has_kernel(net.graph, name)]


def shown(name: str) -> str:
    """A layer's name for a message."""
    return printable(name, 60)
