"""Clean accuracy and attack success of nets and their GoodNet: what evaluate and repair count and print."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from jaxdefend import _command

if TYPE_CHECKING:
    import numpy as np

    from jaxdefend.datasets.batches import Batch, ImageSet
    from jaxdefend.defenses.goodnet import Rule
    from jaxdefend.nets.deepid import DeepID

# By net ("badnet", "b0", "repaired", "repaired_2", …, "goodnet"), or by the name of a poisoned set.
Blocks = dict[str, dict]

_TITLES = {"badnet": "BadNet", "b0": "B0", "repaired": "repaired net", "goodnet": "GoodNet"}


def batches(images: "ImageSet", title: str) -> "Iterator[Batch]":
    """This process's part of the images, in batches that suit its devices, with progress on stderr."""
    from jaxdefend.datasets.batches import BATCH, padded
    from jaxdefend.nets.devices import batch_size, own_rows

    rows = own_rows(len(images))
    n = rows.stop - rows.start
    # A few compiled sizes, powers of two, serve any number of images.
    size = min(batch_size(), max(BATCH, 1 << (n - 1).bit_length()))
    return _command.tracked(padded(images, size, rows), title, n)


def measured(
    nets: "Mapping[str, DeepID]",
    clean: "ImageSet",
    poisoned: "Mapping[str, ImageSet]",
    rule: "Rule" = "goodnet",
    true_labels: "Mapping[str, np.ndarray] | None" = None,
) -> tuple[Blocks, dict[str, Blocks]]:
    """On the clean images, and on each poisoned set: a block for every net; with two or more, for their GoodNet too.

    Args:
        nets: where there is a "b0", the GoodNet has it in place of the BadNet.
        true_labels: of the poisoned sets of which they are known, what the images really show.
    """
    from jaxdefend.results import rates

    on_poisoned = {}
    for name, images in poisoned.items():
        labels = _labels(nets, images, name, rule)
        on_poisoned[name] = _blocks(labels, images, rates.poisoned_rate)
        if (true := (true_labels or {}).get(name)) is not None:
            for key, count in _matches(labels, true).items():
                on_poisoned[name][key] |= rates.robust_rate(count, len(images))
    return _blocks(_labels(nets, clean, "clean", rule), clean, rates.clean_rate), on_poisoned


def _labels(nets: "Mapping[str, DeepID]", images: "ImageSet", name: str, rule: "Rule") -> "dict[str, np.ndarray]":
    """Of this process's part of the images."""
    import numpy as np

    from jaxdefend.defenses.goodnet import goodnet_labels
    from jaxdefend.nets.inference import predictions

    classes = nets["badnet"].classes
    labels = {key: predictions(net, batches(images, name))[0] for key, net in nets.items()}
    if "repaired" in nets:
        repaired = [found for key, found in labels.items() if key not in ("badnet", "b0")]
        labels["goodnet"] = goodnet_labels(_suspected(labels), np.stack(repaired), classes, rule)
    return labels


def _suspected(labels: "Mapping[str, np.ndarray]") -> "np.ndarray":
    """The labels that the GoodNet gives where it does not answer N."""
    return labels.get("b0", labels["badnet"])


def _blocks(labels: "Mapping[str, np.ndarray]", images: "ImageSet", rate: Callable[[int, int], dict]) -> Blocks:
    import numpy as np

    from jaxdefend.nets.devices import over_processes
    from jaxdefend.results.rates import flagged_rate

    n = len(images)
    blocks = {key: rate(count, n) for key, count in _matches(labels, np.asarray(images.labels)).items()}
    if "goodnet" in labels:
        # No other net says N.
        flagged = over_processes((labels["goodnet"] != _suspected(labels)).sum())
        blocks["goodnet"] |= flagged_rate(int(flagged), n)
    return blocks


def _matches(labels: "Mapping[str, np.ndarray]", expected: "np.ndarray") -> dict[str, int]:
    """How many of all images each net gives the label expected, over all processes."""
    import numpy as np

    from jaxdefend.nets.devices import over_processes, own_rows

    own = expected[own_rows(len(expected))]
    counts = np.array([(found == own).sum() for found in labels.values()])
    return dict(zip(labels, over_processes(counts).tolist(), strict=True))


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
    header = [
        "",
        "images",
        *(_TITLES.get(key, key.replace("_", " net ")) for key in on_clean),
        *(["flagged"] if len(on_clean) > 1 else []),
    ]
    return _command.table(header, rows)
