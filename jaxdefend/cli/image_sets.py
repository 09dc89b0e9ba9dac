"""Sets of images as the commands' arguments name them: clean, poisoned, or the synthetic faces of a shipped net."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxdefend import InputError
from jaxdefend.cli import terminal
from jaxdefend.cli.path_kinds import exists, expanded, is_folder, kind_of
from jaxdefend.results.progress import Report
from jaxdefend.results.text import printable

if TYPE_CHECKING:
    from jaxdefend.datasets.files import Images
    from jaxdefend.datasets.images import ImageSet
    from jaxdefend.datasets.triggered import Triggered
    from jaxdefend.nets.net import Net

# Files that are a set of their own; pictures stand together.
_SETS = (".h5", ".hdf5", ".npz", ".npy", ".gz")


def open_set(
    paths: Sequence[str],
    net: "Net",
    option: str = "",
    *,
    labels: str = "auto",
    target: int | None = None,
    labelled: bool = True,
) -> "Images":
    """A set of images for this net; says what was resized or left out."""
    return open_images_of(
        paths, net.image_shape, option, labels=labels, target=target, classes=net.classes, labelled=labelled
    )


def open_images_of(paths: Sequence[str], shape: tuple[int, int, int], option: str = "", **how: Any) -> "Images":
    """A set of images of this shape; says what was resized or left out.

    Args:
        option: that names the paths.
        how: what else `datasets.files.open_images` takes.
    """
    from jaxdefend.datasets.files import open_images

    try:
        images = open_images(expanded(paths), shape=shape, **how)
    except InputError as error:
        for path in paths:
            if kind_of(path) == "net":
                what = f"{option} expects images" if option else "expected images here"
                raise InputError(f"{printable(path, 100)}: is a net; {what}") from error
        raise InputError(_with_options(str(error))) from error
    for line in images.notes:
        terminal.note(_with_options(line))
    return images


def _with_options(message: str) -> str:
    """Where the library speaks of a target or of where labels come from, the option."""
    if "--" in message:
        return message
    found = [option for word, option in (("target", "--target"), ("labels", "--labels")) if re.search(word, message)]
    return f"{message}; see {' and '.join(found)}" if found else message


def warn_of_doubts(notes: Sequence[str]) -> None:
    """What may be wrong with labels or pixels, with the option that mends it."""
    for line in notes:
        terminal.warn(re.sub(r"Then the target is (\d+)", r"Then give --target \1", line))


# Poisoned sets


def open_poisoned(
    groups: Sequence[Sequence[str]], targets: Sequence[str], net: "Net", labels: str, clean: "Images | None"
) -> "dict[str, ImageSet]":
    """The poisoned sets by name; the file of an inverted trigger stands for the clean images with it on."""
    from jaxdefend.datasets.inverted import is_trigger

    sets = named_sets(groups)
    wanted = _targets(targets, list(sets), net.classes)
    found: dict[str, Any] = {}
    for name, paths in sets.items():
        if any(map(is_trigger, paths)):
            found[name] = _triggered(paths, wanted[name], net, clean)
        elif holding := next(filter(_holds_triggers, paths), None):
            shown = printable(holding, 100)
            raise InputError(f"--poisoned {shown}: a folder of triggers; name the files, {shown}/class_N.h5")
        else:
            found[name] = open_set(paths, net, "--poisoned", labels=labels, target=wanted[name])
    return found


def _triggered(paths: Sequence[str], target: int | None, net: "Net", clean: "Images | None") -> "Triggered":
    from jaxdefend.datasets.inverted import InvertedTrigger, is_trigger
    from jaxdefend.datasets.triggered import with_trigger

    shown = printable(next(filter(is_trigger, paths)), 100)
    if len(paths) > 1:
        raise InputError(f"--poisoned {shown}: a trigger beside other files in one set; give it alone, as NAME={shown}")
    if clean is None:
        raise InputError(f"--poisoned {shown}: a trigger, and no clean images to put it on")
    trigger = InvertedTrigger.load(paths[0], net.image_shape)
    try:
        found = with_trigger(trigger, clean, target)
    except InputError as error:
        raise InputError(_with_options(f"{shown}: {error}")) from error
    if found.target >= net.classes:
        raise InputError(f"{shown}: for the class {found.target}, expected 0…{net.classes - 1}; see --target")
    terminal.note(
        f"{shown}: an inverted trigger, on {len(found):,} clean images that do not show {found.target}; it was made to "
        "mislead a net, so that it succeeds is no proof of a backdoor"
    )
    return found


def _holds_triggers(path: str) -> bool:
    from jaxdefend.datasets.inverted import is_trigger

    return is_folder(Path(path)) and any(is_trigger(each) for each in sorted(Path(path).iterdir())[:4])


def named_sets(groups: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """The sets of --poisoned: one for each file or folder, or for pictures that follow one another; NAME= calls one
    NAME and joins what follows it in the same --poisoned."""
    sets: dict[str, list[str]] = {}

    def begin(name: str, paths: list[str]) -> str:
        if name in sets:
            shown = printable(name, 100)
            raise InputError(f"--poisoned: two sets are called {shown!r}; call them apart with NAME=DATA")
        sets[name] = paths
        return name

    for group in groups:
        name, joins = "", False
        for value in group:
            begins, equals, path = value.partition("=")
            if equals and not re.search(r"[/\\]", begins) and not exists(value):
                if not (begins and path):
                    raise InputError(f"--poisoned {printable(value, 100)}: expected NAME=DATA")
                name, joins = begin(begins, expanded([path])), True
                continue
            for each in expanded([value]):
                if joins or (name and _is_picture(each) and _is_picture(sets[name][-1])):
                    sets[name].append(each)
                else:
                    name = begin(Path(each).stem or each, [each])
    return sets


def _is_picture(path: str) -> bool:
    from jaxdefend.datasets.inverted import is_trigger

    found = Path(path)
    may_be = bool(found.suffix) and found.suffix.lower() not in _SETS and not is_folder(found)
    return may_be and not is_trigger(found)


def _targets(values: Sequence[str], names: Sequence[str], classes: int) -> dict[str, int | None]:
    targets: dict[str, int | None] = dict.fromkeys(names)
    for value in values:
        name, equals, number = value.rpartition("=")
        shown = printable(value, 60)
        if equals and name not in targets:
            there = printable(", ".join(names) or "none", 200)
            raise InputError(f"--target {shown}: no poisoned set is called {printable(name, 60)!r}; there are {there}")
        if not re.fullmatch("[0-9]{1,9}", number) or int(number) >= classes:
            raise InputError(f"--target {shown}: expected a class of the net, 0…{classes - 1}")
        targets |= {name: int(number)} if equals else dict.fromkeys(names, int(number))
    return targets


# Synthetic faces


@dataclass(frozen=True)
class SyntheticSets:
    """Files of the synthetic faces that belong to a shipped net."""

    valid: str
    test: str
    poisoned: Mapping[str, str]


def synthetic_sets(model: str, report: Report) -> SyntheticSets | None:
    """The synthetic faces for a shipped net, made if they are not in the cache; None for any other net."""
    from jaxdefend.nets import shipped

    name = model if model in shipped.NAMES else shipped.name_of(Path(model))
    if name is None:
        return None
    from jaxdefend.attacks.synthetic import default_set, shipped_backdoors

    poisoned = {backdoor.name: default_set("test", backdoor) for backdoor in shipped_backdoors(name)}
    valid, test = default_set("valid"), default_set("test")
    for needed in (valid, test, *poisoned.values()):
        if not needed.is_made():
            terminal.note(f"drawing the synthetic faces of the set {needed.name}, once: {needed.path}")
            needed.make(report)
    return SyntheticSets(str(valid.path), str(test.path), {name: str(kept.path) for name, kept in poisoned.items()})
