"""What every channel answers to clean and to poisoned images: the picture in which a backdoor shows itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Num

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet, as_images
from jaxdefend.nets.batches import batches
from jaxdefend.nets.devices import on_devices, over_processes, sharded
from jaxdefend.nets.net import Net
from jaxdefend.repairs.curve import checked_layer
from jaxdefend.reports.samples import counted
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.text import printable, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = "clean"

Maps = Float[np.ndarray, "h w c"]

# Heat maps of more channels than this show the ones that differ most.
_MAPS_SHOWN = 96
# Channels that a table names.
_NAMED = 12


@dataclass(frozen=True, repr=False)
class Activations:
    """Mean activations behind one convolution.

    Attributes:
        net: its name.
        layer: the convolution; `place` is the layer behind which its channels were read, such as its pool.
        maps: by set, "clean" first: the mean over the images, at every position of every channel.
        n: images by set.
    """

    net: str
    layer: str
    place: str
    maps: Mapping[str, Maps]
    n: Mapping[str, int]

    @property
    def channels(self) -> int:
        return self.maps[CLEAN].shape[-1]

    @property
    def poisoned(self) -> list[str]:
        """The names of the poisoned sets."""
        return [name for name in self.maps if name != CLEAN]

    def means(self, name: str = CLEAN) -> Float[np.ndarray, " c"]:
        """Mean activation of every channel, over positions and images of a set."""
        return self.maps[name].mean(axis=(0, 1))

    def responsive(self, name: str) -> Int[np.ndarray, " k"]:
        """The channels that respond more to the images of this set than to clean ones, the largest difference first."""
        difference = self.means(name) - self.means()
        order = np.argsort(-difference, kind="stable")
        return order[difference[order] > 0]

    def silent(self, name: str = CLEAN) -> Int[np.ndarray, " k"]:
        """The channels that are zero at every position of every image of a set."""
        return np.flatnonzero(np.abs(self.maps[name]).max(axis=(0, 1)) == 0)

    def record(self) -> dict[str, Any]:
        """What a report holds of it."""
        return {
            "net": self.net,
            "layer": self.layer,
            "place": self.place,
            "n": dict(self.n),
            "mean_activation": {name: self.means(name) for name in self.maps},
            "silent": {name: self.silent(name) for name in self.maps},
            "responsive": {name: self.responsive(name) for name in self.poisoned},
        }

    def columns(self) -> dict[str, Sequence | np.ndarray]:
        """A row per channel."""
        means = {f"mean_activation_{name}": self.means(name).tolist() for name in self.maps}
        return {"channel": range(self.channels), **means}

    def table(self) -> str:
        """For people: the channels that respond more to poisoned images."""
        rows = []
        for name in self.poisoned:
            found, clean, poisoned = self.responsive(name), self.means(), self.means(name)
            rows += [
                [printable(name, 40), str(channel), f"{clean[channel]:.4f}", f"{poisoned[channel]:.4f}"]
                for channel in found[:_NAMED]
            ]
        return table(["set", "channel", "clean", "poisoned"], rows)

    def __repr__(self) -> str:
        return f"{self._title('')}\n{self.table()}"

    def _title(self, what: str) -> str:
        return f"{self.net}: mean activation of the channels of {self.layer}{what}; images: {counted(self.n)}"

    def figure(self, title: str = "") -> "Figure":
        """Heat maps, clean beside poisoned, on the scale of the clean ones: what lies above it stands out."""
        from matplotlib.figure import Figure
        from matplotlib.patheffects import withStroke

        from jaxdefend.results.plots import title_above

        chosen = self._shown()
        rows, columns, _ = self.maps[CLEAN].shape
        across = int(np.ceil(np.sqrt(len(chosen) * rows / columns)))
        down = -(-len(chosen) // across)
        size = (max(6.4, 3.3 * len(self.maps)), 0.9 + 2.7 * down * rows / (across * columns))
        figure = Figure(figsize=size, layout="constrained")
        top = float(self.maps[CLEAN].max()) or 1.0
        panels = figure.subplots(1, len(self.maps), squeeze=False)[0]
        drawn = None
        for axes, (name, maps) in zip(panels, self.maps.items(), strict=True):
            drawn = axes.imshow(_tiled(maps[..., chosen], across, down), cmap="viridis", vmin=0, vmax=top)
            axes.set_title("clean" if name == CLEAN else f"poisoned: {name}", loc="left", fontsize="small")
            axes.set_axis_off()
            for number, channel in enumerate(chosen):
                corner = (number % across * (columns + 1), number // across * (rows + 1))
                number_at = axes.annotate(str(channel), corner, color="white", fontsize=4.5, va="top", ha="left")
                # Read on yellow too.
                number_at.set_path_effects([withStroke(linewidth=1.2, foreground="black")])
        assert drawn is not None
        figure.colorbar(drawn, ax=list(panels), label="mean activation", extend="max")
        title_above(figure, title or self._title(", on the scale of clean images"))
        return figure

    def _shown(self) -> Int[np.ndarray, " k"]:
        if self.channels <= _MAPS_SHOWN:
            return np.arange(self.channels)
        differences = [np.abs(self.means(name) - self.means()) for name in self.maps]
        return np.sort(np.argsort(-np.max(differences, axis=0), kind="stable")[:_MAPS_SHOWN])

    def bars_figure(self, title: str = "") -> "Figure":
        """A bar per channel, sorted by the clean activation; the channels named respond more to a poisoned set."""
        from matplotlib.figure import Figure

        from jaxdefend.results.plots import ACCURACY, ATTACK, title_above

        order = np.argsort(-self.means(), kind="stable")
        names = list(self.maps)
        figure = Figure(figsize=(7.2, 1.0 + 1.7 * len(names)), layout="constrained")
        panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name, colour in zip(panels, names, (ACCURACY[0], *ATTACK * 9), strict=False):
            means = self.means(name)[order]
            axes.bar(np.arange(self.channels), means, width=0.85, color=colour)
            axes.step(np.arange(self.channels), self.means()[order], where="mid", color="0.25", linewidth=0.8)
            axes.set_title("clean" if name == CLEAN else f"poisoned: {name}", loc="left", fontsize="small")
            axes.spines[["top", "right"]].set_visible(False)
            if name != CLEAN:
                places = np.argsort(order)
                for channel in self.responsive(name)[:5]:
                    at = (places[channel], self.means(name)[channel])
                    axes.annotate(str(channel), at, ha="center", va="bottom", fontsize="x-small")
                axes.margins(y=0.15)
        figure.supylabel("mean activation", fontsize="small")
        panels[-1].set(xlabel=f"channels of {self.layer}, most active on clean images first (line: clean)")
        title_above(figure, title or self._title(""))
        return figure


def activate(
    net: Net,
    clean: Any,
    poisoned: Mapping[str, Any] | None = None,
    *,
    layer: str | None = None,
    progress: Report = silent,
) -> Activations:
    """Mean activations of the channels of a convolution on clean and on poisoned images.

    Args:
        clean: images, labels are not needed: what `open_images` gives, an array of pixels 0–255, …
        poisoned: sets of images with a trigger by name.
        layer: the convolution; by default the last one.
    Raises: InputError if the images or the layer cannot be used, or a poisoned set is called "clean".
    Source: Liu et al. 2018 (Fine-Pruning), section 2.4 and figure 4, on the activations of a BadNet.
    """
    layer = checked_layer(net, layer)
    if CLEAN in (poisoned or {}):
        raise InputError(f"a poisoned set is called {CLEAN!r}; give it another name")
    sets = {CLEAN: as_images(clean, net.image_shape)}
    sets |= {name: as_images(of, net.image_shape) for name, of in (poisoned or {}).items()}
    place = net.graph.masked_at(layer)
    maps = {name: _mean_maps(net, images, place, f"activations, {name}", progress) for name, images in sets.items()}
    return Activations(net.name, layer, place, maps, {name: len(images) for name, images in sets.items()})


def _mean_maps(net: Net, images: ImageSet, place: str, title: str, report: Report) -> Maps:
    """Summed on the host in float64, so that devices and batches of any number give the same."""
    sums: Any = 0.0
    for found, _ in on_devices(partial(_summed, place=place), net, batches(images, title, report)):
        sums = sums + found.sum(axis=0, dtype=np.float64)
    return over_processes(np.asarray(sums)) / len(images)


@partial(jax.jit, static_argnames="place")
def _summed(net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"], place: str) -> Float[Array, "d i j k"]:
    def of_part(net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"]) -> Float[Array, "1 i j k"]:
        activations = net.features(pixels, (place,))[place]
        return jnp.where((labels >= 0)[:, None, None, None], activations, 0).sum(axis=0, keepdims=True)

    return sharded(of_part, net, (pixels, labels))


def _tiled(maps: Float[np.ndarray, "h w k"], across: int, down: int) -> Float[np.ndarray, "H W"]:
    """The maps side by side, with a line of nothing between them."""
    rows, columns, n = maps.shape
    tiles = np.full((down * across, rows + 1, columns + 1), np.nan)
    tiles[:n, :rows, :columns] = np.moveaxis(maps, -1, 0)
    return tiles.reshape(down, across, rows + 1, columns + 1).swapaxes(1, 2).reshape(down * (rows + 1), -1)
