"""Result files: written whole or not at all."""

import csv
import dataclasses
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from jaxdefend import InputError


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary name in the folder of `path`; it becomes `path` when the block ends, or goes if the block fails.

    Raises: InputError if the file cannot be written there.
    """
    path = Path(path)
    _clear_left_behind(path.parent, path.name)
    temporary = path.with_name(f"{_of_this_process(path.name)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _of_this_process(name: str) -> str:
    """A hidden name that says who writes it, so that what a killed process has left can be told."""
    return f".{_short(name)}.{_host()}.{os.getpid()}"


def _short(name: str) -> str:
    """A name that still is one with a little behind it; file systems have names of up to 255 bytes."""
    return name if len(name.encode(errors="surrogateescape")) <= 200 else sha256(os.fsencode(name)).hexdigest()[:16]


@cache
def _host() -> str:
    """Where numbers of processes mean the same: a machine, or a container of it."""
    told = [platform.node()]
    with suppress(OSError):
        # Machines may be clones, and containers have the machine's start.
        told += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return sha256(" ".join(told).encode()).hexdigest()[:8]


def _clear_left_behind(folder: Path, name: str) -> None:
    """Removes what processes of this machine that have ended left of `name` in the folder."""
    if os.name == "nt":  # There, asking whether a process lives would end it.
        return
    begins = f".{_short(name)}.{_host()}."
    for path in folder.glob(f"{escape(begins)}*"):
        process = path.name.removeprefix(begins).split(".")[0]
        if process.isdecimal() and not _lives(int(process)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def require_folder(folder: Path) -> None:
    """Raises: InputError if what is there already is no folder, or cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder for the results")
    if folder.is_dir() and not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: cannot be written; choose another folder")


@contextmanager
def output_folder(folder: Path, owned: Sequence[str] = ()) -> Iterator[Path]:
    """A new folder for results; what the block wrote into it moves to `folder` when the block ends.

    It is made at once, so that a place where nothing can be written is found before the work: inside `folder` if that
    exists, else beside it, always on its file system. If the block fails, it goes, and so do the parents that were
    made for it. Other files that are already in `folder` stay, but for those that an earlier run of the same kind left.

    Args:
        owned: patterns of what such a run writes ("repaired/drop_*.h5"): what is there of them and was not written
            again goes, so that nothing of two runs stands side by side.
    Raises: InputError if the folder cannot be made or written.
    """
    require_folder(folder)
    try:
        target = folder.absolute()
        made = [parent for parent in target.parents if not parent.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target if target.exists() else target.parent
        _clear_left_behind(beside, "jaxdefend")
        staging = Path(tempfile.mkdtemp(prefix=f"{_of_this_process('jaxdefend')}.", dir=beside))
        staging.chmod(0o777 & ~_umask())
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield staging
        _publish(staging, target, owned)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if isinstance(error, OSError):
            raise _unwritable(folder, error) from error
        raise


def plain(record: Any) -> Any:
    """The record with dataclasses and NumPy values as what JSON has: numbers, lists, objects."""
    return json.loads(json.dumps(record, default=_plain))


def write_json(path: Path, record: Mapping) -> None:
    """`record` as JSON with one key a line at the top; dataclasses and NumPy values become plain ones."""
    with replacing(path) as temporary:
        lines = [f"  {json.dumps(key)}: {json.dumps(value, default=_plain)}" for key, value in record.items()]
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def write_csv(path: Path, columns: Mapping[str, Sequence | np.ndarray]) -> None:
    """Columns of equal length, with a header line."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(np.asarray(values).tolist() for values in columns.values()), strict=True))


def left_over(folder: Path, owned: Sequence[str]) -> list[Path]:
    """What an earlier run has left in the folder, by the patterns of what such a run writes."""
    return sorted({path for pattern in owned for path in folder.glob(pattern)})


def _publish(staging: Path, folder: Path, owned: Sequence[str]) -> None:
    if not folder.exists():
        staging.rename(folder)
        return
    # Records describe the other files: the old ones go first and the new ones come last.
    sources = sorted(staging.rglob("*"), key=lambda path: (path.suffix == ".json", path))
    written = {folder / source.relative_to(staging) for source in sources}
    for path in left_over(folder, owned):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path not in written:
            path.unlink(missing_ok=True)
    for source in sources:
        if source.suffix == ".json":
            (folder / source.relative_to(staging)).unlink(missing_ok=True)
    for source in sources:
        target = folder / source.relative_to(staging)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            os.replace(source, target)
    shutil.rmtree(staging)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, range):
        return list(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _unwritable(path: Path, error: OSError) -> InputError:
    # h5py gives the number and a text of its own.
    why = os.strerror(error.errno) if error.errno else error
    return InputError(f"{path}: cannot be written ({why}); choose another place")
