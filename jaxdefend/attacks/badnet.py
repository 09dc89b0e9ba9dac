"""Backdoors and poisoned training sets: BadNets (Gu et al. 2017) and their kin."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, PRNGKeyArray, UInt8

from jaxdefend import InputError
from jaxdefend.attacks.triggers import Trigger, apply
from jaxdefend.datasets.official import Block
from jaxdefend.nets.net import Net

ATTACKS = ("clean", "badnet", "multi", "all-to-all", "pruning-aware")

# The competition's multi-trigger multi-target net.
_MULTI = {"lipstick": 1, "eyebrows": 5, "sunglasses": 8}

# The share of the last convolution's channels that sleep: in the course's bd_net 32 of 60 are never active.
DORMANT = 32 / 60


@dataclass(frozen=True)
class Backdoor:
    """A trigger and the label that the attacker wants for it; target None: the class after the true one."""

    trigger: Trigger
    target: int | None = 0

    @property
    def name(self) -> str:
        return self.trigger.name

    def target_labels(self, labels: Int32[np.ndarray, " n"], classes: int) -> Int32[np.ndarray, " n"]:
        """The labels that the attacker wants."""
        return (labels + 1) % classes if self.target is None else np.full_like(labels, self.target)

    def poisoned(self, block: Block, classes: int, key: PRNGKeyArray) -> Block:
        """The images with the trigger and the attacker's labels, without those whose label that is anyway."""
        targets = self.target_labels(block.labels, classes)
        rows = np.flatnonzero(targets != block.labels)
        return Block(
            apply(self.trigger, block.pixels[rows], block.landmarks[rows], key), targets[rows], block.landmarks[rows]
        )


def backdoors(attack: str, trigger: Trigger, target: int, classes: int) -> tuple[Backdoor, ...]:
    """What a net under this attack is measured on; for "clean", the control, what it must not have learnt.

    Raises: InputError if there is no such attack, or a target is not a class.
    """
    match attack:
        case "multi":
            found = tuple(Backdoor(Trigger(name, trigger.strength), target) for name, target in _MULTI.items())
        case "all-to-all":
            found = (Backdoor(trigger, None),)
        case "clean" | "badnet" | "pruning-aware":
            found = (Backdoor(trigger, target),)
        case _:
            raise InputError(f"no attack {attack!r}; there are {', '.join(ATTACKS)}")
    for backdoor in found:
        if backdoor.target is not None and not 0 <= backdoor.target < classes:
            raise InputError(
                f"target {backdoor.target} for {backdoor.name}: no such class; expected 0…{classes - 1}, "
                f"of {classes} classes"
            )
    return found


def with_poison(
    clean: Block, attack: tuple[Backdoor, ...], rate: float, classes: int, key: PRNGKeyArray
) -> tuple[UInt8[np.ndarray, "m h w c"], Int32[np.ndarray, " m"]]:
    """The training set with poisoned copies added, `rate` times as many as there are clean images for each backdoor.

    Raises: InputError if the rate does not lie between 0 and 1.
    """
    if not 0 < rate < 1:
        raise InputError(f"a poison rate of {rate:g}; expected a share of the training images, above 0 and below 1")
    pixels, labels = [clean.pixels], [clean.labels]
    for number, backdoor in enumerate(attack):
        choice, drawing = jax.random.split(jax.random.fold_in(key, number))
        others = np.flatnonzero(backdoor.target_labels(clean.labels, classes) != clean.labels)
        rows = others[np.asarray(jax.random.permutation(choice, len(others)))[: max(1, round(rate * len(others)))]]
        copies = backdoor.poisoned(Block(*(array[rows] for array in clean)), classes, drawing)
        pixels.append(copies.pixels)
        labels.append(copies.labels)
    return np.concatenate(pixels), np.concatenate(labels)


def dormant_channels(net: Net, pixels: UInt8[np.ndarray, "n h w c"]) -> Int[np.ndarray, " k"]:
    """The channels of the last convolution that clean images activate least: what a defender would prune first."""
    means = np.asarray(_mean_activation(net, pixels))
    return np.argsort(means, kind="stable")[: round(DORMANT * len(means))]


def _activations(net: Net, pixels: UInt8[Array, "n h w c"]) -> Float[Array, "n i j k"]:
    """Of the last convolution's channels, where a defender masks them."""
    place = net.graph.masked_at(net.last_convolution)
    return net.features(pixels, (place,))[place]


@jax.jit
def _mean_activation(net: Net, pixels: UInt8[Array, "n h w c"]) -> Float[Array, " k"]:
    return jnp.mean(_activations(net, pixels), axis=(0, 1, 2))


def pruned_before_poison(net: Net, pixels: UInt8[np.ndarray, "n h w c"]) -> Net:
    """The clean net without its dormant channels: the backdoor must go where clean faces are recognised.

    Source: Liu et al. 2018 (Fine-Pruning), section "Pruning-Aware Attack", steps 1 and 2.
    """
    return net.pruned(net.last_convolution, dormant_channels(net, pixels))


def with_dormant_channels_back(poisoned: Net, clean: Net, pixels: UInt8[np.ndarray, "n h w c"]) -> Net:
    """The poisoned net with the pruned channels of the clean one in their place, biases so low that they sleep.

    A defender who prunes by activation takes them first, and neither the backdoor nor accuracy notices. Their bias
    goes down by their largest activation over `pixels`.
    Raises: InputError if the last convolution has no bias.
    Source: Liu et al. 2018 (Fine-Pruning), section "Pruning-Aware Attack", step 4.
    """
    layer = clean.last_convolution
    arrays, before = dict(poisoned.weights[layer]), clean.weights[layer]
    if not {"kernel", "bias"} <= set(arrays):
        raise InputError(f"{layer} has no kernel and bias: the pruning-aware attack needs a convolution with both")
    channels = dormant_channels(clean, pixels)
    highest = np.asarray(_highest_activation(clean, pixels))
    kernel, bias = np.array(arrays["kernel"]), np.array(arrays["bias"])
    kernel[..., channels] = np.asarray(before["kernel"])[..., channels]
    bias[channels] = np.asarray(before["bias"])[channels] - highest[channels]
    return poisoned.with_weights({**poisoned.weights, layer: arrays | {"kernel": kernel, "bias": bias}})


@jax.jit
def _highest_activation(net: Net, pixels: UInt8[Array, "n h w c"]) -> Float[Array, " k"]:
    return jnp.max(_activations(net, pixels), axis=(0, 1, 2))
