"""One fit loop, for BadNets and for repairs: descent on the mean cross entropy, the rate falling along a cosine."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Int32, Num, PRNGKeyArray, UInt8

from jaxdefend.nets.convolution import training_block
from jaxdefend.nets.deepid import DeepID, InputScale, activations, scaled

Pixels = UInt8[np.ndarray, "n 55 47 3"]
Labels = Int32[np.ndarray, " n"]


OPTIMIZERS: dict[str, Callable[[optax.Schedule], optax.GradientTransformation]] = {
    "adam": optax.adam,
    # Weight decay 1e-4 (Loshchilov & Hutter 2019).
    "adamw": optax.adamw,
    "sgd": partial(optax.sgd, momentum=0.9),
}


class State(NamedTuple):
    """All that training changes."""

    net: DeepID
    optimizer: optax.OptState
    step: Int32[Array, ""]


class Schedule(NamedTuple):
    """How long and how fast: `batch` images a step, rate `peak` falling to 0 over `steps`, by one of `OPTIMIZERS`."""

    steps: int
    batch: int
    peak: float
    optimizer: str = "adam"


def new_net(classes: int, input_scale: InputScale, key: PRNGKeyArray) -> DeepID:
    """A net as Keras begins one: Glorot-uniform kernels, biases 0 (Glorot & Bengio 2010, equation 16)."""
    shapes = nnx.eval_shape(lambda: DeepID(classes, rngs=nnx.Rngs(0), input_scale=input_scale))
    leaves, structure = jax.tree.flatten(shapes)
    draw = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(key, len(leaves))
    arrays = [
        draw(key, leaf.shape) if len(leaf.shape) > 1 else jnp.zeros(leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, arrays)


def started(net: DeepID, schedule: Schedule) -> State:
    """The state before the first step."""
    # Copies: a step gives its state's memory to the next.
    net = jax.tree.map(jnp.array, net)
    parameters: Any = net
    return State(net, _optimizer(schedule).init(parameters), jnp.int32(0))


def losses(net: DeepID, pixels: Num[Array, "n 55 47 3"], labels: Int32[Array, " n"]) -> Float[Array, " n"]:
    """Cross entropy of each image."""
    logits = activations(net, {"input": scaled(pixels, net.input_scale)}, ["logits"])["logits"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def mean_and_gradient(
    losses: Callable[..., Float[Array, " n"]],
    parameters: Any,
    pixels: Num[Array, "n 55 47 3"],
    targets: Num[Array, "n ..."],
) -> tuple[Float[Array, ""], Any]:
    """Mean of `losses(parameters, pixels, targets)` and its gradient by the parameters, any tree.

    Targets are labels, or what else each image is to give. The images go in blocks of as many as are fastest together
    here.
    """
    n, size = len(pixels), training_block(len(pixels))

    def of_block(parameters: Any, pixels: Array, targets: Array) -> Array:
        return losses(parameters, pixels, targets).sum() / n

    def add(total: tuple, block: tuple) -> tuple[tuple, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(of_block)(parameters, *block)), None

    zero = (jnp.float32(0), jax.tree.map(jnp.zeros_like, parameters))
    blocks = jax.tree.map(lambda x: x.reshape(n // size, size, *x.shape[1:]), (pixels, targets))
    return lax.scan(add, zero, blocks)[0]


def plain(
    net: DeepID,
    pixels: Num[Array, "n 55 47 3"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    step: Int32[Array, ""],
) -> tuple[Float[Array, ""], Any]:
    """The loss of these images and its gradient: what each step of training follows, if nothing else is asked for."""
    return mean_and_gradient(losses, net, pixels, labels)


PLAIN = Partial(plain)


def fit(
    state: State,
    pixels: Pixels,
    labels: Labels,
    schedule: Schedule,
    key: PRNGKeyArray,
    gradient: Partial = PLAIN,
) -> Iterator[tuple[State, Float[Array, ""]]]:
    """The state after each step that is left, and the loss of that step's images.

    Every pass over the images has an order of its own, drawn from `key` and the number of the pass: who goes on from
    a saved state walks the same way. A channel whose kernel and bias are zero stays so: behind its ReLU no gradient
    comes.

    Args:
        gradient: a function like `plain`; its key is another at every step.
    """
    for rows in rows_of_steps(len(pixels), schedule, key, int(state.step)):
        state, loss = _step(state, pixels[rows], labels[rows], schedule, key, gradient)
        yield state, loss


def rows_of_steps(n: int, schedule: Schedule, key: PRNGKeyArray, done: int) -> Iterator[Int[np.ndarray, " b"]]:
    """Which of `n` images each step takes, from step `done` on: every pass in an order of its own."""
    at_once = min(schedule.batch, n)
    passes = n // at_once
    order, number = None, -1
    for step in range(done, schedule.steps):
        if step // passes != number or order is None:
            number = step // passes
            order = np.asarray(jax.random.permutation(jax.random.fold_in(key, number), n))
        yield order[step % passes * at_once :][:at_once]


@partial(jax.jit, static_argnames="schedule", donate_argnames="state")
def _step(
    state: State,
    pixels: UInt8[Array, "n 55 47 3"],
    labels: Int32[Array, " n"],
    schedule: Schedule,
    key: PRNGKeyArray,
    gradient: Partial,
) -> tuple[State, Float[Array, ""]]:
    # A tree to optax, whose types know of no modules.
    parameters: Any = state.net
    _, drawing = jax.random.split(key)
    loss, slope = gradient(parameters, pixels, labels, jax.random.fold_in(drawing, state.step), state.step)
    updates, optimizer = _optimizer(schedule).update(slope, state.optimizer, parameters)
    net: Any = optax.apply_updates(parameters, updates)
    return State(net, optimizer, state.step + 1), loss


def rate(schedule: Schedule) -> optax.Schedule:
    """The learning rate of each step: slowly up to the peak, then along a cosine down to 0."""
    # Without the slow start a hidden layer can die in the first steps, all its ReLUs at zero for good.
    rising = max(1, schedule.steps // 20)
    return optax.warmup_cosine_decay_schedule(0.0, schedule.peak, rising, max(schedule.steps, rising + 1))


def _optimizer(schedule: Schedule) -> optax.GradientTransformation:
    return OPTIMIZERS[schedule.optimizer](rate(schedule))
