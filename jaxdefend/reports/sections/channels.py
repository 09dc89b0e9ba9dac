"""What the channels respond to, and what detectors do to an image."""

import numpy as np

from jaxdefend.reports.activations import CLEAN, Activations
from jaxdefend.reports.blocks import (
    Block,
    Charts,
    Picture,
    Pictures,
    Table,
    Text,
    rows,
    uri,
)
from jaxdefend.reports.charts import (
    attack,
    channel_chart,
)
from jaxdefend.reports.demonstrations import Demonstration
from jaxdefend.reports.facts import Facts
from jaxdefend.results.text import printable


def activation_blocks(facts: Facts) -> list[Block]:
    blocks: list[Block] = []
    for found in facts.activations:
        order = np.argsort(-found.means(), kind="stable")
        layer = printable(found.layer, 60)
        silent = len(found.silent())
        text = (
            f"Mean activation of the {found.channels} channels of {layer}, read behind {printable(found.place, 60)}. "
            f"{silent} of them are zero on all clean images."
        )
        for name in found.poisoned:
            more = found.responsive(name)
            if len(more):
                top = ", ".join(map(str, more[:8].tolist()))
                text += f" On images with {printable(name, 40)}, {len(more)} respond more than on clean ones, "
                text += f"most of all {top}."
        clean = found.means()[order].tolist()
        channels = order.tolist()
        sizes = found.n
        charts = [channel_chart(clean, None, channels, "valid", f"{layer}: {sizes[CLEAN]:,} clean images.")]
        for number, name in enumerate(found.poisoned):
            caption = f"{layer}: {sizes[name]:,} images with {printable(name, 40)}; the line is that of clean images."
            charts.append(channel_chart(clean, found.means(name)[order].tolist(), channels, attack(number), caption))
        heats = [
            Picture(
                heat_map(found, name),
                f"heat maps of the channels of {layer} on {'clean images' if name == CLEAN else printable(name, 40)}",
                "clean" if name == CLEAN else f"with {printable(name, 40)}",
            )
            for name in found.maps
        ]
        scale = (
            f"Dark is zero, yellow {float(found.maps[CLEAN].max()):.3g} and above: the highest mean on clean images."
        )
        table = [
            [channel, *(float(found.means(name)[channel]) for name in found.maps)]
            + [float(found.means(name)[channel] - found.means()[channel]) for name in found.poisoned]
            for channel in range(found.channels)
        ]
        header = ["channel", *("clean" if name == CLEAN else f"with {name}" for name in found.maps)]
        header += [f"difference, {name}" for name in found.poisoned]
        blocks += [
            Text(text),
            Charts(charts),
            Pictures("Heat maps of the mean activation, a small map per channel", heats, scale, wide=True),
            Table(f"Mean activation of every channel of {layer}", header, rows(table), folded=True),
        ]
    for demonstration in facts.demonstrations:
        blocks += _demonstration(demonstration)
    return blocks


def heat_map(found: Activations, name: str) -> str:
    """The maps of all channels side by side, on the scale of the clean ones, inside the page."""
    from matplotlib import colormaps

    maps, clean = found.maps[name], found.maps[CLEAN]
    rows_, columns, channels = maps.shape
    across = max(1, int(np.ceil(np.sqrt(channels * rows_ / columns))))
    down = -(-channels // across)
    tiles = np.full((down * across, rows_ + 1, columns + 1), np.nan)
    tiles[:channels, :rows_, :columns] = np.moveaxis(maps, -1, 0)
    flat = tiles.reshape(down, across, rows_ + 1, columns + 1).swapaxes(1, 2).reshape(down * (rows_ + 1), -1)
    coloured = colormaps["viridis"](np.clip(flat / (float(clean.max()) or 1.0), 0, 1), bytes=True)[..., :3]
    coloured[np.isnan(flat)] = 255
    return uri(np.ascontiguousarray(coloured), is_photo=False)


def _demonstration(found: Demonstration) -> list[Block]:
    blocks: list[Block] = []
    shown = min(8, len(found.perturbations))
    for name, image in found.images.items():
        what = "a clean image" if name == CLEAN else f"an image with {printable(name, 40)}"
        label, under = found.labels[name], found.under[name]
        pictures = [Picture(uri(image), f"{what}: the net answers {label}", f"as it is: {label}")]
        if found.shown is not None:
            pictures += [
                Picture(uri(found.shown[name][k]), f"{what} under another image: {under[k]}", str(under[k]))
                for k in range(shown)
            ]
        kept = f"{found.kept(name)} of {len(under)}"
        if found.what == "overlays":
            heading = f"STRIP: {what} under other clean images"
            note = f"Under each the net's answer. It keeps its label under {kept}."
            note += "" if name == CLEAN else " A trigger shows through what is laid over it."
        else:
            heading = f"Masks: {what} with most channels masked"
            note = f"Each mask with the net's answer; white channels are kept. It keeps its label under {kept} masks."
            pictures += [
                Picture(_mask(found.perturbations[k]), f"{what} under a mask: {under[k]}", str(under[k]))
                for k in range(shown)
            ]
        blocks.append(Pictures(heading, pictures, note))
    return blocks


def _mask(mask: np.ndarray) -> str:
    """The channels of a mask as squares, white where they are kept."""
    across = int(np.ceil(np.sqrt(len(mask))))
    squares = np.full(across * -(-len(mask) // across), 128, np.uint8)
    squares[: len(mask)] = 255 * (np.asarray(mask) > 0)
    return uri(np.repeat(np.repeat(squares.reshape(-1, across, 1), 8, axis=0), 8, axis=1), is_photo=False)
