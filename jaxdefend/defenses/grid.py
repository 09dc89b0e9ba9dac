"""Fine-tunings with different settings, trained at once: stacked nets, one compiled step for all of them."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Int32, PRNGKeyArray, UInt8

from jaxdefend.defenses.gradual import COMPLETE, FIRST_SPARSITY, LAST_SPARSITY, share_below, zhu_gupta
from jaxdefend.nets.deepid import DeepID, from_weights, to_weights
from jaxdefend.nets.devices import each
from jaxdefend.nets.training import Labels, Pixels, Schedule, losses, mean_and_gradient, rate, rows_of_steps

# Steps after which the smallest weights are looked for again; TensorFlow Model Optimization: 100.
_FREQUENCY = 20

_ADAM = optax.scale_by_adam()

Method = Literal["fine-prune", "magnitude"]


class Cell(NamedTuple):
    """One fine-tuning: of the channels, or in the end of the weights of each kernel, `fraction` is zero."""

    method: Method
    fraction: float
    learning_rate: float


class State(NamedTuple):
    """All that training changes; each array of nets, optimizer and masks has the cells as its first axis."""

    nets: DeepID
    optimizer: Any
    masks: DeepID
    step: Int32[Array, ""]


def begun(net: DeepID, cells: Sequence[Cell], layer: str, order: Int[np.ndarray, " c"]) -> State:
    """The state before the first step; fine-prune cells have the first of the channels in `order` masked."""

    def mask(cell: Cell) -> DeepID:
        ones = {
            name: {key: np.ones_like(array) for key, array in arrays.items()}
            for name, arrays in to_weights(net).items()
        }
        if cell.method == "fine-prune":
            for array in ones[layer].values():
                array[..., order[: round(cell.fraction * len(order))]] = 0
        return from_weights(ones, net.input_scale)

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


def nets(state: State, cells: Sequence[Cell]) -> list[DeepID]:
    """The repaired net of each cell."""
    masked = jax.device_get(jax.tree.map(jnp.multiply, state.nets, state.masks))
    return [jax.tree.map(lambda array, i=i: array[i], masked) for i in range(len(cells))]


@partial(jax.jit, static_argnames="steps")
def _masked_anew(state: State, last: Float[Array, " g"], steps: int) -> DeepID:
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
    pixels: UInt8[Array, "n 55 47 3"],
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
    found, optimizer, loss = each(of_cells, (), cells, pixels, labels, jnp.asarray(rate(schedule)(state.step)))
    return State(found, optimizer, state.masks, state.step + 1), loss
