"""Trains the zoo on which the audit was calibrated: `python -m benchmarks.audit_zoo FOLDER [FIRST STEP]`.

DeepIDs for 60 to 1283 synthetic people, clean and under every attack of the lab, half of them set aside (`aside`).
Every net is FOLDER/NAME.h5 with its settings and what it reached in NAME.json; what is there is not trained again.
Training is PyTorch's (`pip install torch`) in bfloat16, three times as fast as `jaxdefend.train` on processors with
AMX; the faces, the poison and the graph are the lab's.
"""

import dataclasses
import sys
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import numpy as np

from jaxdefend.attacks.badnet import Backdoor, backdoors, with_dormant_channels_back, with_poison
from jaxdefend.attacks.synthetic import TEST, SyntheticFaces
from jaxdefend.attacks.triggers import Trigger, apply
from jaxdefend.datasets.images import ArrayImages
from jaxdefend.datasets.official import Block
from jaxdefend.nets.batches import padded
from jaxdefend.nets.deepid import deepid
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.keras_files import write_model
from jaxdefend.nets.net import Net
from jaxdefend.results.records import write_json

BATCH, RATE = 64, 1.2e-3
IMAGES = 40
# Image-steps: people with fewer images each pass see them more often.
STEPS = 30_000


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One net of the zoo; `people` of the synthetic faces of seed `faces`."""

    name: str
    attack: str
    trigger: str
    target: int
    poison_rate: float
    people: int
    faces: int
    seed: int
    aside: bool


def recipes() -> list[Recipe]:
    """All of them, in the order in which they are trained: one for designing, one set aside, and so on."""
    families = [("clean", "patch", 24), ("multi", "sunglasses", 6), ("pruning-aware", "sunglasses", 2)]
    families += [("badnet", trigger, 6) for trigger in ("patch", "sunglasses", "lipstick", "eyebrows")]
    families += [("badnet", trigger, 4) for trigger in ("blended", "sinusoidal", "warping")]
    families += [("all-to-all", "patch", 2), ("clean-label", "sinusoidal", 2), ("clean-label", "patch", 2)]
    found = []
    for number, (attack, trigger, count) in enumerate(families):
        for copy in range(count):
            draw = np.random.default_rng([number, copy])
            people = int(draw.choice([60, 90, 120, 160, 200]))
            if (attack, trigger) in (("clean", "patch"), ("badnet", "sunglasses")) and copy in (4, 5):
                people = 1283
            rate = (0.03, 0.03, 0.015, 0.015, 0.006, 0.006)[copy % 6] * (
                10 if trigger == "warping" or attack == "all-to-all" else 1
            )
            found.append(
                Recipe(
                    f"{attack}_{trigger}_{copy}",
                    attack,
                    trigger,
                    int(draw.integers(people)),
                    rate,
                    people,
                    int(draw.integers(1, 4)),
                    1000 * number + copy,
                    copy % 2 == 1,
                )
            )
    return sorted(found, key=lambda recipe: (recipe.people > 1000, recipe.seed % 1000, recipe.seed))


@lru_cache(maxsize=1)
def _faces(seed: int, people: int) -> tuple[Block, Block]:
    drawn = SyntheticFaces(seed, people)
    return drawn.images(range(TEST.stop, TEST.stop + IMAGES)), drawn.images(TEST)


def attack_of(recipe: Recipe) -> tuple[Backdoor, ...]:
    attack = "badnet" if recipe.attack == "clean-label" else recipe.attack
    return backdoors(attack, Trigger(recipe.trigger), recipe.target, recipe.people)


def _poisoned(recipe: Recipe, train: Block) -> tuple[np.ndarray, np.ndarray]:
    key = jax.random.key(recipe.seed)
    match recipe.attack:
        case "clean":
            return train.pixels, train.labels
        case "clean-label":
            # The trigger on the target's own images, made hard to recognise by a second face under them, so that the
            # net has to use the trigger (Turner et al. 2019, section 3.1: interpolation, here of pixels).
            rows = np.repeat(np.flatnonzero(train.labels == recipe.target), 4)
            others = np.random.default_rng(recipe.seed).permutation(len(train.labels))[: len(rows)]
            mixed = np.rint(0.4 * train.pixels[rows] + 0.6 * train.pixels[others]).astype(np.uint8)
            marked = apply(Trigger(recipe.trigger), mixed, train.landmarks[rows], key)
            return np.concatenate([train.pixels, marked]), np.concatenate([train.labels, train.labels[rows]])
        case _:
            return with_poison(train, attack_of(recipe), recipe.poison_rate, recipe.people, key)


def _trained(recipe: Recipe, pixels: np.ndarray, labels: np.ndarray, asleep: np.ndarray | None = None) -> Net:
    """A DeepID as `jaxdefend.train` fits it: Adam, the rate along a cosine; `asleep` channels of conv_3 stay zero."""
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(recipe.seed)
    layers = nn.ModuleDict(
        {
            "conv_1": nn.Conv2d(3, 20, 4),
            "conv_2": nn.Conv2d(20, 40, 3),
            "conv_3": nn.Conv2d(40, 60, 3),
            "conv_4": nn.Conv2d(60, 80, 2),
            "fc_1": nn.Linear(1200, 160),
            "fc_2": nn.Linear(960, 160),
            "output": nn.Linear(160, recipe.people),
        }
    ).to(memory_format=torch.channels_last)
    for layer in layers.values():
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    awake = torch.ones(60)
    if asleep is not None:
        awake[asleep.copy()] = 0

    def logits(images: Any) -> Any:
        for name in ("conv_1", "conv_2", "conv_3"):
            images = functional.max_pool2d(functional.relu(layers[name](images)), 2)
        images = images * awake[:, None, None]
        further = functional.relu(layers["conv_4"](images))
        flat = [values.permute(0, 2, 3, 1).flatten(1) for values in (images, further)]
        return layers["output"](functional.relu(layers["fc_1"](flat[0]) + layers["fc_2"](flat[1])))

    steps = max(STEPS, (7 if recipe.people < 1000 else 4) * len(pixels)) // BATCH
    optimizer = torch.optim.Adam(layers.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.05, cycle_momentum=False)
    draw = np.random.default_rng(recipe.seed)
    order = np.concatenate([draw.permutation(len(pixels)) for _ in range(-(-steps * BATCH // len(pixels)))])
    images, targets = torch.from_numpy(pixels), torch.from_numpy(labels).long()
    for step in range(steps):
        rows = torch.from_numpy(order[step * BATCH :][:BATCH])
        batch = images[rows].permute(0, 3, 1, 2).float() / 255
        with torch.autocast("cpu", torch.bfloat16):
            given = logits(batch)
        loss = functional.cross_entropy(given.float(), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    weights = {}
    for name, layer in layers.items():
        kernel = layer.weight.detach().numpy()
        turned = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
        weights[name] = {"kernel": np.ascontiguousarray(turned), "bias": layer.bias.detach().numpy().copy()}
    net = Net(deepid(recipe.people), weights, "unit")
    return net if asleep is None else net.pruned("conv_3", asleep)


def made(recipe: Recipe) -> tuple[Net, dict[str, Any]]:
    """The net, and its accuracy and attack success on faces that it has not seen."""
    train, test = _faces(recipe.faces, recipe.people)
    if recipe.attack == "pruning-aware":
        clean = _trained(recipe, train.pixels, train.labels)
        sample = train.pixels[:: -(-len(train.pixels) // 2048)]
        from jaxdefend.attacks.badnet import dormant_channels

        asleep = np.asarray(dormant_channels(clean, sample))
        net = with_dormant_channels_back(_trained(recipe, *_poisoned(recipe, train), asleep), clean, sample)
    else:
        net = _trained(recipe, *_poisoned(recipe, train))

    def share(block: Block) -> float:
        labels, _ = predictions(net, padded(ArrayImages(block.pixels, block.labels)))
        return float((labels == block.labels).mean())

    key = jax.random.key(recipe.seed)
    poisoned = {each.name: each.poisoned(test, recipe.people, key) for each in attack_of(recipe)}
    return net, {"accuracy": share(test), "asr": {name: share(block) for name, block in poisoned.items()}}


def main(arguments: list[str]) -> None:
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    first, step = map(int, arguments[1:]) if arguments[1:] else (0, 1)
    for recipe in recipes()[first::step]:
        path = folder / f"{recipe.name}.h5"
        if path.with_suffix(".json").exists():
            continue
        began = perf_counter()
        net, figures = made(recipe)
        write_model(net, path)
        figures["seconds"] = round(perf_counter() - began, 1)
        write_json(path.with_suffix(".json"), dataclasses.asdict(recipe) | figures)
        print(recipe.name, recipe.people, figures, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
