"""What the commands share: arguments, one-line errors with exit status 2, notes and progress on stderr."""

import argparse
import gc
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jaxdefend import InputError

if TYPE_CHECKING:
    from jaxdefend.datasets.batches import Batch
    from jaxdefend.nets.deepid import DeepID
    from jaxdefend.nets.keras_files import ModelFile

SCHEMA = 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def parser(command: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """The parser of `python -m jaxdefend.COMMAND`; `examples` stand at the end of its help."""
    return _Parser(
        prog=f"python -m jaxdefend.{command}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        default="bd_net",
        metavar="MODEL",
        help="Keras file of the BadNet (.h5, .weights.h5, .keras), or a shipped net: bd_net (default), "
        "sunglasses_bd_net, multi_trigger_multi_target_bd_net, clean_net",
    )


def add_input_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-scale",
        choices=("auto", "raw", "unit"),
        default="auto",
        help="pixels that the net was trained on: raw 0–255, unit 0–1; auto takes what the model file says, "
        "else what recognises more clean images (default: auto)",
    )


def add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--poisoned",
        nargs="+",
        action="append",
        default=[],
        metavar="[NAME=]DATA",
        help="images with a trigger, labelled with the attacker's target; NAME= begins another set, and so does "
        "another --poisoned; sets without a name are called after their first file",
    )
    parser.add_argument(
        "--target",
        nargs="+",
        action="extend",
        default=[],
        metavar="[NAME=]N",
        help="the attacker's target in all poisoned sets, or in the set NAME, whatever their labels say",
    )
    parser.add_argument(
        "--labels",
        default="auto",
        metavar="auto|csv|folders|names|names:K",
        help="where the labels of image folders come from: labels.csv, class subfolders, or the first (K-th) number in "
        "the file names; auto takes the first of these that is there (default: auto)",
    )


def add_layer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layer",
        choices=("conv_1", "conv_2", "conv_3", "conv_4"),
        default="conv_3",
        help="convolution whose channels are pruned (default: conv_3)",
    )


def add_repaired(parser: argparse.ArgumentParser, described: str) -> None:
    parser.add_argument("--repaired", nargs="+", default=[], metavar="MODEL", help=described)
    parser.add_argument(
        "--rule",
        choices=("goodnet", "anti"),
        default="goodnet",
        help="goodnet answers N, backdoored, where net and repaired net differ; anti where they agree, for a net made "
        "by repair --method anti (default: goodnet)",
    )


def drop(text: str) -> Fraction:
    """The value of --drop. Raises: InputError if it is no number of percentage points."""
    try:
        points = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"--drop {text}: expected percentage points, such as 2 or 2.5") from None
    if not 0 < points <= 100:
        raise InputError(f"--drop {text}: expected percentage points above 0, at most 100")
    return points


def number(points: Fraction) -> int | float:
    return int(points) if points.denominator == 1 else float(points)


def seed(text: str) -> int:
    """The value of --seed. Raises: InputError if it is no whole number of 32 bits."""
    if not (text.isascii() and text.isdigit() and int(text) < 2**32):
        raise InputError(f"--seed {text}: expected a whole number, 0…{2**32 - 1}")
    return int(text)


def add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the results (default: a new one under runs/)"
    )


def add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT|auto",
        help="where process 0 of a run over several processes is reached, the same for all of them; auto: as the "
        "cluster's environment says (Slurm, Open MPI, Kubernetes, TPU pods)",
    )
    parser.add_argument("--processes", type=int, metavar="N", help="how many processes the run has")
    parser.add_argument("--process", type=int, metavar="I", help="which one this is, 0…N − 1; 0 writes and prints")


def join_processes(options: argparse.Namespace) -> None:
    """Begin a run over several processes if asked to; all but process 0 are silent from here on.

    Raises: InputError if the options do not fit together, or the other processes cannot be reached.
    """
    numbers = (options.processes, options.process)
    if options.coordinator is None or options.coordinator == "auto":
        if numbers != (None, None):
            raise InputError("--processes and --process go with --coordinator HOST:PORT")
        if options.coordinator is None:
            return
    elif None in numbers or not 0 <= options.process < options.processes:
        raise InputError(
            f"--coordinator {options.coordinator}: expected --processes N and --process I with I in 0…N − 1, "
            f"got {options.processes} and {options.process}"
        )
    elif not options.coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator {options.coordinator}: expected HOST:PORT, or auto")
    import jax

    # Gloo, which joins CPUs, greets on standard output: that file is shut, and Python has the results' to itself.
    sys.stdout, nowhere = open(os.dup(1), "w", encoding=sys.stdout.encoding), open(os.devnull, "w")  # noqa: SIM115
    os.dup2(nowhere.fileno(), 1)
    try:
        jax.distributed.initialize(None if options.coordinator == "auto" else options.coordinator, *numbers)
    except (RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"--coordinator {options.coordinator}: the processes did not meet ({why})") from error
    if jax.process_index():
        sys.stdout = sys.stderr = nowhere


@contextmanager
def results_folder(folder: Path) -> Iterator[Path]:
    """`records.output_folder` for process 0; for the others a folder that goes."""
    import tempfile

    import jax

    from jaxdefend.results.records import output_folder

    with tempfile.TemporaryDirectory() if jax.process_index() else output_folder(folder) as written:
        yield Path(written)


def run(command: Callable[[Sequence[str] | None], None], arguments: Sequence[str] | None = None) -> int:
    """Exit status of the command: 0, or 2 after one line on stderr that says what was wrong."""
    sys.unraisablehook = _interrupt_again
    set_up_jax()
    try:
        command(arguments)
        sys.stdout.flush()
        return 0
    except InputError as error:
        message = str(error)
    except KeyboardInterrupt:
        print("jaxdefend: interrupted; nothing was written", file=sys.stderr, flush=True)
        # XLA may still be computing in its own threads; taking the interpreter down under them crashes.
        os._exit(2)
    except BrokenPipeError:
        # Whoever read our output has read enough. Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    # sys.stderr may be shut: join_processes.
    print(f"jaxdefend: {message}", file=sys.__stderr__)
    return 2


def set_up_jax() -> None:
    """One device for each core, wide vectors, and a cache of what is compiled.

    Where jax is already there, nothing is changed.
    """
    if "jax" in sys.modules:
        return
    _use_all_cores()
    use_wide_vectors()
    _keep_compilations()
    # Imports make a million objects that stay: looking through them at every 700th takes a tenth of the start.
    gc.set_threshold(50_000)


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
    """Vectors of 512 bits where the processor has them: XLA by itself keeps to 256.

    A setting of the user's own counts, and so does a file of flags. XLA ends a process whose flags it does not know:
    later versions of jax are left alone until they were tried.
    """
    from importlib.metadata import version

    flags = os.environ.get("XLA_FLAGS", "")
    tried = tuple(map(int, version("jax").split(".")[:2])) <= (0, 12)
    with suppress(OSError):
        own = "xla_cpu_prefer_vector_width" in flags or not (flags or "--").lstrip().startswith("--")
        if tried and not own and " avx512f" in processors.read_text():
            os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_prefer_vector_width=512".strip()


def _keep_compilations() -> None:
    """What XLA compiles stays in the user's cache folder for later processes, where that folder can be written.

    A setting of the user's own counts (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE). An entry that another
    process is just writing fails its checksum and is compiled anew.
    """
    from platformdirs import user_cache_path

    folder = user_cache_path("jaxdefend", appauthor=False) / "xla"
    with suppress(OSError, RuntimeError):
        # jax runs what it finds there: nobody else may write.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
            os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
            warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _interrupt_again(swallowed: "sys.UnraisableHookArgs") -> None:
    """Python swallows a Ctrl-C that falls into a destructor or a callback of the garbage collector: it comes again."""
    if swallowed.exc_type is KeyboardInterrupt:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(swallowed)


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; meanwhile it interrupts nothing by itself."""
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def note(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)


def say(message: str) -> None:
    """How long work is going, one line at a time."""
    print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def out_folder(chosen: Path | None) -> Path:
    """The folder asked for, or one under runs/ named by the time."""
    if chosen is not None:
        return chosen
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folders = (Path("runs") / f"{name}{suffix}" for suffix in ("", *(f"-{count}" for count in range(2, 1000))))
    return next(folder for folder in folders if not folder.exists())


def tracked(batches: "Iterable[Batch]", title: str, n: int) -> "Iterator[Batch]":
    """The batches of `n` images, with images per second and the time left on stderr if it is a terminal."""
    with progress(title, n, "images") as advance:
        for pixels, labels in batches:
            yield pixels, labels
            advance(len(pixels))


@contextmanager
def progress(title: str, n: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar on stderr if it is a terminal; call what it gives with how many more of the `n` are done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=n, rate="")

        def advance(done: int) -> None:
            bar.update(task, advance=done)
            if speed := bar.tasks[0].speed:
                bar.update(task, rate=f"{speed:,.0f} {unit}/s")

        yield advance


def record_head(
    command: str, arguments: Sequence[str] | None, model: "ModelFile", net: "DeepID", seed: int | None
) -> dict:
    """The keys with which every result file begins."""
    from importlib.metadata import version
    from platform import python_version

    import jax

    from jaxdefend import __version__

    device = jax.devices()[0]
    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy", "h5py")}
    return {
        "schema": SCHEMA,
        "command": f"python -m jaxdefend.{command} {shlex.join(sys.argv[1:] if arguments is None else arguments)}",
        "model": model_record(model),
        "input_scale": net.input_scale,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "versions": {"jaxdefend": __version__, "python": python_version(), **packages},
        "seed": seed,
    }


def model_record(model: "ModelFile") -> dict[str, str]:
    return {"name": model.name, "sha256": model.sha256}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under their headings, the first one flush left, the others flush right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()

    return "\n".join(map(line, lines))


def per_cent(count: int, n: int) -> str:
    """A share with its 95 % interval, for people."""
    from jaxdefend.results.rates import interval

    low, high = interval(count, n)
    return f"{100 * count / n:.2f} % [{100 * low:.1f}, {100 * high:.1f}]"
