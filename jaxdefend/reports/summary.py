"""What a net is: its layers with shapes, parameters, zero channels and multiply-adds, as a table and as a picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from jaxdefend.nets.graph import CONVOLUTIONS, Graph
from jaxdefend.nets.net import Net
from jaxdefend.results.text import printable, table

# Layers whose channels, or units, can be zero.
_WITH_CHANNELS = (*CONVOLUTIONS, "Dense")


@dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Attributes:
        shape: of what it gives for one image.
        zero: output channels or units whose weights and bias are all zero, of `channels`; None for a layer without.
        multiply_adds: multiplications of a weight with a number, for one image.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    shape: tuple[int, ...]
    parameters: int
    channels: int | None
    zero: int | None
    multiply_adds: int

    @property
    def size(self) -> str:
        return "×".join(map(str, self.shape))


@dataclass(frozen=True, repr=False)
class Summary:
    """A net.

    Attributes:
        sha256: of its file; None for a net that was made from another one.
        format: of its file, in words; None where that is not known.
        input_scale: None if it is not known.
        found: what else was found out, such as how the scale was decided; one line each.
    """

    name: str
    sha256: str | None
    format: str | None
    input_scale: str | None
    image_shape: tuple[int, int, int]
    classes: int
    layers: tuple[LayerSummary, ...]
    found: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)

    def record(self) -> dict[str, Any]:
        """What summary.json holds."""
        return {
            "model": {"name": self.name, "sha256": self.sha256},
            "format": self.format,
            "input_scale": self.input_scale,
            "image_shape": self.image_shape,
            "classes": self.classes,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "layers": [vars(layer) for layer in self.layers],
            "found": self.found,
        }

    def columns(self) -> dict[str, Sequence]:
        """A row per layer."""
        return {
            "layer": [layer.name for layer in self.layers],
            "kind": [layer.kind for layer in self.layers],
            "reads": [" ".join(layer.reads) for layer in self.layers],
            "shape": [layer.size for layer in self.layers],
            "parameters": [layer.parameters for layer in self.layers],
            "channels": [layer.channels for layer in self.layers],
            "zero_channels": [layer.zero for layer in self.layers],
            "multiply_adds": [layer.multiply_adds for layer in self.layers],
        }

    def table(self) -> str:
        rows = [
            [
                printable(layer.name, 40),
                layer.kind,
                layer.size,
                f"{layer.parameters:,}",
                "" if layer.zero is None else f"{layer.zero} of {layer.channels}",
                f"{layer.multiply_adds:,}",
            ]
            for layer in self.layers
        ]
        rows.append(["all", "", "", f"{self.parameters:,}", "", f"{self.multiply_adds:,}"])
        return table(["layer", "kind", "shape", "parameters", "zero channels", "multiply-adds"], rows)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.image_shape))
        scale = self.input_scale or "not known"
        head = f"{printable(self.name)}: images {shape}, {self.classes} classes, input scale {scale}"
        return "\n".join([head, *self.found, self.table()])

    def svg(self) -> str:
        """A picture of the graph: a box per layer, from the images at the top to the answer at the bottom.

        Its colours follow the page it stands on; alone it is black on white.
        """
        return _picture(self)


def summarise(net: Net, path: str | Path | None = None, found: Sequence[str] = ()) -> Summary:
    """The layers of a net, and what is known of its file.

    Args:
        path: the file that it was read from, or the name of a shipped net.
        found: what was found out on the way, one line each.
    """
    graph = net.graph
    layers = []
    for layer in graph.layers:
        arrays = net.weights.get(layer.name, {})
        channels = zero = None
        if layer.kind in _WITH_CHANNELS:
            alive = _alive(graph, layer.name, arrays)
            channels, zero = len(alive), int((~alive).sum())
        layers.append(
            LayerSummary(
                layer.name,
                layer.kind,
                layer.inputs,
                tuple(graph.shapes[layer.name]),
                sum(int(np.prod(np.shape(array))) for array in arrays.values()),
                channels,
                zero,
                _multiply_adds(graph, layer.name, arrays),
            )
        )
    sha256 = None if net.source is None else net.source.sha256
    kind = None if path is None else file_format(path)
    scale, shape = net.input_scale, net.image_shape
    return Summary(net.name, sha256, kind, scale, shape, net.classes, tuple(layers), tuple(found))


def _alive(graph: Graph, name: str, arrays: Any) -> np.ndarray:
    """Whether any weight or bias of each output channel differs from zero."""
    channels = graph.shapes[name][-1]
    alive = np.zeros(channels, bool)
    for kind, array in arrays.items():
        values = np.asarray(array)
        if kind == "depthwise_kernel":
            if "pointwise_kernel" in arrays:
                continue
            alive |= np.abs(values).reshape(-1, channels).max(axis=0) > 0
        else:
            alive |= np.abs(values).reshape(-1, channels).max(axis=0) > 0
    return alive


def _multiply_adds(graph: Graph, name: str, arrays: Any) -> int:
    """Every weight of a kernel is used once at each position of the output."""
    layer, shape = graph[name], graph.shapes[name]
    kernels = [np.size(array) for kind, array in arrays.items() if kind.endswith("kernel")]
    if layer.kind in CONVOLUTIONS:
        return sum(kernels) * math.prod(shape[:2])
    if layer.kind == "Dense":
        return sum(kernels) * math.prod(shape[:-1])
    return 0


def file_format(path: str | Path) -> str | None:
    """What kind of Keras file this is, in words; None if it cannot be told."""
    import zipfile

    import h5py

    from jaxdefend.nets.loading import path_of

    try:
        file = path_of(path)
        if not h5py.is_hdf5(file):
            return "Keras 3 archive (.keras)" if zipfile.is_zipfile(file) else None
        with h5py.File(file, "r") as opened:
            if "layer_names" in opened.attrs:
                return "Keras 2 weights (HDF5)"
            if opened.id.links.exists(b"model_weights"):
                trained = opened.id.links.exists(b"optimizer_weights")
                return f"Keras 2 model (HDF5): architecture and weights{', with optimizer state' if trained else ''}"
            return "Keras 3 weights (HDF5)"
    except (OSError, RuntimeError, ValueError, KeyError):
        return None


# --- The picture -----------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _ACROSS, _DOWN = 190, 44, 24, 30


def _picture(summary: Summary) -> str:
    """Layers by depth, the longest way from the images; those of one depth side by side, below what they read."""
    depth: dict[str, int] = {}
    for layer in summary.layers:
        depth[layer.name] = 1 + max((depth[name] for name in layer.reads), default=-1)
    rows: dict[int, list[LayerSummary]] = {}
    for layer in summary.layers:
        rows.setdefault(depth[layer.name], []).append(layer)
    widest = max(map(len, rows.values()))
    # A line that passes by layers of other branches goes to the right of them.
    lanes = _lanes(summary, depth)
    margin = 14 * (1 + max(lanes.values(), default=-1))
    width = widest * (_WIDTH + _ACROSS) + _ACROSS + margin
    height = len(rows) * (_HEIGHT + _DOWN) + 10
    middle: dict[str, tuple[float, float]] = {}
    for level, row in rows.items():
        start = (width - margin) / 2 - (len(row) - 1) / 2 * (_WIDTH + _ACROSS)
        for number, layer in enumerate(row):
            middle[layer.name] = (start + number * (_WIDTH + _ACROSS), 8 + level * (_HEIGHT + _DOWN) + _HEIGHT / 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(_told(summary))}</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>',
    ]
    edge = width - margin
    for layer in summary.layers:
        x, y = middle[layer.name]
        for read in layer.reads:
            from_x, from_y = middle[read]
            lane = lanes.get((read, layer.name))
            start, end = from_y + _HEIGHT / 2, y - _HEIGHT / 2
            if lane is None:
                half = (start + end) / 2
                way = f"M{from_x:.0f} {start:.0f}C{from_x:.0f} {half:.0f} {x:.0f} {half:.0f} {x:.0f} {end:.0f}"
            else:
                out = edge + 14 * lane
                way = (
                    f"M{from_x + _WIDTH / 2:.0f} {from_y:.0f}C{out:.0f} {from_y:.0f} {out:.0f} {from_y:.0f} {out:.0f} "
                    f"{from_y + 24:.0f}V{y - 24:.0f}C{out:.0f} {y:.0f} {out:.0f} {y:.0f} "
                    f"{x + _WIDTH / 2 + 2:.0f} {y:.0f}"
                )
            parts.append(f'<path d="{way}" fill="none" stroke="currentColor" opacity="0.6" marker-end="url(#arrow)"/>')
    for layer in summary.layers:
        parts.append(_box(layer, *middle[layer.name]))
    return "\n".join([*parts, "</svg>"])


def _told(summary: Summary) -> str:
    name = printable(summary.name, 80)
    return f"Graph of {name}: {len(summary.layers)} layers, from the images to {summary.classes} classes"


def _lanes(summary: Summary, depth: dict[str, int]) -> dict[tuple[str, str], int]:
    """The lines that skip a depth, each with a lane in which it meets no other."""
    skips = [
        (depth[read], depth[layer.name], read, layer.name)
        for layer in summary.layers
        for read in layer.reads
        if depth[layer.name] - depth[read] > 1
    ]
    lanes: dict[tuple[str, str], int] = {}
    ends: list[int] = []
    for start, end, read, name in sorted(skips):
        lane = next((number for number, last in enumerate(ends) if last <= start), len(ends))
        if lane == len(ends):
            ends.append(end)
        else:
            ends[lane] = end
        lanes[read, name] = lane
    return lanes


def _box(layer: LayerSummary, x: float, y: float) -> str:
    left, top = x - _WIDTH / 2, y - _HEIGHT / 2
    accent = "#0072B2" if layer.kind in CONVOLUTIONS else "#D55E00" if layer.kind == "Dense" else "#888888"
    name = escape(printable(layer.name, 24))
    told = f"{layer.kind}  {layer.size}"
    about = f"{printable(layer.name, 200)}: {layer.kind}, {layer.size}, {layer.parameters:,} parameters"
    if layer.zero:
        about += f", {layer.zero} of {layer.channels} channels zero"
    return (
        f"<g><title>{escape(about)}</title>"
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{accent}" '
        f'fill-opacity="0.12" stroke="{accent}"/>'
        f'<text x="{x:.0f}" y="{y - 4:.0f}" text-anchor="middle" fill="currentColor" font-weight="600">{name}</text>'
        f'<text x="{x:.0f}" y="{y + 13:.0f}" text-anchor="middle" fill="currentColor" opacity="0.8" '
        f'font-size="11">{escape(printable(told, 34))}</text></g>'
    )
