"""The world that comes with jaxdefend: its people, their images as sets, and the shipped nets that live in it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxdefend import InputError
from jaxdefend.attacks.badnet import Backdoor, backdoors
from jaxdefend.attacks.triggers import Trigger
from jaxdefend.datasets.faces import faces
from jaxdefend.datasets.official import Block, write_official

# Images of every person by their index; training images come after these.
VALID, TEST = range(9), range(9, 19)

# Part of the cache's folder name: one more whenever any face or trigger looks different.
_VERSION = 1

_BLOCK = 1024

Progress = Callable[[int], None]


@dataclass(frozen=True)
class World:
    """People 0 … `people` − 1 of a seed; the defaults have the official sizes, 11,547 and 12,830 images."""

    seed: int = 0
    people: int = 1283

    def size(self, indices: range, backdoor: Backdoor | None = None) -> int:
        """How many images `blocks` gives."""
        unpoisonable = 1 if backdoor and backdoor.target is not None else 0
        return (self.people - unpoisonable) * len(indices)

    def blocks(
        self, indices: range, backdoor: Backdoor | None = None, progress: Progress = lambda done: None
    ) -> Iterator[Block]:
        """Images `indices` of every person, person by person; with a backdoor, their poisoned copies."""
        key = jax.random.key(self.seed)
        people, numbers = np.repeat(np.arange(self.people), len(indices)), np.tile(indices, self.people)
        for start in range(0, len(people), _BLOCK):
            rows = slice(start, start + _BLOCK)
            pixels, landmarks = faces(self.seed, people[rows], numbers[rows])
            block = Block(pixels, people[rows].astype(np.int32), landmarks)
            if backdoor:
                block = backdoor.poisoned(block, self.people, jax.random.fold_in(key, start))
            if len(block.pixels):
                yield block
            progress(len(pixels))

    def images(self, indices: range, progress: Progress = lambda done: None) -> Block:
        """Images `indices` of every person, in memory."""
        blocks = list(self.blocks(indices, progress=progress))
        return Block(*(np.concatenate(arrays) for arrays in zip(*blocks, strict=True)))


def shipped_backdoors(net: str) -> tuple[Backdoor, ...]:
    """What a shipped net (`nets.shipped.NAMES`) is measured on."""
    attack = "multi" if net.startswith("multi") else "badnet"
    return backdoors(attack, Trigger("sunglasses"), 0, World().people)


@dataclass(frozen=True)
class DefaultSet:
    """A set of the default world, kept as an official file in the user's cache."""

    name: str
    indices: range
    backdoor: Backdoor | None = None

    @property
    def path(self) -> Path:
        from platformdirs import user_cache_path

        return user_cache_path("jaxdefend", appauthor=False) / f"world-{_VERSION}" / f"{self.name}.h5"

    @property
    def size(self) -> int:
        return World().size(self.indices, self.backdoor)

    def make(self, progress: Progress) -> None:
        """Write the file. Raises: InputError if it cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path.parent}: the cache cannot be written ({error.strerror})") from error
        write_official(self.path, self.size, World().blocks(self.indices, self.backdoor, progress))


def default_set(split: str, backdoor: Backdoor | None = None) -> DefaultSet:
    """ "valid" or "test" of the default world; with a backdoor, its poisoned copies."""
    indices = {"valid": VALID, "test": TEST}[split]
    if backdoor is None:
        return DefaultSet(split, indices)
    return DefaultSet(f"{split}_{backdoor.name}_{backdoor.target}", indices, backdoor)
