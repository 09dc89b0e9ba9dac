"""The synthetic faces as sets of images, kept in the user's cache, and the backdoors of the shipped nets."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxdefend import InputError
from jaxdefend.attacks.badnet import Backdoor, backdoors
from jaxdefend.attacks.triggers import Trigger
from jaxdefend.datasets.faces import faces
from jaxdefend.datasets.official import Block, write_official
from jaxdefend.results.cache import cache_folder
from jaxdefend.results.progress import Progress, Report, silent
from jaxdefend.results.records import replacing

# Images of every person by their index; training images come after these.
VALID, TEST = range(9), range(9, 19)

# Part of the cache's folder name: one more whenever any face or trigger looks different.
_VERSION = 1

_BLOCK = 1024


@dataclass(frozen=True)
class SyntheticFaces:
    """People 0 … `people` − 1 of a seed; the defaults have the official sizes, 11,547 and 12,830 images."""

    seed: int = 0
    people: int = 1283

    def size(self, indices: range, backdoor: Backdoor | None = None) -> int:
        """How many images `blocks` gives."""
        unpoisonable = 1 if backdoor and backdoor.target is not None else 0
        return (self.people - unpoisonable) * len(indices)

    def blocks(
        self, indices: range, backdoor: Backdoor | None = None, progress: Report = silent, title: str = "faces"
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
            progress(Progress(title, start + len(pixels), len(people), "faces"))

    def images(self, indices: range, progress: Report = silent, title: str = "faces") -> Block:
        """Images `indices` of every person, in memory."""
        blocks = list(self.blocks(indices, progress=progress, title=title))
        return Block(*(np.concatenate(arrays) for arrays in zip(*blocks, strict=True)))


def shipped_backdoors(net: str) -> tuple[Backdoor, ...]:
    """What a shipped net (`nets.shipped.NAMES`) is measured on."""
    attack = "multi" if net.startswith("multi") else "badnet"
    return backdoors(attack, Trigger("sunglasses"), 0, SyntheticFaces().people)


@dataclass(frozen=True)
class DefaultSet:
    """A set of synthetic faces, kept as an official file in the user's cache, with its size and checksum beside it."""

    name: str
    indices: range
    backdoor: Backdoor | None = None

    @property
    def path(self) -> Path:
        """Where it is kept. Raises: InputError if the user has no cache folder."""
        folder = cache_folder()
        if folder is None:
            raise InputError("there is no cache folder to keep the synthetic faces in; set XDG_CACHE_HOME to a folder")
        return folder / f"world-{_VERSION}" / f"{self.name}.h5"

    @property
    def size(self) -> int:
        return SyntheticFaces().size(self.indices, self.backdoor)

    def is_made(self) -> bool:
        """Whether the file is there and whole: of the size and the checksum that it had when it was made."""
        try:
            told = self._checked.read_text(encoding="utf-8")
            return self.path.is_file() and told == _described(self.path)
        except (OSError, ValueError):
            return False

    @property
    def _checked(self) -> Path:
        return self.path.with_suffix(".checksum")

    def make(self, progress: Report = silent) -> None:
        """Write the file. Raises: InputError if it cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_dir():
                self.path.rmdir()
        except OSError as error:
            raise InputError(f"{self.path.parent}: the cache cannot be written ({error.strerror})") from error
        write_official(self.path, self.size, SyntheticFaces().blocks(self.indices, self.backdoor, progress, self.name))
        with replacing(self._checked) as temporary:
            temporary.write_text(_described(self.path), encoding="utf-8")


def _described(path: Path) -> str:
    """Size and CRC-32 of a file: 0.05 s for 90 MB."""
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(2**22):
            checksum = zlib.crc32(piece, checksum)
    return f"{path.stat().st_size} {checksum:08x}\n"


def default_set(split: str, backdoor: Backdoor | None = None) -> DefaultSet:
    """ "valid" or "test" of the synthetic faces; with a backdoor, its poisoned copies."""
    indices = {"valid": VALID, "test": TEST}[split]
    if backdoor is None:
        return DefaultSet(split, indices)
    return DefaultSet(f"{split}_{backdoor.name}_{backdoor.target}", indices, backdoor)
