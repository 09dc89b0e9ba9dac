"""What the paths of a command line lead to: a net or images, and whether they stand in the order of other scripts."""

import re
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Literal

from jaxdefend.results.text import natural, printable

MODELS = (".h5", ".hdf5", ".keras")


def kind_of(path: str) -> Literal["net", "data"] | None:
    """Whether this is a net or images, as far as a look at it says; None if it is neither, or is not there."""
    from jaxdefend.nets import shipped

    if path in shipped.NAMES:
        return "net"
    found = Path(path)
    try:
        if found.is_dir():
            return "data"
        if not found.is_file():
            return None
        with found.open("rb") as file:
            begins = file.read(8)
    except (OSError, ValueError):
        return None
    if begins.startswith(b"PK"):
        return "net" if found.suffix.lower() == ".keras" else None
    if begins == b"\x89HDF\r\n\x1a\n":
        return _kind_of_hdf5(found)
    return "data" if begins.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*", b"MM\0*")) else None


def _kind_of_hdf5(path: Path) -> Literal["net", "data"] | None:
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            if any(file.id.links.exists(key) for key in (b"data", b"x", b"images")):
                return "data"
            keys = (b"model_weights", b"layers", b"_layer_checkpoint_dependencies")
            named = "layer_names" in file.attrs or any(file.id.links.exists(key) for key in keys)
            return "net" if named else None
    except (OSError, RuntimeError, ValueError, KeyError):
        return None


def out_of_order(command: str, words: Sequence[str], option: str) -> str | None:
    """What to type instead, where nets and data stand in the order of other scripts: CLEAN POISONED MODEL.

    Args:
        option: which takes the clean images.
    """
    kinds = {word: kind_of(word) for word in words}
    nets = [word for word in words if kinds[word] == "net"]
    data = [word for word in words if kinds[word] == "data"]
    if not nets or not data or len(nets) + len(data) < len(words):
        return None
    told = " and ".join(filter(None, (_told(nets, "net"), _told(data, "images"))))
    repaired = ["--repaired", *nets[1:]] if nets[1:] else []
    poisoned = ["--poisoned", *data[1:]] if data[1:] else []
    line = " ".join(["python -m", f"jaxdefend.{command}", nets[0], option, data[0], *poisoned, *repaired])
    return f"{told}; type {printable(line, 360)}"


def _told(words: Sequence[str], what: str) -> str:
    shown = printable(", ".join(words), 100)
    if what == "net":
        return f"{shown} {'is a net' if len(words) == 1 else 'are nets'}"
    return f"{shown} {'holds' if len(words) == 1 else 'hold'} images"


def expanded(paths: Sequence[str]) -> list[str]:
    """The paths, with the patterns that a shell has left as they are (*.png on Windows) as what they match."""
    found = []
    for path in paths:
        matches = glob(path) if re.search(r"[*?\[]", path) and not Path(path).exists() else []
        found += sorted(matches, key=natural) or [path]
    return found


def exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
