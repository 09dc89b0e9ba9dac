"""Pictures of the data: what clean images look like, and what each trigger makes of them."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from jaxdefend.datasets.images import as_images
from jaxdefend.results.text import narrow, printable, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = UInt8[np.ndarray, "n h w c"]


@dataclass(frozen=True, repr=False)
class Samples:
    """Some images of every set, evenly spread.

    Attributes:
        net: the name of the net that they are for.
        pixels: by set, "clean" first.
        labels: of those images; None for a set without labels.
        n: how many images each set has.
    """

    net: str
    pixels: Mapping[str, Pixels]
    labels: Mapping[str, np.ndarray | None]
    n: Mapping[str, int]

    def record(self) -> dict[str, Any]:
        return {"n": dict(self.n), "labels": dict(self.labels)}

    def table(self) -> str:
        return table(["set", "images"], [[name, f"{n:,}"] for name, n in self.n.items()])

    def __repr__(self) -> str:
        return self.table()

    def figure(self, title: str = "") -> "Figure":
        """A row per set, the label under each image."""
        from matplotlib.figure import Figure

        across = max(map(len, self.pixels.values()))
        figure = Figure(figsize=(1.4 + 0.95 * across, 0.5 + 1.4 * len(self.pixels)), layout="constrained")
        for line, (name, pixels) in zip(
            figure.subplots(len(self.pixels), across, squeeze=False), self.pixels.items(), strict=True
        ):
            labels = self.labels[name]
            for number, axes in enumerate(line):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if number < len(pixels):
                    show(axes, pixels[number])
                    if labels is not None:
                        axes.set_xlabel(str(labels[number]), fontsize="x-small")
            line[0].set_ylabel(f"{narrow(name, 24)}\n{self.n[name]:,} images", fontsize="x-small")
        figure.suptitle(
            title or f"{self.net}: samples of each set, with their labels", x=0.01, ha="left", fontsize="medium"
        )
        return figure


def sample(net: Any, clean: Any, poisoned: Mapping[str, Any] | None = None, *, n: int = 8) -> Samples:
    """`n` images of every set, evenly spread over it."""
    sets = {"clean": clean, **(poisoned or {})}
    pixels, labels, sizes = {}, {}, {}
    for name, of in sets.items():
        images = as_images(of, net.image_shape)
        rows = spread_rows(len(images), n)
        pixels[name] = np.concatenate([plain(images[row : row + 1]) for row in rows])
        labels[name] = None if images.labels is None else np.asarray(images.labels)[rows]
        sizes[name] = len(images)
    return Samples(net.name, pixels, labels, sizes)


def spread_rows(total: int, n: int) -> list[int]:
    """At most `n` of `total` rows, evenly spread."""
    n = min(n, total)
    return [int(row) for row in (np.arange(n) * total) // max(1, n)]


def counted(n: Mapping[str, int]) -> str:
    """For a title: how many images of each set, the clean ones by their own name."""
    return ", ".join(
        f"{size:,} {name if name == 'clean' else f'with {printable(name, 40)}'}" for name, size in n.items()
    )


def wrapped(title: str, width: int = 80) -> str:
    """A title in lines that fit a figure."""
    return textwrap.fill(title, width)


def plain(pixels: np.ndarray) -> UInt8[np.ndarray, "*n h w c"]:
    """Pixels for a picture."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def show(axes: Any, pixels: np.ndarray) -> None:
    """An image in matplotlib axes, grey or RGB."""
    if pixels.shape[-1] == 1:
        axes.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255)
    else:
        axes.imshow(pixels)
