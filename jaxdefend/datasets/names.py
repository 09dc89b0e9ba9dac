"""Labels that stand in the names of pictures, and numbers that only look like labels."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from jaxdefend import InputError
from jaxdefend.datasets.sources import shown
from jaxdefend.results.text import printable

NUMBER = r"-?[0-9]{1,18}(?:\.0*)?"
_PIECE = re.compile(rf"(?:[A-Za-z]+=)?({NUMBER})")
_NAMED = re.compile(rf"(?<![A-Za-z])(?:label|class|target)s?[=_ -]?({NUMBER})(?![.]?[0-9])", re.IGNORECASE)
# Where more labels than this share differ, there is about one image for each: a count, not a label.
_NEARLY_ALL = 0.9


def whole(text: str) -> int | None:
    """The whole number that a text is, 5.0 too."""
    return int(text.partition(".")[0]) if re.fullmatch(NUMBER, text) else None


def labels_in_names(title: str, paths: Sequence[Path], source: str) -> tuple[list[int], tuple[str, ...]]:
    """The label in each name, and what the user should know.

    Args:
        title: what the set is called, for the error.
        source: "names:K": the K-th number between underscores, as in `test_<label>_<index>.png`; "names": what stands
            behind "label", "class" or "target", else the first number; "auto": the same, unless the numbers look like a
            running index.
    Raises: InputError if a name has no such number, or the numbers are not believable.
    """
    position = int(source.partition(":")[2] or 1)
    numbers = [_numbers(path) for path in paths]
    named = [None if ":" in source else _named(path) for path in paths]
    for path, found, label in zip(paths, numbers, named, strict=True):
        if label is None and len(found) < position:
            raise InputError(
                f"{shown(path)}: no label: expected {position} or more numbers between underscores, as in "
                "test_<label>_<index>.png; or use a labels.csv, class subfolders or target=…"
            )
    labels = [found[position - 1] if label is None else label for found, label in zip(numbers, named, strict=True)]
    counted = [index for index, label in enumerate(named) if label is None]
    index = _running([paths[i] for i in counted], [numbers[i] for i in counted], position)
    if index is None:
        return labels, ()
    example = printable(paths[counted[index]].name, 60)
    span = f"{min(labels)}…{max(labels)}"
    if source != "auto":
        return labels, (
            f"{title}: labels {span} from names such as {example} look like a running index; used as requested",
        )
    second = len(numbers[counted[index]]) > 1
    other = "labels='names:2' to take the second number" if second else "labels='names' to use them anyway"
    raise InputError(
        f"{title}: the numbers {span} in names such as {example} look like a running index, not labels; pass target=… "
        f"if all images share one label, add a labels.csv or class subfolders, or pass {other}"
    )


def _numbers(path: Path) -> list[int]:
    pieces = path.stem.split("_")
    found = (_PIECE.fullmatch(piece) for piece in pieces) if len(pieces) > 1 else ()
    return [int(match[1].partition(".")[0]) for match in found if match]


def _named(path: Path) -> int | None:
    match = _NAMED.search(path.stem)
    return int(match[1].partition(".")[0]) if match else None


def _running(paths: Sequence[Path], numbers: Sequence[Sequence[int]], position: int) -> int | None:
    """The first of the names whose number is an index by all appearances; None if there is none."""
    n = len(paths)
    labels = [found[position - 1] for found in numbers]
    distinct = set(labels)
    if len(distinct) < 2:
        return None
    alone = [index for index, found in enumerate(numbers) if len(found) == 1]
    if 2 * len(alone) >= n:
        # Names that are the same but for their only number are told apart by it: it counts them.
        alike = defaultdict(set)
        for index in alone:
            alike[paths[index].parent, re.sub(r"[0-9]+", "#", paths[index].stem)].add(labels[index])
        counted = sum(len(group) for group in alike.values() if len(group) > 1)
        return alone[0] if 2 * counted >= n or len(distinct) >= _NEARLY_ALL * n else None
    consecutive = len(distinct) == n and max(labels) - min(labels) == n - 1
    last = {found[-1] for found in numbers}
    return 0 if consecutive and position == 1 and 2 * len(last) <= n else None
