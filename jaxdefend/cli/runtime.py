"""How a command runs, and how it ends: its exit status, and the line of an error."""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NoReturn

from jaxdefend import InputError, Interrupted, Note, ProcessEnded, TrainingDiverged
from jaxdefend.cli import terminal
from jaxdefend.cli.interrupts import interrupt_again, interrupts_raise
from jaxdefend.cli.jax_setup import set_up_jax
from jaxdefend.cli.processes import leave
from jaxdefend.cli.this_process import ThisProcess, flush, keep_standard_streams_apart
from jaxdefend.results.progress import Report

# A command: what stands behind its name, and who hears how the work is going. It gives its exit status; None is 0.
Command = Callable[[Sequence[str], Report], int | None]

# Where this run's results are, once they are.
written: ContextVar[Path | None] = ContextVar("written", default=None)


def run(command: Command, arguments: Sequence[str | Path] | None = None) -> int:
    """Exit status of the command: its own, or 2 after one line on stderr that says what was wrong.

    Args:
        arguments: those of the command line if None.
    """
    given = sys.argv[1:] if arguments is None else list(map(str, arguments))
    written.set(None)
    try:
        with _warnings_as_lines(), terminal.Bars() as bars:
            set_up_jax()
            return command(given, bars) or 0
    except (InputError, TrainingDiverged) as error:
        message = str(error)
    except (Interrupted, ProcessEnded) as error:
        ThisProcess.is_abandoned = True
        message = str(error)
    except KeyboardInterrupt:
        ThisProcess.is_abandoned = True
        message = f"interrupted; {f'the results are in {written.get()}' if written.get() else 'nothing was written'}"
    except BrokenPipeError:
        # Whoever read our output has read enough.
        return 0
    except SystemExit as ended:
        # argparse has shown the manual.
        return ended.code if isinstance(ended.code, int) else 0
    except MemoryError:
        message = "not enough memory; use fewer images or a machine with more"
    except OSError as error:
        message = _of_system(error)
    terminal.fail(message)
    if ThisProcess.is_joined and not ThisProcess.is_abandoned:
        leave()
    return 2


def _of_system(error: OSError) -> str:
    """What no function below expected: a name that is too long, a folder that has gone."""
    try:
        os.getcwd()
    except OSError:
        return "the current folder does not exist any more; change to another one"
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return f"{where}{error.strerror or error}"


def program(main: Callable[[], int]) -> NoReturn:
    """`python -m jaxdefend.NAME`: run it and end the process."""
    ThisProcess.is_ours = threading.current_thread() is threading.main_thread()
    keep_standard_streams_apart()
    if ThisProcess.is_ours:
        sys.unraisablehook = interrupt_again
        interrupts_raise()
    try:
        status = main()
    except KeyboardInterrupt:
        # Pressed before `run` began, or a second time.
        status, ThisProcess.is_abandoned = 2, True
        terminal.fail("interrupted")
    if ThisProcess.is_ours:
        # The status stands: a Ctrl-C that comes now must not change it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    flush()
    if ThisProcess.is_abandoned and ThisProcess.is_ours:
        os._exit(status)
    sys.exit(status)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """A library `Note` is a note, a plain UserWarning a warning, each a line on stderr."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def as_line(message, category, filename, lineno, file=None, line=None) -> None:
            if issubclass(category, Note):
                terminal.note(str(message))
            elif category is UserWarning:
                terminal.warn(str(message))
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = as_line
        warnings.simplefilter("always", UserWarning)
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
        yield
