"""Ctrl-C: where it raises KeyboardInterrupt, and where work that is saved stops at its next step."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxdefend import Interrupted
from jaxdefend.cli.this_process import ThisProcess
from jaxdefend.results.progress import Progress, Report


@contextmanager
def stopping(report: Report) -> Iterator[Report]:
    """For work that saves what it has: Ctrl-C makes `report` raise Interrupted at the next step, a second one at once.

    Elsewhere than in a command of its own process, Ctrl-C does what it did before.
    """
    pressed: list[bool] = []

    def press(*_: object) -> None:
        pressed.append(True)
        if len(pressed) > 1:
            raise KeyboardInterrupt

    def checked(progress: Progress) -> None:
        report(progress)
        if pressed:
            raise Interrupted(f"interrupted ({progress.title}, {progress.done} of {progress.total} {progress.unit})")

    if not ThisProcess.is_ours:
        yield report
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield checked
    finally:
        signal.signal(signal.SIGINT, before)


def interrupts_raise() -> None:
    """Ctrl-C raises KeyboardInterrupt once: while what it leaves is tidied up, another one does nothing."""

    def press(*_: object) -> None:
        if any(map(_is_being_imported, ("jax", "flax", "h5py"))):
            # An exception that runs through the C++ of an import can end in a segmentation fault.
            _press_again(0.05)
            return
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, press)


def _is_being_imported(name: str) -> bool:
    return bool(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False))


def _press_again(seconds: float) -> None:
    again = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()


def interrupt_again(swallowed: Any) -> None:
    """Python swallows a Ctrl-C that falls into a destructor or a callback of the garbage collector: it comes again."""
    if swallowed.exc_type is KeyboardInterrupt:
        interrupts_raise()
        _press_again(0.01)
    else:
        sys.__unraisablehook__(swallowed)
