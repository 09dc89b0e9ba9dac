"""A few faces along the pruning curve: what B, B′ and the GoodNet answer at every number of pruned channels."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int32, Num, UInt8

from jaxdefend.datasets.images import as_images, labelled
from jaxdefend.nets.channels import beside
from jaxdefend.nets.goodnet import goodnet_labels
from jaxdefend.nets.inference import largest
from jaxdefend.nets.net import Net
from jaxdefend.repairs.curve import nested_masks
from jaxdefend.repairs.sweeping import Sweep
from jaxdefend.reports.samples import plain, spread_rows
from jaxdefend.results.text import table

CLEAN = "clean"


@dataclass(frozen=True)
class Face:
    """One image along the curve.

    Attributes:
        label: the true one of a clean image, the attacker's target of a poisoned one.
        badnet: what B says.
        answers: what B′ says with 0, 1, … C channels pruned.
    """

    pixels: UInt8[np.ndarray, "h w c"]
    set: str
    name: str
    label: int
    badnet: int
    answers: Int[np.ndarray, " m"]


@dataclass(frozen=True, repr=False)
class Walk:
    """Images along the curve of a sweep; `classes` is the GoodNet's answer "backdoored"."""

    layer: str
    classes: int
    faces: tuple[Face, ...]
    drops: Mapping[str, int]

    def goodnet(self, face: Face) -> Int[np.ndarray, " m"]:
        """What the GoodNet says at every number of pruned channels."""
        return goodnet_labels(np.full(len(face.answers), face.badnet), face.answers[None], self.classes)

    def record(self) -> dict[str, Any]:
        faces = [{key: value for key, value in vars(face).items() if key != "pixels"} for face in self.faces]
        return {"layer": self.layer, "classes": self.classes, "faces": faces, "drops": dict(self.drops)}

    def table(self) -> str:
        """For people: what B′ says of each image at each drop."""
        rows = [
            [f"{face.set} {face.label}", str(face.badnet), *(str(face.answers[k]) for k in self.drops.values())]
            for face in self.faces
        ]
        return table(["image", "B", *(f"B′ at drop {drop}" for drop in self.drops)], rows)

    def __repr__(self) -> str:
        return self.table()


def walk(sweep: Sweep, clean: Any, poisoned: Mapping[str, Any] | None = None, *, n: int = 12) -> Walk:
    """`n` clean images and `n` of every poisoned set, evenly spread over each.

    With several poisoned sets, each has a part of the `n`.
    """
    net = sweep.net
    parts = {CLEAN: (clean, n)} | {name: (of, -(-n // len(poisoned or {}))) for name, of in (poisoned or {}).items()}
    faces = []
    for name, (of, some) in parts.items():
        images = labelled(as_images(of, net.image_shape), name)
        rows = spread_rows(len(images), some)
        pixels = np.concatenate([images[row : row + 1] for row in rows])
        found = np.asarray(_labels_along(net, pixels, nested_masks(sweep.order), sweep.layer))
        labels = np.asarray(images.labels)
        faces += [
            Face(plain(pixel), name, images.names[row], int(labels[row]), int(answers[0]), answers[1:])
            for pixel, row, answers in zip(pixels, rows, found, strict=True)
        ]
    drops = {str(drop.points): drop.pruned for drop in sweep.repaired}
    return Walk(sweep.layer, net.classes, tuple(faces), drops)


@partial(jax.jit, static_argnames="layer")
def _labels_along(
    net: Net, pixels: Num[Array, "n h w c"], masks: Float[Array, "m k"], layer: str
) -> Int32[Array, "n m+1"]:
    """The net's label of each image, and its label under each mask."""
    place = net.graph.masked_at(layer)
    known = net.features(pixels, (place, *beside(net.graph, place)))

    def under(mask: Float[Array, " k"]) -> Int32[Array, " n"]:
        return largest(net.logits(known | {place: known[place] * mask}))

    return jax.numpy.concatenate([largest(net.logits(known))[None], lax.map(under, masks)]).T
