"""Backdoors and poisoned training sets: BadNets (Gu et al. 2017) and their kin."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, PRNGKeyArray, UInt8

from jaxdefend import InputError
from jaxdefend.attacks.triggers import Trigger, apply
from jaxdefend.datasets.official import Block
from jaxdefend.nets.deepid import DeepID, features, from_weights, to_weights, with_channels_zeroed

ATTACKS = ("clean", "badnet", "multi", "all-to-all", "pruning-aware")

# The competition's multi-trigger multi-target net.
_MULTI = {"lipstick": 1, "eyebrows": 5, "sunglasses": 8}

# Of the 60 channels of conv_3: as many as are never active in the course's bd_net.
DORMANT = 32


@dataclass(frozen=True)
class Backdoor:
    """A trigger and the label that the attacker wants for it; target None: the class after the true one."""

    trigger: Trigger
    target: int | None = 0

    @property
    def name(self) -> str:
        return self.trigger.name

    def aims(self, labels: Int32[np.ndarray, " n"], classes: int) -> Int32[np.ndarray, " n"]:
        """The labels that the attacker wants."""
        return (labels + 1) % classes if self.target is None else np.full_like(labels, self.target)

    def poisoned(self, block: Block, classes: int, key: PRNGKeyArray) -> Block:
        """The images with the trigger and the attacker's labels, without those whose label that is anyway."""
        aims = self.aims(block.labels, classes)
        rows = np.flatnonzero(aims != block.labels)
        return Block(
            apply(self.trigger, block.pixels[rows], block.landmarks[rows], key), aims[rows], block.landmarks[rows]
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
                f"for {classes} people"
            )
    return found


def with_poison(
    clean: Block, attack: tuple[Backdoor, ...], rate: float, classes: int, key: PRNGKeyArray
) -> tuple[UInt8[np.ndarray, "m 55 47 3"], Int32[np.ndarray, " m"]]:
    """The training set with poisoned copies added, `rate` times as many as there are clean images for each backdoor.

    Raises: InputError if the rate does not lie between 0 and 1.
    """
    if not 0 < rate < 1:
        raise InputError(f"a poison rate of {rate:g}; expected a share of the training images, above 0 and below 1")
    pixels, labels = [clean.pixels], [clean.labels]
    for number, backdoor in enumerate(attack):
        choice, drawing = jax.random.split(jax.random.fold_in(key, number))
        others = np.flatnonzero(backdoor.aims(clean.labels, classes) != clean.labels)
        rows = others[np.asarray(jax.random.permutation(choice, len(others)))[: max(1, round(rate * len(others)))]]
        copies = backdoor.poisoned(Block(*(array[rows] for array in clean)), classes, drawing)
        pixels.append(copies.pixels)
        labels.append(copies.labels)
    return np.concatenate(pixels), np.concatenate(labels)


def dormant_channels(net: DeepID, pixels: UInt8[np.ndarray, "n 55 47 3"]) -> Int[np.ndarray, " c"]:
    """The `DORMANT` channels of conv_3 that clean images activate least: what a defender would prune first."""
    return np.argsort(np.asarray(_mean_activation(net, pixels)), kind="stable")[:DORMANT]


@jax.jit
def _mean_activation(net: DeepID, pixels: UInt8[Array, "n 55 47 3"]) -> Float[Array, " c"]:
    return jnp.mean(features(net, pixels, ("pool_3",))["pool_3"], axis=(0, 1, 2))


def pruned_before_poison(net: DeepID, pixels: UInt8[np.ndarray, "n 55 47 3"]) -> DeepID:
    """The clean net without its dormant channels: the backdoor must go where clean faces are recognised.

    Source: Liu et al. 2018 (Fine-Pruning), section "Pruning-Aware Attack", steps 1 and 2.
    """
    return with_channels_zeroed(net, "conv_3", dormant_channels(net, pixels))


def with_dormant_channels_back(poisoned: DeepID, clean: DeepID, pixels: UInt8[np.ndarray, "n 55 47 3"]) -> DeepID:
    """The poisoned net with the pruned channels of the clean one in their place, biases so low that they sleep.

    A defender who prunes by activation takes them first, and neither the backdoor nor accuracy notices. Their bias
    goes down by their largest activation over `pixels`.
    Source: Liu et al. 2018 (Fine-Pruning), section "Pruning-Aware Attack", step 4.
    """
    channels = dormant_channels(clean, pixels)
    weights, before = to_weights(poisoned), to_weights(clean)
    highest = np.asarray(_highest_activation(clean, pixels))
    kernel, bias = weights["conv_3"]["kernel"].copy(), weights["conv_3"]["bias"].copy()
    kernel[..., channels] = before["conv_3"]["kernel"][..., channels]
    bias[channels] = before["conv_3"]["bias"][channels] - highest[channels]
    return from_weights(weights | {"conv_3": {"kernel": kernel, "bias": bias}}, poisoned.input_scale)


@jax.jit
def _highest_activation(net: DeepID, pixels: UInt8[Array, "n 55 47 3"]) -> Float[Array, " c"]:
    return jnp.max(features(net, pixels, ("pool_3",))["pool_3"], axis=(0, 1, 2))
