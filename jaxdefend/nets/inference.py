"""Labels of a net for many images, and the input scale at which it recognises them."""

from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Num

from jaxdefend.nets.convolution import apart
from jaxdefend.nets.deepid import INPUT_SCALES, DeepID, InputScale, features, with_input_scale
from jaxdefend.nets.devices import each, on_devices, over_processes
from jaxdefend.results.rates import interval

# Pixels 0–255 and labels, each batch of the same size; labels below 0 are padding.
Batches = Iterable[tuple[Num[np.ndarray, "b 55 47 3"], Int32[np.ndarray, " b"]]]

# Of the real nets, on raw pixels: trained on raw ones, logits spread by 42 (standard deviation); trained on divided
# ones, by 2,777 or more. This lies between, at the same ratio to both.
_WIDEST_RAW_SPREAD = 340.0

# Below this share of right answers no scale is convincing.
_CONVINCING_ACCURACY = 0.5


def largest(logits: Float[Array, "n k"]) -> Int32[Array, " n"]:
    """`argmax(logits, -1)`, the first one on a tie, by two reductions that XLA joins with what they read.

    Microseconds of two Xeon cores for fc_2, output and this, an image, jax 0.10: 5.7 with classes as integers and the
    maximum not `apart`; 4.8 as here; 4.4 the maximum alone. By `argmax` the 61-point curve takes half as long again.
    """
    top = apart(logits.max(axis=-1, keepdims=True))
    # Whole numbers below 2²⁴ are exact.
    classes = lax.broadcasted_iota(jnp.float32, logits.shape, 1)
    return jnp.where(logits == top, classes, logits.shape[1]).min(axis=-1).astype(jnp.int32)


def entropy(logits: Float[Array, "*n k"]) -> Float[Array, "*n"]:
    """Shannon entropy of softmax(logits), in bits: never negative, and 0 where one class takes all."""
    # Cut off where float32 shares are zero, so that logits of any size give no 0 × −∞.
    shares = jnp.maximum(jax.nn.log_softmax(logits), -1e3)
    return jnp.maximum(-(jnp.exp(shares) * shares).sum(axis=-1), 0) / jnp.log(2)


@jax.jit
def labels_and_confidences(
    net: DeepID, pixels: Num[Array, "n 55 47 3"]
) -> tuple[Int32[Array, " n"], Float[Array, " n"]]:
    """The label of each image and its softmax probability; pixels 0–255."""

    def of_part(net: DeepID, pixels: Num[Array, "n 55 47 3"]) -> tuple[Int32[Array, " n"], Float[Array, " n"]]:
        logits = features(net, pixels, ("logits",))["logits"]
        return largest(logits), jnp.exp(logits.max(axis=-1) - jax.nn.logsumexp(logits, axis=-1))

    return each(of_part, net, (pixels,))


def predictions(net: DeepID, batches: Batches) -> tuple[Int32[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """`labels_and_confidences` for all images of the batches, padding left out."""
    results = [
        (found[labels >= 0], shares[labels >= 0]) for (found, shares), labels in on_devices(_predicted, net, batches)
    ]
    return np.concatenate([found for found, _ in results]), np.concatenate([shares for _, shares in results])


def _predicted(
    net: DeepID, pixels: Num[Array, "n 55 47 3"], labels: Int32[Array, " n"]
) -> tuple[Int32[Array, " n"], Float[Array, " n"]]:
    return labels_and_confidences(net, pixels)


@dataclass(frozen=True)
class ScaleMeasurement:
    """How many of `n` labelled clean images a net recognises at each input scale."""

    n: int
    correct: dict[InputScale, int]

    @property
    def input_scale(self) -> InputScale:
        """The better one; unit if both are equal."""
        return "raw" if self.correct["raw"] > self.correct["unit"] else "unit"

    @property
    def is_convincing(self) -> bool:
        """Whether the better scale recognises most images, and its 95 % interval lies above the other's."""
        best, worst = max(self.correct.values()), min(self.correct.values())
        return best >= _CONVINCING_ACCURACY * self.n and interval(best, self.n)[0] > interval(worst, self.n)[1]


def measured_input_scale(net: DeepID, batches: Batches) -> ScaleMeasurement:
    """How well the net recognises labelled clean images under both scales; over the images of all processes."""
    nets: dict[InputScale, DeepID] = {scale: with_input_scale(net, scale) for scale in INPUT_SCALES}
    counts = np.zeros(1 + len(nets), np.int64)
    for found, labels in on_devices(_labels_of_each, nets, batches):
        counts += [(labels >= 0).sum(), *((found[scale] == labels).sum() for scale in nets)]
    n, *correct = over_processes(counts).tolist()
    return ScaleMeasurement(n, dict(zip(nets, correct, strict=True)))


def _labels_of_each(
    nets: dict[InputScale, DeepID], pixels: Num[Array, "n 55 47 3"], labels: Int32[Array, " n"]
) -> dict[InputScale, Int32[Array, " n"]]:
    return {scale: labels_and_confidences(net, pixels)[0] for scale, net in nets.items()}


def assumed_input_scale(net: DeepID, pixels: Num[np.ndarray, "n 55 47 3"]) -> tuple[InputScale, float]:
    """The scale to assume where no image is labelled, and the spread of the logits on raw pixels that says so.

    A net that was trained on divided pixels answers raw ones with logits in the thousands.
    """
    spread = float(_spread(with_input_scale(net, "raw"), pixels))
    return ("unit" if spread > _WIDEST_RAW_SPREAD else "raw"), spread


@jax.jit
def _spread(net: DeepID, pixels: Num[Array, "n 55 47 3"]) -> Float[Array, ""]:
    return features(net, pixels, ("logits",))["logits"].std(axis=-1).mean()
