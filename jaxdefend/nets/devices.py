"""The images of a batch spread over the devices of this process, and sums over all processes of a run."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Num, PyTree, UInt32

from jaxdefend import InputError, ProcessEnded
from jaxdefend.nets.messages import packed, unpacked
from jaxdefend.results.text import printable

Arrays = Array | np.ndarray

_DATA = "data"
_SHARDED = PartitionSpec(_DATA)
_REPLICATED = PartitionSpec()

T = TypeVar("T")

# Whether this process works by itself, see `alone`.
_is_alone: ContextVar[bool] = ContextVar("is_alone", default=False)


def batch_size() -> int:
    """Images that go to the devices together: enough to keep all of them busy; on a CPU they share its memory."""
    devices = jax.local_device_count()
    return min(256 * devices, 512) if jax.default_backend() == "cpu" else 2048 * devices


@lru_cache
def mesh(n: int) -> Mesh:
    """As many devices of this process as share `n` images evenly, along one axis."""
    return Mesh(np.array(jax.local_devices()[: math.gcd(n, jax.local_device_count())]), (_DATA,))


def sharded(
    compute: Callable[..., PyTree[Array]],
    net: PyTree,
    images: tuple[Any, ...],
    *others: Array | np.ndarray,
) -> PyTree[Array]:
    """`compute(net, *images, *others)`, every device with its own part of the images; results are image by image.

    Args:
        images: trees of arrays with the images, or whatever else is split, as their first axis; the first is an array.
    """
    specs = (_REPLICATED, *(_SHARDED for _ in images), *(_REPLICATED for _ in others))
    spread = jax.shard_map(compute, mesh=mesh(len(images[0])), in_specs=specs, out_specs=_SHARDED, check_vma=False)
    return spread(net, *images, *others)


def replicated(arrays: PyTree, n: int) -> PyTree:
    """The arrays on all the devices that share `n` images, so that no call copies them there again."""
    return jax.device_put(arrays, NamedSharding(mesh(n), _REPLICATED))


def on_devices(
    compute: Callable[..., PyTree[Array]],
    net: PyTree,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *others: Array | np.ndarray,
) -> Iterator[tuple[PyTree[np.ndarray], np.ndarray]]:
    """`compute(net, pixels, labels, *others)` for each batch, on the host, and the batch's labels.

    The next batch is read while the devices work on this one.
    """
    running, placed = None, None
    for pixels, labels in batches:
        shared = mesh(len(labels))
        if shared is not placed:
            net, others = replicated((net, others), len(labels))
            placed = shared
        images = jax.device_put((pixels, labels), NamedSharding(shared, _SHARDED))
        started = compute(net, *images, *others), labels
        if running is not None:
            yield jax.device_get(running[0]), running[1]
        running = started
    if running is not None:
        yield jax.device_get(running[0]), running[1]


def place() -> tuple[int, int]:
    """Which process of the run this is, and how many there are; 0 and 1 within `alone`."""
    return (0, 1) if _is_alone.get() else (jax.process_index(), jax.process_count())


@contextmanager
def alone() -> Iterator[None]:
    """Within it, this process is a run of its own, for work that it does not share with the others."""
    before = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(before)


def own_rows(n: int, what: str = "images") -> slice:
    """Which of `n` images, or what else is shared out, are this process's.

    Raises: InputError if there are more processes than images.
    """
    process, processes = place()
    if n < processes:
        raise InputError(f"{n} {what} for {processes} processes; expected one or more for each")
    return _rows(n, process, processes)


def _rows(n: int, process: int, processes: int) -> slice:
    return slice(n * process // processes, n * (process + 1) // processes)


def over_processes(sums: Num[np.ndarray, "..."]) -> Num[np.ndarray, "..."]:
    """The sum of what every process of the run gives; all of them must call it. They may differ in their devices.

    Raises: ProcessEnded if one of them has ended.
    """
    if place()[1] == 1:
        return sums
    found = _of_each(np.ascontiguousarray(sums).reshape(-1).view(np.uint32))
    return found.view(sums.dtype).sum(axis=0, dtype=sums.dtype).reshape(sums.shape)


def gathered(own: Any, n: int) -> Any:
    """All `n` rows, of which every process has those of `own_rows(n)`, in their order; all of them must call it.

    Args:
        own: an array, or a tree of arrays, of numbers of 32 or 64 bits, with the rows as the first axis.
    Raises: ProcessEnded if one of them has ended.
    """
    processes = place()[1]
    if processes == 1:
        return own
    leaves, structure = jax.tree.flatten(jax.device_get(own))
    words = [np.ascontiguousarray(leaf).reshape(len(leaf), -1).view(np.uint32) for leaf in leaves]
    bits = np.concatenate(words, axis=1)
    longest = -(-n // processes)
    found = _of_each(np.pad(bits, ((0, longest - len(bits)), (0, 0))).ravel()).reshape(processes, longest, -1)
    rows = [_rows(n, process, processes) for process in range(processes)]
    whole = np.concatenate([part[: of.stop - of.start] for part, of in zip(found, rows, strict=True)])
    parts = np.split(whole, np.cumsum([each.shape[1] for each in words])[:-1], axis=1)
    all_rows = [
        np.ascontiguousarray(part).view(leaf.dtype).reshape(n, *leaf.shape[1:])
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, all_rows)


def told(value: T) -> list[T]:
    """What every process of the run says, in their order; all of them must call it.

    Args:
        value: what JSON has, with arrays in it anywhere, see `nets.messages`.
    Raises: ProcessEnded if one of them has ended.
    """
    if place()[1] == 1:
        return [value]
    said = np.frombuffer(packed(value), np.uint8)
    lengths = _of_each(np.array([len(said)], np.uint32))[:, 0].tolist()
    # A power of two: few shapes are compiled.
    words = np.zeros(1 << (-(-max(lengths) // 4) - 1).bit_length(), np.uint32)
    words.view(np.uint8)[: len(said)] = said
    found = _of_each(words)
    return [unpacked(each.tobytes()[:length]) for each, length in zip(found, lengths, strict=True)]


def of_first(value: T) -> T:
    """What process 0 has, for all processes of the run; all of them must call it."""
    return told(value if place()[0] == 0 else None)[0]  # type: ignore[return-value]


def require_agreement(own: Mapping[str, str]) -> None:
    """Compares these with process 0's; all processes of the run must call it.

    Raises: InputError, on all of them, if one has others.
    """
    if place()[1] == 1:
        return
    shares = told(dict(own))
    for number, share in enumerate(shares):
        for name, value in shares[0].items():
            if share.get(name) != value:
                other = printable(share.get(name, "none"), 100)
                told_first = printable(value, 100)
                raise InputError(
                    f"process {number}: {name} is {other}, of process 0 {told_first}; expected the same files and "
                    "options everywhere"
                )


def tree_of_first(tree: T) -> T:
    """The tree with the arrays that process 0 has in it, for all processes of the run; all of them must call it."""
    if place()[1] == 1:
        return tree
    leaves, structure = jax.tree.flatten(jax.device_get(tree))
    return jax.tree.unflatten(structure, of_first(leaves))


def _of_each(bits: UInt32[np.ndarray, " w"]) -> UInt32[np.ndarray, "p w"]:
    """What every process gives, in their order, as bits: jax would round 64 of them to 32."""
    devices, placed, together = _meeting()
    own = jax.device_put(bits[None], devices[jax.process_index()])
    whole = jax.make_array_from_single_device_arrays((len(devices), len(bits)), placed, [own])
    try:
        return np.asarray(together(whole).addressable_data(0))
    # A ValueError where XLA computes at once.
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and "gloo" not in str(error).lower():
            raise
        raise ProcessEnded("another process of the run has ended") from error


@lru_cache
def _meeting() -> tuple[list[Any], NamedSharding, Callable[[Array], Array]]:
    """A device of every process, an array with a row on each, and what gives all of them all rows."""
    first_of = {device.process_index: device for device in reversed(jax.devices())}
    devices = [first_of[process] for process in sorted(first_of)]
    processes = Mesh(np.array(devices), (_DATA,))
    together = jax.jit(lambda bits: bits, out_shardings=NamedSharding(processes, _REPLICATED))
    return devices, NamedSharding(processes, _SHARDED), together
