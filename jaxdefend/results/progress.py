"""How long work is going, for whoever shows it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple


class Progress(NamedTuple):
    """`done` of `total` units of the work called `title`; at the end of an epoch, `message` is a line for people."""

    title: str
    done: int
    total: int
    unit: str = "images"
    message: str = ""


# What long work calls as it goes on. It may raise `Interrupted` to stop the work.
Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Shows nothing."""


def tracked(batches: Iterable[tuple[Any, Any]], title: str, total: int, report: Report) -> Iterator[tuple[Any, Any]]:
    """The batches; after each one, `report` hears how many of the `total` images are done."""
    done = 0
    for pixels, labels in batches:
        yield pixels, labels
        done = min(done + len(pixels), total)
        report(Progress(title, done, total))
