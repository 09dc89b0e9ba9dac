"""A run over several processes: how one joins it, and what becomes of it when another one ends."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from jaxdefend import InputError
from jaxdefend.cli import terminal
from jaxdefend.cli.jax_setup import tell_xla
from jaxdefend.cli.this_process import ThisProcess, flush

# Seconds after which a process of the run that is not heard of counts as ended.
_HEARTBEAT = 10

# Seconds for which a process waits for one that has more to do. XLA's own limit on CPUs is half an hour.
_PATIENCE = 1_000_000

# Bytes of the largest file whose content the processes compare when they meet; of images they compare some later.
_COMPARED = 2**26

# Options in which the processes may differ: which one this is, and where results are written.
_OF_EACH = ("process", "out", "sarif", "files")

# Seconds that a process which fails gives the others, who may fail likewise, to end together with it.
_PARTING = 5


def join(options: argparse.Namespace) -> None:
    """Begin a run over several processes if asked to; all but process 0 are silent from here on.

    Raises: InputError if the options do not fit together, the other processes cannot be reached, or they have others.
    """
    coordinator, processes, process = options.coordinator, options.processes, options.process
    numbers = (processes, process)
    if coordinator is None or coordinator == "auto":
        if numbers != (None, None):
            raise InputError("--processes and --process go with --coordinator HOST:PORT")
        if coordinator is None:
            return
    elif processes is None or process is None or not 0 <= process < processes:
        raise InputError(
            f"--coordinator {coordinator}: expected --processes N and --process I with I in 0…N − 1, "
            f"got {processes} and {process}"
        )
    elif not coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator {coordinator}: expected HOST:PORT, or auto")
    tell_xla("xla_cpu_collective_timeout_seconds", _PATIENCE)
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    if ThisProcess.is_ours and hasattr(os, "fork"):
        _continue_watched()
        # Gloo, which joins CPUs, greets on standard output, and jax's service reports to standard error: these files
        # are shut, and Python has others.
        sys.stdout, sys.stderr = _elsewhere(sys.stdout, 1), _elsewhere(sys.stderr, 2)
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    import jax

    try:
        address = None if coordinator == "auto" else coordinator
        jax.distributed.initialize(address, *numbers, heartbeat_timeout_seconds=_HEARTBEAT)
    except (RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"--coordinator {coordinator}: the processes did not meet ({why})") from error
    ThisProcess.is_joined = True
    if jax.process_index():
        terminal.silence(nowhere)
    from jaxdefend.nets.devices import require_agreement

    own = {name: value for name, value in vars(options).items() if name not in _OF_EACH}
    said = {f"--{name.replace('_', '-')}": str(value) for name, value in own.items()}
    require_agreement(said | {path: _content(path) for value in own.values() for path in _paths(value)})


def _paths(value: Any) -> Iterator[str]:
    """The files that an option names, as FILE or NAME=FILE."""
    if isinstance(value, list):
        for each in value:
            yield from _paths(each)
    elif isinstance(value, str | Path):
        for path in (str(value), str(value).partition("=")[2]):
            with suppress(OSError, ValueError):
                if os.path.isfile(path):
                    yield path


def _content(path: str) -> str:
    """For comparison with that of another process."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = f" ({sha256(file.read()).hexdigest()[:12]})" if size <= _COMPARED else ""
            return f"{size:,} bytes{digest}"
    except OSError as error:
        return f"not readable ({error.strerror})"


def _elsewhere(stream: Any, number: int) -> Any:
    """A stream that writes where the file of this number leads now."""
    return stream and open(os.dup(number), "w", encoding=stream.encoding, errors=stream.errors, buffering=1)


def _continue_watched() -> None:
    """Go on in a child process. The parent waits for it and says in one line that another process of the run has ended:
    jax ends a process in which it notices that with a stack trace, and leaves what is half-written."""
    listening, ThisProcess.watcher = os.pipe()
    alive, living = os.pipe()
    flush()
    child = os.fork()
    if child == 0:
        # The parent passes Ctrl-C on. From the terminal too it would come twice, and a second one ends work at once.
        os.setpgid(0, 0)
        os.close(listening)
        os.close(living)
        threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
        return
    os.close(ThisProcess.watcher)
    os.close(alive)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(status)
    if status < 0:
        import shutil

        with os.fdopen(listening, errors="surrogateescape") as told:
            for folder in told.read().split("\0"):
                if folder:
                    shutil.rmtree(folder, ignore_errors=True)
        terminal.fail("another process of the run has ended; the run is not complete")
        status = 2
    os._exit(status)


def _end_with_parent(alive: int) -> None:
    """Whoever kills the process that he has started means this one too."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def half_written(folder: Path) -> None:
    """A folder that goes if this process is ended from outside."""
    if ThisProcess.watcher is not None:
        with suppress(OSError):
            os.write(ThisProcess.watcher, os.fsencode(folder.absolute()) + b"\0")


def leave() -> None:
    """Leave the run after a failure. jax waits at its end until all processes have come there, and these may wait for
    this one: they hear that it has ended when it does not wait."""
    import jax

    ThisProcess.is_abandoned = True
    leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    leaving.start()
    leaving.join(_PARTING)
