"""What an interrupted training leaves behind, and how it goes on: a folder beside the net's file."""

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
from jaxdefend.results.records import write_json


@runtime_checkable
class Resumable(Protocol):
    """A tree of arrays that knows how many steps it has come."""

    @property
    def step(self) -> Any: ...


S = TypeVar("S", bound=Resumable)


@contextmanager
def saved_run(out: Path, configuration: Mapping, resume: bool) -> Iterator[Path]:
    """The folder for what is saved on the way to `out`; it goes when the block ends well, or if nothing is in it.

    Raises: InputError if there is nothing to resume, or a run of another configuration is saved there, or one is and
        `resume` is not asked for, or the folder cannot be written.
    """
    folder = out.with_name(f"{out.name}.checkpoint")
    described = folder / "configuration.json"
    if resume:
        _require_same(described, configuration)
    elif described.exists() and _holds_something(folder):
        raise InputError(f"{folder}: an interrupted run is saved there; add --resume, or delete the folder")
    made = [parent for parent in folder.absolute().parents if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another place") from error
    try:
        write_json(described, configuration)
        yield folder
    except BaseException:
        if not _holds_something(folder):
            shutil.rmtree(folder, ignore_errors=True)
            for parent in made:
                if parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()
        raise
    shutil.rmtree(folder)


def _holds_something(folder: Path) -> bool:
    return any(path.is_dir() for path in folder.iterdir())


def _require_same(described: Path, configuration: Mapping) -> None:
    try:
        saved = json.loads(described.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{described.parent}: nothing saved there to go on from; leave out --resume") from error
    # What JSON makes of a configuration is what was saved.
    for key, value in json.loads(json.dumps(configuration)).items():
        if not isinstance(saved, dict) or saved.get(key) != value:
            raise InputError(
                f"{described.parent}: saved by a run with another {key}, expected {value}; go on with the options of "
                "that run, or delete the folder"
            )


def latest(folder: Path, start: S) -> S:
    """The state saved last, or `start` if none is.

    Raises: InputError if what is saved cannot be read, or is no state of this net.
    """
    import orbax.checkpoint as ocp

    if not (steps := _saved_steps(folder)):
        return start
    found = folder / str(steps[-1])
    leaves, structure = jax.tree.flatten(start)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.restore(found.absolute())
        arrays = [np.asarray(saved[_leaf(i)]) for i in range(len(leaves))]
    except Exception as error:
        # Orbax and TensorStore answer what is no checkpoint with errors of many kinds.
        raise InputError(f"{found}: cannot be read; delete {folder} to train from the beginning") from error
    if [array.shape for array in arrays] != [leaf.shape for leaf in leaves]:
        raise InputError(f"{found}: holds another net; delete {folder} to train from the beginning")
    return jax.tree.unflatten(structure, arrays)


def save(folder: Path, state: Resumable) -> None:
    """The state in place of the one saved before. Raises: InputError if it cannot be written; then that one stays."""
    import orbax.checkpoint as ocp

    before, step = _saved_steps(folder), int(state.step)
    if step in before:
        return
    leaves = {_leaf(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    try:
        # Twice the arrays: Orbax keeps its own records beside them.
        _require_room(folder, 2 * sum(leaf.nbytes for leaf in leaves.values()))
        with ocp.StandardCheckpointer() as checkpointer:
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
