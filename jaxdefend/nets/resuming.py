"""What an interrupted training leaves behind, and how it goes on: a folder of checkpoints."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np

from jaxdefend import InputError
from jaxdefend.nets.checkpoints import checkpointer_of_its_own
from jaxdefend.nets.devices import place, tree_of_first
from jaxdefend.results.records import write_json
from jaxdefend.results.text import printable

_DESCRIBED = "configuration.json"


@runtime_checkable
class Resumable(Protocol):
    """A tree of arrays that knows how many steps it has come."""

    @property
    def step(self) -> Any: ...


S = TypeVar("S", bound=Resumable)


@contextmanager
def saved_run(folder: Path, resume: bool) -> Iterator[Path]:
    """The folder for what is saved on the way; it goes when the block ends well, or if nothing is in it.

    Raises: InputError if there is nothing to resume, or something is saved and `resume` is not asked for, or the
        folder cannot be written.
    """
    if resume and not (folder / _DESCRIBED).exists():
        raise InputError(f"{folder}: nothing saved there to go on from; start without resuming")
    if not resume and _holds_something(folder):
        raise InputError(f"{folder}: an interrupted run is saved there; resume it, or delete the folder")
    made = [parent for parent in folder.absolute().parents if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another place") from error
    try:
        yield folder
    except BaseException:
        if not _holds_something(folder):
            shutil.rmtree(folder, ignore_errors=True)
            for parent in made:
                if parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()
        raise
    shutil.rmtree(folder)


def is_saved(folder: Path) -> bool:
    """Whether a run can be resumed from the folder."""
    return (folder / _DESCRIBED).exists() and _holds_something(folder)


def _holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(path.is_dir() for path in folder.iterdir())


def same_run(folder: Path | None, configuration: Mapping) -> None:
    """Notes in the folder whose run it holds; of several processes, 0 does.

    Raises: InputError if it holds a run of another configuration, or cannot be written.
    """
    if folder is None or place()[0]:
        return
    described = folder / _DESCRIBED
    if not described.exists():
        if _holds_something(folder):
            raise InputError(f"{folder}: holds something else; choose a new folder to save in")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another place") from error
        write_json(described, configuration)
        return
    try:
        saved = json.loads(described.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{described}: cannot be read; delete {folder} to begin anew") from error
    # What JSON makes of a configuration is what was saved.
    for key, value in json.loads(json.dumps(configuration, default=str)).items():
        if not isinstance(saved, dict) or saved.get(key) != value:
            raise InputError(
                f"{folder}: saved by a run with another {key.replace('_', ' ')}, expected {printable(value, 80)}; go "
                "on with the settings and images of that run, or delete the folder"
            )


def latest(folder: Path | None, start: S) -> S:
    """The state saved last, or `start` if none is; all processes begin with that of process 0.

    Raises: InputError if what is saved cannot be read, or is not a state of this net.
    """
    return tree_of_first(start if place()[0] else _latest(folder, start))


def _latest(folder: Path | None, start: S) -> S:
    if folder is None or not (steps := _saved_steps(folder)):
        return start
    found = folder / str(steps[-1])
    leaves, structure = jax.tree.flatten(start)
    try:
        with checkpointer_of_its_own() as checkpointer:
            saved = checkpointer.restore(found.absolute())
        arrays = [np.asarray(saved[_leaf(i)]) for i in range(len(leaves))]
    except Exception as error:
        # Orbax and TensorStore answer what is not a checkpoint with errors of many kinds.
        raise InputError(f"{found}: cannot be read; delete {folder} to train from the beginning") from error
    if [array.shape for array in arrays] != [leaf.shape for leaf in leaves]:
        raise InputError(f"{found}: holds another net; delete {folder} to train from the beginning")
    return jax.tree.unflatten(structure, arrays)


def save(folder: Path | None, state: Resumable) -> None:
    """The state in place of the one saved before; of several processes, 0 saves it.

    Raises: InputError if it cannot be written; then that one stays.
    """
    if folder is None or place()[0]:
        return
    before, step = _saved_steps(folder), int(state.step)
    if step in before:
        return
    leaves = {_leaf(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    try:
        # Twice the arrays: Orbax keeps its own records beside them.
        _require_room(folder, 2 * sum(leaf.nbytes for leaf in leaves.values()))
        with checkpointer_of_its_own() as checkpointer:
            checkpointer.save((folder / str(step)).absolute(), leaves)
    except Exception as error:
        raise InputError(f"{folder}: cannot be written ({str(error).splitlines()[0]})") from error
    for old in before:
        shutil.rmtree(folder / str(old), ignore_errors=True)


def _require_room(folder: Path, size: int) -> None:
    """A full disk makes Orbax and TensorStore print tracebacks from their threads; it is found before they begin."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(size))


def _leaf(number: int) -> str:
    return f"leaf_{number:03}"


def _saved_steps(folder: Path) -> list[int]:
    # Orbax gives a folder its name when it is whole.
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())
