"""Fine-tuning at many settings at once: stacked nets, one compiled step for all of them."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Int32, PRNGKeyArray, UInt8

from jaxdefend.datasets.images import ImageSet
from jaxdefend.nets.batches import batches
from jaxdefend.nets.devices import gathered, own_rows, sharded
from jaxdefend.nets.net import Net
from jaxdefend.nets.resuming import latest, save
from jaxdefend.nets.training import Labels, Pixels, Schedule, losses, mean_and_gradient, rate, rows_of_steps
from jaxdefend.repairs import Grid
from jaxdefend.repairs.base import GridCell, Repair, Run, recognised, split
from jaxdefend.repairs.curve import ascending, checked_layer, mean_activations
from jaxdefend.repairs.iterative import COMPLETE, filled
from jaxdefend.repairs.magnitude import FIRST_SPARSITY, LAST_SPARSITY, share_below, zhu_gupta
from jaxdefend.repairs.tuning import epochs_of, logged, say

# Steps after which the smallest weights are looked for again; TensorFlow Model Optimization: 100.
_FREQUENCY = 20

_ADAM = optax.scale_by_adam()

Method = Literal["fine-prune", "magnitude"]
METHODS: tuple[Method, ...] = get_args(Method)


class Cell(NamedTuple):
    """One fine-tuning: of the channels, or in the end of the weights of each kernel, `fraction` is zero."""

    method: Method
    fraction: float
    learning_rate: float


class State(NamedTuple):
    """All that training changes; each array of nets, optimizer and masks has the cells as its first axis."""

    nets: Net
    optimizer: Any
    masks: Net
    step: Int32[Array, ""]


def repair(settings: Grid, net: Net, clean: ImageSet, run: Run) -> Repair:
    """Fine-pruning and magnitude pruning at every fraction and learning rate; the cell that recognises most of the
    held-out images. Several processes share the cells."""
    parts = split(settings, clean, run.seed)
    layer = checked_layer(net, settings.layer)
    order = ascending(mean_activations(net, batches(clean, "activations", run.report), layer))
    cells = [
        Cell(method, fraction, rate)
        for method in METHODS
        for fraction in settings.fractions
        for rate in settings.learning_rates
    ]
    schedule = Schedule(settings.epochs * parts.passes, parts.batch, 1.0)
    kept = latest(run.saved, logged(settings, begun(net, cells, layer, order)))
    n, own = len(cells), own_rows(len(cells), "cells")
    states = trained(of_rows(kept.state, own), cells[own], parts.pixels, parts.labels, schedule, parts.key)
    # A cell may diverge, as long as another does not.
    least = ((after, np.nanmin(np.append(gathered(loss, n), np.inf))) for after, loss in states)
    for after, epoch, loss in epochs_of(settings, least, int(kept.step), parts.passes, run.report):
        kept = kept.after(epoch, of_all(after, n), loss)
        save(run.saved, kept)
        say(run.report, settings, epoch, parts.passes, f"least loss {loss:.4f}")
    made = nets(kept.state, cells)
    correct = gathered(np.array([recognised(each, parts.held_out) for each in made[own]]), n)
    found = [GridCell(*cell, each, count) for cell, each, count in zip(cells, made, correct.tolist(), strict=True)]
    chosen = int(np.argmax([cell.held_out for cell in found]))
    decided = {"layer": layer, "epochs": settings.epochs, "batch": parts.batch, "chosen": chosen}
    return Repair("grid", settings, found[chosen].net, decided, history=kept.history, cells=tuple(found))


def begun(net: Net, cells: Sequence[Cell], layer: str, order: Int[np.ndarray, " c"]) -> State:
    """The state before the first step; fine-prune cells have the first of the channels in `order` masked."""

    def mask(cell: Cell) -> Net:
        pruned = order[: round(cell.fraction * len(order)) if cell.method == "fine-prune" else 0]
        return filled(net, 1).pruned(layer, pruned)

    nets = jax.tree.map(lambda *arrays: jnp.stack(arrays), *[net] * len(cells))
    masks = jax.tree.map(lambda *arrays: jnp.stack(arrays), *map(mask, cells))
    return State(nets, jax.vmap(_ADAM.init)(nets), masks, jnp.int32(0))


def trained(
    state: State, cells: Sequence[Cell], pixels: Pixels, labels: Labels, schedule: Schedule, key: PRNGKeyArray
) -> Iterator[tuple[State, Float[Array, " g"]]]:
    """The state after each step that is left, and each cell's loss; all cells see the same images.

    `schedule.peak` is 1: every cell has its own.
    """
    peaks = jnp.array([cell.learning_rate for cell in cells], jnp.float32)
    last = jnp.array([cell.fraction if cell.method == "magnitude" else 0 for cell in cells], jnp.float32)
    done = int(state.step)
    for step, rows in enumerate(rows_of_steps(len(pixels), schedule, key, done), done):
        if step % _FREQUENCY == 0:
            state = state._replace(masks=_masked_anew(state, last, schedule.steps))
        state, loss = _step(state, peaks, pixels[rows], labels[rows], schedule)
        yield state, loss


def of_rows(state: State, rows: slice) -> State:
    """Some of the cells."""
    if rows == slice(0, len(jax.tree.leaves(state.masks)[0])):
        return state
    found: tuple[Any, ...] = jax.tree.map(lambda array: jnp.asarray(array[rows]), tuple(state[:-1]))
    return State(found[0], found[1], found[2], state.step)


def of_all(state: State, n: int) -> State:
    """All `n` cells, of which every process has some."""
    found, optimizer, masks = gathered((state.nets, state.optimizer, state.masks), n)
    return State(found, optimizer, masks, state.step)


def nets(state: State, cells: Sequence[Cell]) -> list[Net]:
    """The repaired net of each cell."""
    masked = jax.device_get(jax.tree.map(jnp.multiply, state.nets, state.masks))
    return [jax.tree.map(lambda array, i=i: array[i], masked) for i in range(len(cells))]


@partial(jax.jit, static_argnames="steps")
def _masked_anew(state: State, last: Float[Array, " g"], steps: int) -> Net:
    """The masks with the smallest weights of each kernel zeroed, as many as the schedule says by now."""
    start = jnp.maximum(last - (LAST_SPARSITY - FIRST_SPARSITY), 0)
    sparsity = zhu_gupta(start, last, state.step / (COMPLETE * steps))

    def of_one(weights: Array, mask: Array, sparsity: Array) -> Array:
        if weights.ndim == 1:
            return mask
        sizes = jnp.abs(weights * mask)
        return jnp.where(sparsity > 0, (sizes >= share_below(sizes, sparsity)).astype(mask.dtype), mask)

    return jax.tree.map(lambda w, m: jax.vmap(of_one)(w, m, sparsity), state.nets, state.masks)


@partial(jax.jit, static_argnames="schedule", donate_argnames="state")
def _step(
    state: State,
    peaks: Float[Array, " g"],
    pixels: UInt8[Array, "n h w c"],
    labels: Int32[Array, " n"],
    schedule: Schedule,
) -> tuple[State, Float[Array, " g"]]:
    def of_cells(_, peaks: Array, nets: Any, optimizer: Any, masks: Any, pixels: Array, labels: Array, now: Array):
        def of_one(peak: Array, net: Any, optimizer: Any, mask: Any) -> tuple:
            def masked(net: Any, pixels: Array, labels: Array) -> Array:
                return losses(jax.tree.map(jnp.multiply, net, mask), pixels, labels)

            loss, slope = mean_and_gradient(masked, net, pixels, labels)
            updates, optimizer = _ADAM.update(slope, optimizer)
            return jax.tree.map(lambda weights, update: weights - peak * now * update, net, updates), optimizer, loss

        # A CPU is busy with one net, and has its kernels in the cache; other devices take all cells at once.
        at_once = None if jax.default_backend() == "cpu" else len(peaks)
        return lax.map(lambda cell: of_one(*cell), (peaks, nets, optimizer, masks), batch_size=at_once)

    cells: tuple[Any, ...] = (peaks, state.nets, state.optimizer, state.masks)
    found, optimizer, loss = sharded(of_cells, (), cells, pixels, labels, jnp.asarray(rate(schedule)(state.step)))
    return State(found, optimizer, state.masks, state.step + 1), loss
