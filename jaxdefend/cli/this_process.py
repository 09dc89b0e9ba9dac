"""This process as a whole: whether signals and the exit are ours, and its standard streams."""

import os
import sys
from contextlib import suppress


class ThisProcess:
    """What is true of this process as a whole."""

    # Whether it is `python -m jaxdefend.NAME`, in its main thread: only then are signals and the exit ours.
    is_ours = False
    # Whether XLA may still be computing in its own threads: taking the interpreter down under them crashes.
    is_abandoned = False
    # Whether it belongs to a run over several processes.
    is_joined = False
    # Where a parent process listens, see `processes`.
    watcher: int | None = None


def keep_standard_streams_apart() -> None:
    """Where standard input, output or errors are closed, their numbers lead nowhere: no file that is opened later must
    be mistaken for one of them."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)


def flush() -> None:
    """What cannot be written goes nowhere, so that Python does not complain about it when it ends."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
