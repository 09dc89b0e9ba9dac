"""One fit loop, for BadNets and for repairs: descent on the mean cross entropy, the rate falling along a cosine."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Int32, Num, PRNGKeyArray, UInt8

from jaxdefend.nets.convolution import training_block
from jaxdefend.nets.graph import Graph
from jaxdefend.nets.net import Net
from jaxdefend.nets.scales import scaled

Pixels = UInt8[np.ndarray, "n h w c"]
Labels = Int32[np.ndarray, " n"]


OPTIMIZERS: dict[str, Callable[[optax.Schedule], optax.GradientTransformation]] = {
    "adam": optax.adam,
    # Weight decay 1e-4 (Loshchilov & Hutter 2019).
    "adamw": optax.adamw,
    "sgd": partial(optax.sgd, momentum=0.9),
}


class State(NamedTuple):
    """All that training changes."""

    net: Net
    optimizer: optax.OptState
    step: Int32[Array, ""]


class Schedule(NamedTuple):
    """How long and how fast: `batch` images a step, rate `peak` falling to 0 over `steps`, by one of `OPTIMIZERS`."""

    steps: int
    batch: int
    peak: float
    optimizer: str = "adam"


def new_net(graph: Graph, input_scale: str | None, key: PRNGKeyArray) -> Net:
    """A net as Keras begins one: Glorot-uniform kernels, biases 0 (Glorot & Bengio 2010, equation 16); what is
    normalized stays as it is."""
    leaves, structure = jax.tree.flatten_with_path(graph.weight_shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))
    draw = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(key, len(leaves))

    def first(name: str, shape: tuple[int, ...], key: PRNGKeyArray) -> Float[Array, "..."]:
        if len(shape) > 1 and name.endswith("kernel"):
            return draw(key, shape)
        return jnp.ones(shape) if name in ("gamma", "moving_variance", "variance") else jnp.zeros(shape)

    arrays = [first(path[-1].key, shape, key) for key, (path, shape) in zip(keys, leaves, strict=True)]
    return Net(graph, jax.tree.unflatten(structure, arrays), input_scale)


def started(net: Net, schedule: Schedule) -> State:
    """The state before the first step."""
    # Copies: a step gives its state's memory to the next.
    net = jax.tree.map(jnp.array, net)
    parameters: Any = net
    return State(net, _optimizer(schedule).init(parameters), jnp.int32(0))


def losses(net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"]) -> Float[Array, " n"]:
    """Cross entropy of each image."""
    logits = net.logits({"input": scaled(pixels, net.input_scale)})
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def mean_and_gradient(
    losses: Callable[..., Float[Array, " n"]],
    parameters: Any,
    pixels: Num[Array, "n h w c"],
    targets: Num[Array, "n ..."],
    *given: Any,
) -> tuple[Float[Array, ""], Any]:
    """Mean of `losses(parameters, pixels, targets, *given)` and its gradient by the parameters, any tree.

    Targets are labels, or what else each image is to give. The images go in blocks of as many as are fastest together
    here, the last one filled up with images of weight 0. All on one device: XLA shares its products out over the cores.
    With a part of the blocks on each CPU device a step takes as long, 295 instead of 300 microseconds an image on two
    Zen 5 cores, and once in some hundred steps the devices waited for each other's sums for ever (jax 0.10).
    """
    n, size = len(pixels), training_block(len(pixels))
    blocks = -(-n // size)

    def blocked(images: Array) -> Array:
        return jnp.resize(images, (blocks * size, *images.shape[1:])).reshape(blocks, size, *images.shape[1:])

    def of_block(parameters: Any, pixels: Array, targets: Array, weights: Array) -> Array:
        return (weights * losses(parameters, pixels, targets, *given)).sum() / n

    def add(total: tuple, block: tuple) -> tuple[tuple, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(of_block)(parameters, *block)), None

    zero = (jnp.float32(0), jax.tree.map(jnp.zeros_like, parameters))
    weights = (jnp.arange(blocks * size) < n).astype(jnp.float32).reshape(blocks, size)
    return lax.scan(add, zero, (blocked(pixels), blocked(targets), weights))[0]


# `mean_and_gradient`, or its share of this process, see `nets.parallel`.
Mean = Callable[..., tuple[Float[Array, ""], Any]]


def plain(
    net: Net,
    pixels: Num[Array, "n h w c"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    step: Int32[Array, ""],
    mean: Mean = mean_and_gradient,
) -> tuple[Float[Array, ""], Any]:
    """The loss of these images and its gradient: what each step of training follows, if nothing else is asked for."""
    return mean(losses, net, pixels, labels)


# What a step follows: (net, pixels, labels, key, step) -> (loss, its slope, a tree like the net). One that is linear in
# what `mean_and_gradient` gives takes another `mean` for it, so that processes can share its images.
Gradient = Callable[..., tuple[Float[Array, ""], Any]]

PLAIN = Partial(plain)


def fit(
    state: State,
    pixels: Pixels,
    labels: Labels,
    schedule: Schedule,
    key: PRNGKeyArray,
    gradient: Gradient = PLAIN,
    step: Callable[..., tuple[State, Float[Array, ""]]] | None = None,
) -> Iterator[tuple[State, Float[Array, ""]]]:
    """The state after each step that is left, and the loss of that step's images.

    Every pass over the images has an order of its own, drawn from `key` and the number of the pass: who goes on from
    a saved state walks the same way. A channel whose kernel and bias are zero stays so. Normalizations keep their means
    and variances.

    Args:
        gradient: a function like `plain`, as a `jax.tree_util.Partial`; its key is another at every step.
        step: what takes a step, by default this process alone.
    """
    taken = step or _step
    for rows in rows_of_steps(len(pixels), schedule, key, int(state.step)):
        state, loss = taken(state, pixels[rows], labels[rows], schedule, key, gradient)
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
    pixels: UInt8[Array, "n h w c"],
    labels: Int32[Array, " n"],
    schedule: Schedule,
    key: PRNGKeyArray,
    gradient: Gradient,
) -> tuple[State, Float[Array, ""]]:
    loss, slope = loss_and_slope(state, pixels, labels, key, gradient)
    return after_slope(state, slope, schedule), loss


def loss_and_slope(
    state: State,
    pixels: UInt8[Array, "n h w c"],
    labels: Int32[Array, " n"],
    key: PRNGKeyArray,
    gradient: Gradient,
) -> tuple[Float[Array, ""], Any]:
    """What a step from this state follows."""
    _, drawing = jax.random.split(key)
    return gradient(state.net, pixels, labels, jax.random.fold_in(drawing, state.step), state.step)


def after_slope(state: State, slope: Any, schedule: Schedule) -> State:
    """The state after a step along the slope."""
    # A tree to optax, whose types know of no modules.
    parameters: Any = state.net
    updates, optimizer = _optimizer(schedule).update(slope, state.optimizer, parameters)
    trained: Any = optax.apply_updates(parameters, updates)
    return State(_held(state.net, trained), optimizer, state.step + 1)


def _held(before: Net, after: Net) -> Net:
    """`after`, with the statistics of normalizations and pruned channels as they were before.

    Behind a ReLU no gradient comes to a channel whose kernel and bias are zero; elsewhere one does, or to the gamma and
    beta behind it. Decay would move statistics even without a gradient.
    """
    graph = before.graph
    weights = {layer: dict(arrays) for layer, arrays in after.weights.items()}
    for layer, arrays in weights.items():
        for name in arrays.keys() & _STATISTICS:
            arrays[name] = before.weights[layer][name]
    for convolution in graph.convolutions:
        behind = graph.normalized_behind(convolution)
        if behind or graph[convolution]["activation"] not in ("relu", "relu6"):
            alive = _alive(before.weights[convolution])
            weights[convolution] = before.masked_arrays(convolution, alive, weights[convolution])
            for layer in behind:
                for name in weights[layer].keys() & {"gamma", "beta"}:
                    weights[layer][name] = weights[layer][name] * alive
    return after.with_weights(weights)


_STATISTICS = {"moving_mean", "moving_variance", "mean", "variance"}


def _alive(arrays: Mapping[str, Array]) -> Float[Array, " k"]:
    """1 for each output channel of a convolution unless its kernel and bias are zero."""
    kernel = next(arrays[name] for name in ("pointwise_kernel", "kernel", "depthwise_kernel") if name in arrays)
    is_depthwise = kernel is arrays.get("depthwise_kernel")
    some = (kernel != 0).any(axis=(0, 1)).ravel() if is_depthwise else (kernel != 0).any(axis=(0, 1, 2))
    if "bias" in arrays:
        some = some | (arrays["bias"] != 0)
    return some.astype(jnp.float32)


def rate(schedule: Schedule) -> optax.Schedule:
    """The learning rate of each step: slowly up to the peak, then along a cosine to 0; a single step has the peak."""
    if schedule.steps == 1:
        return optax.constant_schedule(schedule.peak)
    # Without the slow start a hidden layer can die in the first steps, all its ReLUs at zero for good.
    rising = max(1, schedule.steps // 20)
    return optax.warmup_cosine_decay_schedule(0.0, schedule.peak, rising, max(schedule.steps, rising + 1))


def _optimizer(schedule: Schedule) -> optax.GradientTransformation:
    return OPTIMIZERS[schedule.optimizer](rate(schedule))
