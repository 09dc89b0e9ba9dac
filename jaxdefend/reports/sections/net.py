"""The net and the images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdefend.reports.activations import CLEAN
from jaxdefend.reports.blocks import (
    Block,
    Cell,
    Drawing,
    Picture,
    Pictures,
    Table,
    Text,
    rows,
    uri,
)
from jaxdefend.reports.facts import Facts
from jaxdefend.results.text import printable

# Lines of a table that stand open; longer ones are folded.
OPEN = 25


def net_blocks(facts: Facts) -> list[Block]:
    lines: list[Sequence[object]] = []
    if facts.name:
        lines.append(["file", facts.name])
    if facts.sha256:
        lines.append(["sha256", facts.sha256])
    if facts.input_scale:
        lines.append(["input scale", facts.input_scale])
    summary = facts.summary
    if summary is None:
        return [Table("What is known of the net", ["", ""], rows(lines))] if lines else []
    lines += [["file format", summary.format]] if summary.format else []
    lines += [
        ["images", "×".join(map(str, summary.image_shape)) + " (rows × columns × channels)"],
        ["classes", f"{summary.classes:,}"],
        ["parameters", f"{summary.parameters:,}"],
        ["multiply-adds per image", f"{summary.multiply_adds:,}"],
    ]
    layers = [
        [
            layer.name,
            layer.kind,
            " + ".join(layer.reads) or "the images",
            Cell(layer.size, float(np.prod(layer.shape))),
            layer.parameters,
            Cell("–") if layer.zero is None else Cell(f"{layer.zero} of {layer.channels}", float(layer.zero)),
            layer.multiply_adds,
        ]
        for layer in summary.layers
    ]
    header = ["layer", "kind", "reads", "shape", "parameters", "zero channels", "multiply-adds"]
    return [
        Table("What is known of the net", ["", ""], rows(lines)),
        *map(Text, summary.found),
        Table("Layers", header, rows(layers), folded=len(layers) > OPEN),
        Drawing(summary.svg(), f"The graph of {printable(facts.name, 80)}: blue convolutions, orange dense layers."),
    ]


def data_blocks(facts: Facts) -> list[Block]:
    sizes: dict[str, tuple[int, str]] = {}
    if facts.sweep:
        n = facts.sweep["n"]
        sizes["validation"] = (int(n["valid"]), "clean; order, drops and thresholds go by them")
        if facts.sweep["valid_accuracy"] != facts.sweep["test_accuracy"] or n["valid"] != n["test"]:
            sizes["test"] = (int(n["test"]), "clean; what is reported")
        for name, size in n["poisoned"].items():
            sizes[str(name)] = (int(size), "with a trigger, labelled with the attacker's target")
    elif facts.badnet:
        sizes["clean"] = (facts.badnet.clean.n, "what is reported")
        sizes |= {
            name: (rate.n, "with a trigger, labelled with the attacker's target")
            for name, rate in facts.badnet.poisoned.items()
        }
    blocks: list[Block] = []
    if sizes:
        blocks.append(
            Table(
                "Sets of images", ["set", "images", "what they are"], rows([[k, n, w] for k, (n, w) in sizes.items()])
            )
        )
    if facts.samples:
        for name, pixels in facts.samples.pixels.items():
            labels = facts.samples.labels[name]
            what = "clean images" if name == CLEAN else f"images with {printable(name, 60)}"
            blocks.append(
                Pictures(
                    what[0].upper() + what[1:],
                    [
                        Picture(
                            uri(image),
                            f"{what[:-1] if name == CLEAN else what}, label {_of(labels, k)}",
                            _of(labels, k),
                        )
                        for k, image in enumerate(pixels)
                    ],
                    "Under each image its label." if name == CLEAN else "Under each image the attacker's target.",
                )
            )
    return blocks


def _of(labels: Any, k: int) -> str:
    return "–" if labels is None else str(labels[k])
