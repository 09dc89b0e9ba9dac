"""The GoodNet's rule as a score: how much a repaired net contradicts the BadNet."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Num

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet
from jaxdefend.detectors import GoodNet
from jaxdefend.detectors.base import Fit, Measure, Measures, Scene, Scores
from jaxdefend.nets.batches import Batches
from jaxdefend.nets.devices import on_devices, sharded
from jaxdefend.nets.inference import largest
from jaxdefend.nets.net import Net

# What the score is, on figures.
LABEL = "disagreement, bits"


def measure(settings: GoodNet, net: Net, images: ImageSet, scene: Scene) -> Measures:
    """The disagreement of the scene's repaired net. Raises: InputError if there is none."""
    if scene.repaired is None:
        raise InputError("the detector goodnet asks a repaired net: give it one")
    return {"goodnet": Measure(disagreements(net, scene.repaired, scene.batches(images, "goodnet")))}


def score(measures: Measures, clean: Mapping[str, Fit]) -> Scores:
    """The disagreement itself."""
    return measures["goodnet"].values


def disagreements(badnet: Net, repaired: Net, batches: Batches) -> Float[np.ndarray, " n"]:
    """How much a repaired net contradicts the BadNet: −log₂ of the probability it gives the BadNet's label, in bits.

    Higher means backdoored.
    """
    found = on_devices(_disagreements, (badnet, repaired), batches)
    return np.concatenate([scores[labels >= 0] for scores, labels in found])


@jax.jit
def _disagreements(
    nets: tuple[Net, Net], pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"]
) -> Float[Array, " n"]:
    def of_part(nets: tuple[Net, Net], pixels: Num[Array, "n h w c"]) -> Float[Array, " n"]:
        badnet, repaired = (net.features(pixels, ("logits",))["logits"] for net in nets)
        shares = jax.nn.log_softmax(repaired)
        return -jnp.take_along_axis(shares, largest(badnet)[:, None], axis=1)[:, 0] / jnp.log(2)

    return sharded(of_part, nets, (pixels,))
