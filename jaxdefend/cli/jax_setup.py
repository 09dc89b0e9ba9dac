"""What is set before jax is imported: devices, vectors, and the cache of what is compiled."""

import gc
import os
import sys
from contextlib import suppress
from pathlib import Path

from jaxdefend import InputError
from jaxdefend.cli import terminal

# Address space without which XLA aborts the process: 1.5 GB are too little, 2 GB enough for two devices.
_LEAST_MEMORY = 1_900_000_000


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
            tell_xla("xla_cpu_prefer_vector_width", 512)


def tell_xla(flag: str, value: int) -> None:
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
