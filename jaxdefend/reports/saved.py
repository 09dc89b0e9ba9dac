"""Results that commands have written, read again for a report."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdefend import InputError
from jaxdefend.results.text import printable

# What a folder may hold, in the order in which a report shows it.
KINDS = ("sweep", "evaluate", "repair", "guard", "detect", "audit", "compare")

# The largest that commands write: a grid's cells, or the curve of a thousand channels, take less than a megabyte.
_SIZE_LIMIT = 64 * 2**20


@dataclass(frozen=True)
class Saved:
    """One result file: what wrote it, and what it holds."""

    kind: str
    path: Path
    record: Mapping[str, Any]

    def scores(self) -> dict[str, dict[str, np.ndarray]]:
        """The scores in detect.csv beside detect.json, of poisoned images where the attack succeeds; {} without it."""
        path = self.path.with_name("detect.csv")
        try:
            if not path.is_file() or path.stat().st_size > _SIZE_LIMIT:
                return {}
            found: dict[str, dict[str, list[float]]] = {}
            with path.open(newline="", encoding="utf-8") as file:
                for line in csv.DictReader(file):
                    name = line["set"].removeprefix("poisoned ")
                    if name != "clean" and line["label"] != line["predicted"]:
                        continue
                    by_detector = found.setdefault(name, {})
                    for key, value in line.items():
                        if key and key.endswith("_score"):
                            by_detector.setdefault(key.removesuffix("_score"), []).append(float(value))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
            raise InputError(f"{printable(path, 200)}: not what detect writes ({printable(error, 80)})") from error
        return {name: {key: np.asarray(values) for key, values in of.items()} for name, of in found.items()}


def read_saved(folders: Sequence[str | Path]) -> list[Saved]:
    """The results in these folders, or files.

    Raises: InputError if a folder holds none, or a file cannot be read as one.
    """
    found: list[Saved] = []
    for folder in map(Path, folders):
        shown = printable(folder, 200)
        if folder.is_dir():
            own = [Saved(kind, path, _read(path)) for kind in KINDS if (path := folder / f"{kind}.json").is_file()]
        elif folder.stem in KINDS and folder.suffix == ".json":
            own = [Saved(folder.stem, folder, _read(folder))]
        else:
            raise InputError(f"{shown}: no such folder of results")
        if not own:
            raise InputError(f"{shown}: holds no results ({', '.join(f'{kind}.json' for kind in KINDS)})")
        found += own
    order = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(found, key=lambda each: order[each.kind])


def _read(path: Path) -> Mapping[str, Any]:
    shown = printable(path, 200)
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise InputError(f"{shown}: too large for a result file")
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shown}: cannot be read as JSON ({printable(error, 80)})") from error
    if not isinstance(record, dict):
        raise InputError(f"{shown}: not a result file: expected a JSON object")
    return record
