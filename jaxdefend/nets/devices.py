"""The images of a batch spread over the devices of this process, and sums over all processes of a run."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Num, PyTree

from jaxdefend import InputError, ProcessEnded

Arrays = Array | np.ndarray

_DATA = "data"
_SHARDED = PartitionSpec(_DATA)
_REPLICATED = PartitionSpec()


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


def summed(
    compute: Callable[..., PyTree[Array]], parameters: PyTree, images: tuple[Num[Array, "n ..."], ...]
) -> PyTree[Array]:
    """The sum of `compute(parameters, *images)` over all devices, each with its own part of the images.

    Args:
        images: the first axis is split; all devices of this process divide it, so that a program may call this for
            several numbers of images.
    """

    def on_device(parameters: PyTree, *images: Array) -> PyTree[Array]:
        return jax.lax.psum(compute(parameters, *images), _DATA)

    specs = (_REPLICATED, *(_SHARDED for _ in images))
    every = mesh(jax.local_device_count())
    spread = jax.shard_map(on_device, mesh=every, in_specs=specs, out_specs=_REPLICATED, check_vma=False)
    return spread(parameters, *images)


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


def own_rows(n: int) -> slice:
    """Which of `n` images this process reads. Raises: InputError if there are more processes than images."""
    process, processes = jax.process_index(), jax.process_count()
    if n < processes:
        raise InputError(f"{n} images for {processes} processes; expected one or more for each")
    return slice(n * process // processes, n * (process + 1) // processes)


def over_processes(sums: Num[np.ndarray, "..."]) -> Num[np.ndarray, "..."]:
    """The sum of what every process of the run gives; all of them must call it. They may differ in their devices.

    Raises: ProcessEnded if one of them has ended.
    """
    if jax.process_count() == 1:
        return sums
    first_of = {device.process_index: device for device in reversed(jax.devices())}
    processes = Mesh(np.array([first_of[process] for process in sorted(first_of)]), (_DATA,))
    # As bits: jax would round 64 of them to 32.
    bits = np.atleast_1d(sums).view(np.uint32)[None]
    own = jax.device_put(bits, first_of[jax.process_index()])
    placed, everywhere = NamedSharding(processes, _SHARDED), NamedSharding(processes, _REPLICATED)
    whole = jax.make_array_from_single_device_arrays((len(first_of), *bits.shape[1:]), placed, [own])
    try:
        found = np.asarray(jax.jit(lambda bits: bits, out_shardings=everywhere)(whole).addressable_data(0))
    except jax.errors.JaxRuntimeError as error:
        raise ProcessEnded(f"another process of the run has ended ({str(error).splitlines()[0]})") from error
    return found.view(sums.dtype).sum(axis=0).reshape(sums.shape)
