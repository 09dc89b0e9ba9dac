"""Clean accuracy and attack success of nets and their GoodNet: what evaluate and repair count and print."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from jaxdefend import _command

if TYPE_CHECKING:
    from jaxdefend.datasets.batches import Batch, ImageSet
    from jaxdefend.nets.deepid import DeepID

# By net ("badnet", "repaired", "goodnet"), or by the name of a poisoned set.
Blocks = dict[str, dict]

_TITLES = {"badnet": "BadNet", "repaired": "repaired net", "goodnet": "GoodNet"}


def batches(images: "ImageSet", title: str) -> "Iterator[Batch]":
    """This process's part of the images, in batches that suit its devices, with progress on stderr."""
    from jaxdefend.datasets.batches import padded
    from jaxdefend.nets.devices import batch_size, own_rows

    rows = own_rows(len(images))
    return _command.tracked(padded(images, batch_size(), rows), title, rows.stop - rows.start)


def measured(
    nets: "Mapping[str, DeepID]", clean: "ImageSet", poisoned: "Mapping[str, ImageSet]"
) -> tuple[Blocks, dict[str, Blocks]]:
    """On the clean images, and on each poisoned set: a block for every net; with two nets, for their GoodNet too."""
    from jaxdefend.results import rates

    return (
        _on_set(nets, clean, "clean", rates.clean_rate),
        {name: _on_set(nets, images, name, rates.poisoned_rate) for name, images in poisoned.items()},
    )


def _on_set(nets: "Mapping[str, DeepID]", images: "ImageSet", name: str, rate) -> Blocks:
    import numpy as np

    from jaxdefend.defenses.goodnet import goodnet_labels
    from jaxdefend.nets.devices import over_processes, own_rows
    from jaxdefend.nets.inference import predictions
    from jaxdefend.results.rates import flagged_rate

    n, classes = len(images), nets["badnet"].classes
    labels = {key: predictions(net, batches(images, name))[0] for key, net in nets.items()}
    if "repaired" in nets:
        labels["goodnet"] = goodnet_labels(labels["badnet"], labels["repaired"], classes)
    expected = np.asarray(images.labels)[own_rows(n)]
    counts = [(found == expected).sum() for found in labels.values()]
    flagged = (labels["goodnet"] == classes).sum() if "repaired" in nets else 0
    *right, flagged = over_processes(np.array([*counts, flagged])).tolist()
    blocks = {key: rate(count, n) for key, count in zip(labels, right, strict=True)}
    if "repaired" in nets:
        blocks["goodnet"] |= flagged_rate(flagged, n)
    return blocks


def by_net(on_clean: Blocks, on_poisoned: Mapping[str, Blocks]) -> Blocks:
    """The same, net first: {net: {"clean": block, "poisoned": {set: block}}}."""
    return {
        key: {"clean": on_clean[key], "poisoned": {name: blocks[key] for name, blocks in on_poisoned.items()}}
        for key in on_clean
    }


def rates_table(on_clean: Blocks, on_poisoned: Mapping[str, Blocks]) -> str:
    """For people: a row for every set, a column for every net."""

    def row(name: str, blocks: Blocks, count: str) -> list[str]:
        cells = [_command.per_cent(block[count], block["n"]) for block in blocks.values()]
        flags = (
            [_command.per_cent(blocks["goodnet"]["flagged_count"], blocks["goodnet"]["n"])] if len(cells) > 1 else []
        )
        return [name, str(blocks["badnet"]["n"]), *cells, *flags]

    rows = [row("clean accuracy", on_clean, "correct")]
    rows += [row(f"attack success, {name}", blocks, "hits") for name, blocks in on_poisoned.items()]
    header = ["", "images", *(_TITLES[key] for key in on_clean), *(["flagged"] if len(on_clean) > 1 else [])]
    return _command.table(header, rows)
