"""What people see: results on stdout; notes, warnings and progress on stderr.

Nothing here raises UnicodeEncodeError: what a terminal cannot show is replaced. Control characters are escaped, so that
no name in a file reaches the terminal as a command.
"""

import codecs
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

from jaxdefend import InputError
from jaxdefend.results.progress import Progress
from jaxdefend.results.text import printable, shortened

if TYPE_CHECKING:
    from rich.progress import Progress as Drawn

# Letters of a message: a long name in a file must not fill the screen.
LIMIT = 500

# What stands for letters that an old code page lacks; others become \u1234.
_PLAIN = {"–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "′": "'", "≤": "<=", "≥": ">=", "→": "->", "¹": "1"}


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(letter) or ascii(letter)[1:-1] for letter in letters), error.end


codecs.register_error("jaxdefend.plainer", _plainer)


def shown_on(stream: Any, text: str) -> str:
    """`text` in letters that the stream's encoding has."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        return text.encode(encoding, "jaxdefend.plainer").decode(encoding)
    except LookupError:
        return text.encode("ascii", "jaxdefend.plainer").decode("ascii")


def show(text: str) -> None:
    """Print results. Raises: InputError if standard output is closed or full."""
    if sys.stdout is None:
        raise InputError("standard output is closed: nothing can be printed")
    lines = "\n".join(map(printable, text.split("\n")))
    try:
        sys.stdout.write(shown_on(sys.stdout, lines) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"standard output: cannot be written ({why})") from error


def note(message: str) -> None:
    """What had to be guessed, or is good to know."""
    say(f"note: {message}")


def warn(message: str) -> None:
    """What may make a result wrong."""
    say(f"warning: {message}")


def fail(message: str) -> None:
    """The one line of a command that ends with status 2."""
    with _Errors.original():
        say(f"jaxdefend: {message}")


def say(message: str) -> None:
    """A line on stderr, if there is one."""
    line = shortened(printable(message), LIMIT)
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(shown_on(sys.stderr, line) + "\n")
            sys.stderr.flush()


class _Errors:
    """Where errors go in a process of a run that is otherwise silent."""

    kept: Any = None

    @classmethod
    @contextmanager
    def original(cls) -> Iterator[None]:
        before = sys.stderr
        sys.stderr = cls.kept or sys.stderr
        try:
            yield
        finally:
            sys.stderr = before


def silence(nowhere: Any) -> None:
    """Show nothing from here on but what `fail` says."""
    _Errors.kept = _Errors.kept or sys.stderr
    sys.stdout = sys.stderr = nowhere


class Bars:
    """A progress callback for library functions: a bar on stderr where that is a terminal, and the lines for people.

    A bar ends when all is done or work of another title begins. Use it in a `with` block: the terminal needs its
    cursor back.
    """

    def __init__(self) -> None:
        self._work: tuple[str, int] | None = None
        self._began, self._first = 0.0, 0
        self._drawn: Drawn | None = None

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __call__(self, progress: Progress) -> None:
        if self._work != (progress.title, progress.total):
            self.close()
            self._begin(progress)
        if self._drawn is not None:
            task = self._drawn.tasks[0]
            speed = f"{task.speed:,.0f} {progress.unit}/s" if task.speed else ""
            self._drawn.update(task.id, completed=progress.done, rate=speed)
        if progress.message:
            say(progress.message + self._left(progress))
        if progress.done >= progress.total:
            self.close()

    def close(self) -> None:
        """Take the bar away."""
        self._work = None
        if self._drawn is not None:
            self._drawn.stop()
            self._drawn = None

    def _begin(self, progress: Progress) -> None:
        self._work, self._began, self._first = (progress.title, progress.total), perf_counter(), progress.done
        if not is_terminal(sys.stderr):
            return
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Drawn

        texts = (TextColumn("{task.description}", markup=False), TextColumn("{task.fields[rate]}", markup=False))
        columns = (texts[0], BarColumn(), texts[1], TimeRemainingColumn())
        drawn = Drawn(*columns, console=Console(stderr=True), transient=True)
        title = shown_on(sys.stderr, shortened(printable(progress.title), 40))
        drawn.add_task(title, total=progress.total, completed=progress.done, rate="")
        drawn.start()
        self._drawn = drawn

    def _left(self, progress: Progress) -> str:
        """How long it will take, in words."""
        done = progress.done - self._first
        if done <= 0 or progress.done >= progress.total:
            return ""
        left = (perf_counter() - self._began) / done * (progress.total - progress.done)
        return f", {left / 60:.0f} min left" if left > 90 else f", {left:.0f} s left"


def is_terminal(stream: Any) -> bool:
    """Whether a person is looking."""
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, ValueError):
        return False


def per_cent(share: float) -> str:
    """A share for people."""
    return f"{100 * share:.2f} %"
