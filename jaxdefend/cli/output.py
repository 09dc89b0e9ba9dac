"""The folder of a run's results, the keys with which every result file begins, and the last line of a run."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxdefend import InputError, Interrupted, ProcessEnded
from jaxdefend.cli import processes, runtime, terminal
from jaxdefend.results.text import printable

if TYPE_CHECKING:
    from jaxdefend.nets.net import Net

SCHEMA = 1


def chosen_folder(asked: Path | None) -> Path:
    """The folder asked for, or one under runs/ named by the time.

    Raises: InputError if it cannot be used, before any work is done.
    """
    from jaxdefend.results.records import require_folder

    if asked is None:
        name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        folders = (Path("runs") / f"{name}{suffix}" for suffix in ("", *(f"-{count}" for count in range(2, 1000))))
        return next(folder for folder in folders if not folder.exists())
    try:
        require_folder(asked)
    except InputError as error:
        raise InputError(f"--out {error}") from error
    except OSError as error:
        raise InputError(f"--out {printable(asked, 100)}: cannot be used ({error.strerror})") from error
    return asked


@contextmanager
def results_folder(folder: Path, owned: Sequence[str] = ()) -> Iterator[Path]:
    """`records.output_folder` for process 0, with a note where an earlier run is replaced; else a folder that goes."""
    import tempfile

    from jaxdefend.nets.devices import place
    from jaxdefend.results.records import left_over, output_folder

    if place()[0]:
        with tempfile.TemporaryDirectory() as nowhere:
            processes.half_written(Path(nowhere))
            yield Path(nowhere)
        return
    earlier = left_over(folder, owned) if folder.is_dir() else []
    with output_folder(folder, owned) as staging:
        processes.half_written(staging)
        yield staging
    if earlier:
        replaced = (
            "1 file of an earlier run was" if len(earlier) == 1 else f"{len(earlier)} files of an earlier run were"
        )
        terminal.note(f"{folder}: {replaced} replaced; other files stay")
    runtime.written.set(folder)


def beside(folder: Path, ending: str) -> Path:
    """The folder's name and `ending`, in the same place. Raises: InputError if the folder is no folder of its own."""
    named = folder if folder.name not in ("", "..") else Path(os.path.abspath(folder))
    if not named.name:
        raise InputError(f"--out {folder}: expected a folder for the results of this run alone")
    return named.with_name(f"{named.name}{ending}")


@contextmanager
def resumable(out: Path, resume: bool) -> Iterator[Path]:
    """The folder for what is saved on the way to `out`; after Ctrl-C, or where another process of the run has ended,
    one line says how to go on from it. Of several processes, 0 alone makes it."""
    from jaxdefend.nets.devices import place
    from jaxdefend.nets.resuming import is_saved, saved_run

    folder = beside(out, ".checkpoint")
    if place()[0]:
        yield folder
        return
    try:
        with saved_run(folder, resume) as saved:
            yield saved
    except InputError as error:
        told = str(error).replace("; resume it,", "; go on from it with --resume,")
        raise InputError(told.replace("start without resuming", "leave out --resume")) from error
    except (Interrupted, KeyboardInterrupt, ProcessEnded) as error:
        kind = ProcessEnded if isinstance(error, ProcessEnded) else Interrupted
        told = str(error) or "interrupted"
        if is_saved(folder):
            raise kind(f"{told}; saved: the same command with --out {out} and --resume goes on") from error
        raise kind(f"{told}; nothing was written") from error


def say_written(folder: Path, files: Sequence[str], first: str | None = None) -> None:
    """The last line of a run: what was written, and the file to open."""
    if first is None:
        terminal.note(f"written to {folder / files[0]}")
    else:
        terminal.note(f"written to {folder}/: {', '.join(files)}; open {folder / first}")


def file_record(file: Path) -> dict[str, str]:
    """Name and digest of a file that was written."""
    from hashlib import sha256

    return {"name": file.name, "sha256": sha256(file.read_bytes()).hexdigest()}


def head(command: str, arguments: Sequence[str], net: "Net", seed: int | None) -> dict[str, Any]:
    """The keys with which every result file begins."""
    from importlib.metadata import version
    from platform import python_version

    import jax

    from jaxdefend import __version__

    device = jax.devices()[0]
    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy", "h5py")}
    return {
        "schema": SCHEMA,
        "command": f"python -m jaxdefend.{command} {shlex.join(arguments)}",
        "model": model_record(net),
        "input_scale": net.input_scale,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "versions": {"jaxdefend": __version__, "python": python_version(), **packages},
        "seed": seed,
    }


def model_record(net: "Net") -> Mapping[str, str] | None:
    """Name and digest of the file that a net was read from."""
    return None if net.source is None else {"name": net.source.name, "sha256": net.source.sha256}
