"""Which pictures a folder holds, in which order, and where their labels come from."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from jaxdefend import InputError
from jaxdefend.datasets.image_files import SUFFIXES
from jaxdefend.datasets.names import labels_in_names, whole
from jaxdefend.datasets.sources import reason, shown
from jaxdefend.datasets.tables import labels_in
from jaxdefend.results.text import natural, printable

LABELS_CSV = "labels.csv"
_SOURCE = re.compile(r"auto|csv|folders|names(:[1-9][0-9]?)?")
# What Windows puts into folders of pictures.
_UNSEEN = frozenset({"thumbs.db", "desktop.ini"})
_DATA = frozenset({".h5", ".hdf5", ".npz", ".npy"})
_MAX_DEPTH = 100
_SUFFIXES_SHOWN = ", ".join(sorted(SUFFIXES))


class Folder(NamedTuple):
    """The pictures of a folder, in order, their labels, and what the user should know."""

    paths: list[Path]
    labels: list[int] | None
    notes: tuple[str, ...]


def check_source(source: str) -> None:
    """Raises: InputError if `source` is not a place where labels can come from."""
    if not isinstance(source, str) or not _SOURCE.fullmatch(source):
        raise InputError(
            f"labels {printable(source, 80)!r}: expected auto, csv, folders, names or names:K with K = 1, 2 …"
        )


def pictures_in(folder: Path, source: str | None) -> Folder:
    """The pictures of a folder.

    Args: source: where the labels are: "csv", "folders", "names", "names:K", "auto": the first of them that is there;
        None for no labels.
    Raises: InputError if a folder cannot be read, there are no pictures, or the labels are not there, not whole, or
        given in two ways.
    """
    if source == "csv" or (source == "auto" and os.path.lexists(folder / LABELS_CSV)):
        labels = labels_in(folder / LABELS_CSV)
        paths, notes = _walked(folder)
        left_out = len(set(paths) - labels.keys())
        if left_out:
            notes += (
                f"{shown(folder / LABELS_CSV)} lists {len(labels)} of {len(labels) + left_out} images; "
                f"the other {left_out} are left out",
            )
        return Folder(list(labels), list(labels.values()), notes)
    paths, notes = _walked(folder)
    if source is None:
        return Folder(paths, None, notes)
    in_subfolders = any(path.parent != folder for path in paths)
    if source == "folders" or (source == "auto" and in_subfolders):
        for path in paths:
            if path.parent.parent != folder:
                raise InputError(
                    f"{shown(path)}: not directly in a class subfolder, as expected of every image in "
                    f"{printable(folder.name, 80)}; move it, or say where the labels are with a {LABELS_CSV} or "
                    "labels='names'"
                )
        return Folder(paths, [label_of_folder(path) for path in paths], notes)
    labels, more = labels_in_names(shown(folder), paths, source)
    return Folder(paths, labels, notes + more)


def labels_of_files(paths: list[Path], source: str) -> tuple[list[int], tuple[str, ...]]:
    """The labels of pictures that are given one by one, and what the user should know.

    Raises: InputError if they are not in the names, or in the folders' names for "folders".
    """
    if source == "csv":
        raise InputError(f"{shown(paths[0])}: labels='csv' needs a folder with a {LABELS_CSV}, not a single image")
    if source == "folders":
        return [label_of_folder(path) for path in paths], ()
    return labels_in_names(shown(paths[0]) if len(paths) == 1 else "image files", paths, source)


def label_of_folder(path: Path) -> int:
    """The label that the folder of a picture is called. Raises: InputError if its name is not a whole number."""
    label = whole(path.parent.name)
    if label is None:
        raise InputError(
            f"{shown(path)}: its folder is called {printable(path.parent.name, 80)!r}, "
            "expected the label, a whole number"
        )
    return label


def in_order(path: Path) -> tuple[list[list], str]:
    """A sort key: img2 before img10; the plain name decides between 1 and 01."""
    return [natural(part) for part in path.parts], str(path)


def _walked(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """All pictures in a folder and the folders in it, and a note about what was skipped.

    Hidden files and folders are skipped silently. Links to files are followed, links to folders are not.
    """
    found: list[Path] = []
    skipped: Counter[str] = Counter()
    data: list[str] = []
    waiting = [(folder, 0)]
    while waiting:
        parent, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise InputError(f"{shown(folder)}: folders are more than {_MAX_DEPTH} deep, expected one for each class")
        try:
            with os.scandir(parent) as entries:
                for entry in entries:
                    suffix = os.path.splitext(entry.name)[1].lower()
                    if entry.name.startswith(".") or entry.name.lower() in _UNSEEN:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((Path(parent, entry.name), depth + 1))
                    elif entry.is_symlink() and os.path.isdir(entry.path):
                        skipped["linked folder"] += 1
                    elif suffix in SUFFIXES:
                        found.append(Path(parent, entry.name))
                    elif entry.name != LABELS_CSV:
                        skipped[printable(suffix[1:].upper(), 20) or "without an ending"] += 1
                        if suffix in _DATA or "ubyte" in entry.name:
                            data.append(entry.name)
        except OSError as error:
            raise InputError(f"{shown(parent)}: cannot be read ({reason(error)})") from error
    if not found and data:
        names = printable(", ".join(sorted(data, key=natural)[:5]), 150)
        raise InputError(f"{shown(folder)}: no images in this folder, only data files: {names}; pass those instead")
    kinds = _kinds(skipped)
    if not found:
        other = f" (skipped: {kinds})" if kinds else ""
        raise InputError(
            f"{shown(folder)}: no images in this folder{other}; expected files ending in {_SUFFIXES_SHOWN}"
        )
    note = f"{shown(folder)}: skipped {kinds}; only files ending in {_SUFFIXES_SHOWN} are read"
    return sorted(found, key=in_order), (note,) if kinds else ()


def _kinds(skipped: Counter[str]) -> str:
    """ "2 HEIC, 1 PPM, 1 linked folder", the most frequent first."""
    shown_kinds = [f"{count} {kind}" for kind, count in sorted(skipped.items(), key=lambda kind: (-kind[1], kind[0]))]
    more = len(shown_kinds) - 6
    return ", ".join(shown_kinds[:6] + ([f"{more} more kinds"] if more > 0 else []))
