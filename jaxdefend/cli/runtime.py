"""How a command runs: exit status, the line of an error, Ctrl-C, devices and caches of jax, several processes."""

import argparse
import gc
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from jaxdefend import InputError, Interrupted, Note, ProcessEnded, TrainingDiverged
from jaxdefend.cli import terminal
from jaxdefend.results.progress import Progress, Report

# A command: what stands behind its name, and who hears how the work is going. It gives its exit status; None is 0.
Command = Callable[[Sequence[str], Report], int | None]

# Address space without which XLA aborts the process: 1.5 GB are too little, 2 GB enough for two devices.
_LEAST_MEMORY = 1_900_000_000

# Seconds after which a process of the run that is not heard of counts as ended.
_HEARTBEAT = 10

# Seconds for which a process waits for one that has more to do. XLA's own limit on CPUs is half an hour.
_PATIENCE = 1_000_000

# Seconds that a process which fails gives the others, who may fail likewise, to end together with it.
_PARTING = 5


class _Process:
    """What is true of this process as a whole."""

    # Whether it is `python -m jaxdefend.NAME`, in its main thread: only then are signals and the exit ours.
    is_ours = False
    # Whether XLA may still be computing in its own threads: taking the interpreter down under them crashes.
    is_abandoned = False
    # Whether it belongs to a run over several processes.
    is_joined = False
    # Where a parent process listens, see `_continue_watched`.
    watcher: int | None = None


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
        _Process.is_abandoned = True
        message = str(error)
    except KeyboardInterrupt:
        _Process.is_abandoned = True
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
    if _Process.is_joined and not _Process.is_abandoned:
        _part()
    return 2


def _part() -> None:
    """Leave the run after a failure. jax waits at its end until all processes have come there, and these may wait for
    this one: they hear that it has ended when it does not wait."""
    import jax

    _Process.is_abandoned = True
    leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    leaving.start()
    leaving.join(_PARTING)


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
    _Process.is_ours = threading.current_thread() is threading.main_thread()
    _keep_standard_streams_apart()
    if _Process.is_ours:
        sys.unraisablehook = _interrupt_again
        _interrupts_raise()
    try:
        status = main()
    except KeyboardInterrupt:
        # Pressed before `run` began, or a second time.
        status, _Process.is_abandoned = 2, True
        terminal.fail("interrupted")
    if _Process.is_ours:
        # The status stands: a Ctrl-C that comes now must not change it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _flush()
    if _Process.is_abandoned and _Process.is_ours:
        os._exit(status)
    sys.exit(status)


def _flush() -> None:
    """What cannot be written goes nowhere, so that Python does not complain about it when it ends."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _keep_standard_streams_apart() -> None:
    """Where standard input, output or errors are closed, their numbers lead nowhere: no file that is opened later must
    be mistaken for one of them."""
    with suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)


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


# Ctrl-C


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

    if not _Process.is_ours:
        yield report
        return
    before = signal.signal(signal.SIGINT, press)
    try:
        yield checked
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupts_raise() -> None:
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


def _interrupt_again(swallowed: Any) -> None:
    """Python swallows a Ctrl-C that falls into a destructor or a callback of the garbage collector: it comes again."""
    if swallowed.exc_type is KeyboardInterrupt:
        _interrupts_raise()
        _press_again(0.01)
    else:
        sys.__unraisablehook__(swallowed)


# jax


def set_up_jax() -> None:
    """One device for each core, wide vectors, and a cache of what is compiled.

    Where jax is already there, nothing is changed. Raises: InputError if this shell allows too little memory.
    """
    if "jax" in sys.modules:
        return
    _require_memory()
    _use_all_cores()
    use_wide_vectors()
    _keep_compilations()
    # Imports make a million objects that stay: looking through them at every 700th takes a tenth of the start.
    gc.set_threshold(50_000)


def _require_memory() -> None:
    with suppress(ImportError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if 0 <= limit < _LEAST_MEMORY:
            raise InputError(
                f"this shell allows a process {limit / 1e6:,.0f} MB of address space (ulimit -v), and jax needs "
                f"{_LEAST_MEMORY / 1e9:g} GB"
            )


def _use_all_cores() -> None:
    """One CPU device for each core, up to eight: XLA spreads the large products of one device over its threads, but
    not what lies between them. A power of two, so that they share every batch.

    A setting of the user's own counts (JAX_NUM_CPU_DEVICES, or the flag of XLA).
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(1 << (cores().bit_length() - 1), 8)))


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many this process may use: those it is bound to, and no more than its container's quota (cgroup v2)."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        # "200000 100000" is two cores, "max 100000" all of them.
        time, period = quota.read_text().split()
        return max(1, min(bound, int(time) // int(period)))
    return bound


def use_wide_vectors(processors: Path = Path("/proc/cpuinfo")) -> None:
    """Vectors of 512 bits where the processor has them: XLA by itself keeps to 256."""
    with suppress(OSError):
        if " avx512f" in processors.read_text():
            _tell_xla("xla_cpu_prefer_vector_width", 512)


def _tell_xla(flag: str, value: int) -> None:
    """A setting of the user's own counts, and so does a file of flags. XLA ends a process whose flags it does not know:
    later versions of jax are left alone until they were tried."""
    from importlib.metadata import version

    flags = os.environ.get("XLA_FLAGS", "")
    tried = tuple(map(int, version("jax").split(".")[:2])) <= (0, 12)
    if tried and flag not in flags and (flags or "--").lstrip().startswith("--"):
        os.environ["XLA_FLAGS"] = f"{flags} --{flag}={value}".strip()


def _keep_compilations() -> None:
    """What XLA compiles stays in the user's cache folder for later processes, where there is one.

    A setting of the user's own counts (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE). An entry that another
    process is just writing fails its checksum and is compiled anew.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = compilations()
    if folder is not None:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def compilations() -> Path | None:
    """The folder for what XLA compiles, made if it is not there; None where it cannot be had.

    jax runs what it finds there: a folder of another user, or one that others may write, is not used, with a note.
    """
    from jaxdefend.results.cache import cache_folder

    cache = cache_folder()
    if cache is None:
        return None
    folder = cache / "xla"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return None
        if hasattr(os, "getuid"):
            inner, outer = folder.stat(), cache.stat()
            others = inner.st_uid != os.getuid() or outer.st_uid not in (os.getuid(), 0)
            if others or inner.st_mode & 0o022 or outer.st_mode & 0o002:
                whose = "belongs to another user" if others else "can be written by other users"
                terminal.note(f"{folder}: {whose}; not used as the cache of what is compiled, each start takes longer")
                return None
    except (OSError, ValueError):
        return None
    return folder


# Several processes


def join_processes(options: argparse.Namespace) -> None:
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
    _tell_xla("xla_cpu_collective_timeout_seconds", _PATIENCE)
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    if _Process.is_ours and hasattr(os, "fork"):
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
    _Process.is_joined = True
    if jax.process_index():
        terminal.silence(nowhere)
    from jaxdefend.nets.devices import require_agreement

    own = {name: str(value) for name, value in vars(options).items() if name not in ("process", "out")}
    require_agreement({f"--{name.replace('_', '-')}": value for name, value in own.items()})


def _elsewhere(stream: Any, number: int) -> Any:
    """A stream that writes where the file of this number leads now."""
    return stream and open(os.dup(number), "w", encoding=stream.encoding, errors=stream.errors, buffering=1)


def _continue_watched() -> None:
    """Go on in a child process. The parent waits for it and says in one line that another process of the run has ended:
    jax ends a process in which it notices that with a stack trace, and leaves what is half-written."""
    listening, _Process.watcher = os.pipe()
    alive, living = os.pipe()
    _flush()
    child = os.fork()
    if child == 0:
        # The parent passes Ctrl-C on. From the terminal too it would come twice, and a second one ends work at once.
        os.setpgid(0, 0)
        os.close(listening)
        os.close(living)
        threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
        return
    os.close(_Process.watcher)
    os.close(alive)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(status)
    if status < 0:
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
    if _Process.watcher is not None:
        with suppress(OSError):
            os.write(_Process.watcher, os.fsencode(folder.absolute()) + b"\0")
