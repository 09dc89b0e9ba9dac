"""What detectors do to an image: STRIP lays other images over it, the channel masks take most of its channels away."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, UInt8

from jaxdefend.datasets.images import as_images
from jaxdefend.detectors import Masks, Persistence, Strip, blend_of
from jaxdefend.detectors.base import keys
from jaxdefend.detectors.masks import random_masks
from jaxdefend.detectors.strip import overlay_images, superimpositions
from jaxdefend.nets.channels import beside, masked_logits
from jaxdefend.nets.inference import labels_and_confidences, largest
from jaxdefend.nets.net import Net
from jaxdefend.reports.samples import plain, show
from jaxdefend.results.text import narrow, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = "clean"


@dataclass(frozen=True, repr=False)
class Demonstration:
    """One image of each set, and what the net calls it under each perturbation.

    Attributes:
        net: its name.
        what: "overlays" or "masks".
        images: by set, as they are; `labels` what the net calls them.
        under: by set, what the net calls it under each perturbation.
        perturbations: the overlays, or the masks as 0/1 per channel.
        shown: of overlays, by set, what the net is shown.
    """

    net: str
    what: str
    images: Mapping[str, UInt8[np.ndarray, "h w c"]]
    labels: Mapping[str, int]
    under: Mapping[str, Int[np.ndarray, " p"]]
    perturbations: np.ndarray
    shown: Mapping[str, UInt8[np.ndarray, "p h w c"]] | None = None

    def kept(self, name: str) -> int:
        """Under how many perturbations the net keeps its label."""
        return int((self.under[name] == self.labels[name]).sum())

    def record(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "labels": dict(self.labels),
            "under": dict(self.under),
            "kept": {name: self.kept(name) for name in self.labels},
        }

    def table(self) -> str:
        rows = [
            [
                name,
                str(label),
                f"{self.kept(name)} of {len(self.under[name])}",
                " ".join(map(str, self.under[name][:8])),
            ]
            for name, label in self.labels.items()
        ]
        return table(["image", "label", f"kept under {self.what}", "labels under them"], rows)

    def __repr__(self) -> str:
        return self.table()

    def figure(self, title: str = "") -> "Figure":
        """A row per set: the image with its label, then each perturbation with what the net says."""
        from matplotlib.figure import Figure

        across = 1 + min(8, len(self.perturbations))
        with_heads = self.what == "overlays"
        lines = len(self.images) + with_heads
        figure = Figure(figsize=(1.05 * across, 0.5 + 1.5 * lines), layout="constrained")
        grid = figure.subplots(lines, across, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        if with_heads:
            for axes, overlay in zip(grid[0, 1:], self.perturbations, strict=False):
                show(axes, overlay)
                axes.set_title("overlay", fontsize="x-small")
        for line, (name, image) in zip(grid[with_heads:], self.images.items(), strict=True):
            show(line[0], image)
            line[0].set_title(f"{narrow(name)}:\n{self.labels[name]}", fontsize="x-small")
            for number, axes in enumerate(line[1:]):
                label = int(self.under[name][number])
                if self.shown is not None:
                    show(axes, self.shown[name][number])
                else:
                    axes.imshow(_squares(self.perturbations[number]), cmap="gray", vmin=0, vmax=1)
                kept = label == self.labels[name]
                axes.set_title(str(label), fontsize="x-small", fontweight="bold" if kept else "normal")
        told = "under other images (STRIP)" if with_heads else "with most channels masked (white: kept)"
        figure.suptitle(title or f"{self.net}: labels {told}; bold: kept", x=0.01, ha="left", fontsize="small")
        return figure


def _squares(mask: np.ndarray) -> np.ndarray:
    """The mask as a near-square picture."""
    across = int(np.ceil(np.sqrt(len(mask))))
    found = np.full(across * -(-len(mask) // across), np.nan)
    found[: len(mask)] = mask
    return found.reshape(-1, across)


def under_overlays(
    net: Net,
    clean: Any,
    poisoned: Mapping[str, Any] | None = None,
    *,
    settings: Strip = Strip(overlays=8),  # noqa: B008
) -> Demonstration:
    """One image of each set under the same clean images.

    Args:
        clean: clean images; the overlays are drawn from them too.
        settings: how many overlays, and how they are superimposed.
    """
    images = _examples(net, clean, poisoned)
    pool = overlay_images(as_images(clean, net.image_shape))
    pool = pool[(plain(pool) != images[CLEAN]).any(axis=(1, 2, 3))] if len(pool) > 1 else pool
    overlays = pool[:: max(1, len(pool) // settings.overlays)][: settings.overlays]
    seen, under, labels = {}, {}, {}
    for name, image in images.items():
        shown = np.concatenate(
            [image[None].astype(np.float32), superimpositions(image, overlays, blend_of(settings.blend))]
        )
        found = np.asarray(labels_and_confidences(net, shown)[0])
        labels[name], under[name] = int(found[0]), found[1:]
        # Half as bright, so that sums above 255 can be seen.
        seen[name] = plain(shown[1:] / 2)
    return Demonstration(net.name, "overlays", images, labels, under, overlays, seen)


def under_masks(
    net: Net,
    clean: Any,
    poisoned: Mapping[str, Any] | None = None,
    *,
    settings: Masks | Persistence = Persistence(),  # noqa: B008
    seed: int = 0,
) -> Demonstration:
    """One image of each set under the random channel masks of a detector."""
    masks = random_masks(keys(seed)[0], net, settings.masks, settings.keep)
    images = _examples(net, clean, poisoned)
    labels, under = {}, {}
    for name, image in images.items():
        plainly, masked = _masked_labels(net, image[None], masks, net.graph.masked_at(net.last_convolution))
        labels[name], under[name] = int(plainly), np.asarray(masked)
    return Demonstration(net.name, "masks", images, labels, under, np.asarray(masks))


def _examples(net: Net, clean: Any, poisoned: Mapping[str, Any] | None) -> dict[str, UInt8[np.ndarray, "h w c"]]:
    """The first image of each set; of the clean ones the first that shows no attacker's target, which would look like
    one on which the attack succeeds."""
    sets = {name: as_images(images, net.image_shape) for name, images in {CLEAN: clean, **(poisoned or {})}.items()}
    targets = [images.labels for name, images in sets.items() if name != CLEAN and images.labels is not None]
    rows = dict.fromkeys(sets, 0)
    if targets and sets[CLEAN].labels is not None:
        rows[CLEAN] = int(np.argmax(~np.isin(np.asarray(sets[CLEAN].labels), np.concatenate(targets))))
    return {name: plain(sets[name][row : row + 1])[0] for name, row in rows.items()}


@partial(jax.jit, static_argnames="place")
def _masked_labels(
    net: Net, pixels: Num[Array, "1 h w c"], masks: Float[Array, "m k"], place: str
) -> tuple[Array, Array]:
    known = net.features(pixels, (place, *beside(net.graph, place)))
    activations = known.pop(place)
    plainly = largest(net.logits({place: activations} | known))[0]
    others = jax.tree.map(lambda values: values[0], known)
    return plainly, largest(jnp.asarray(masked_logits(net, place, activations[0], others, masks)))
