"""Labels of a net for many images, and the input scale at which it recognises them."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Num

from jaxdefend.datasets.images import ImageSet, as_images
from jaxdefend.nets import kinds
from jaxdefend.nets.backend import apart
from jaxdefend.nets.batches import BATCH, Batches, batches
from jaxdefend.nets.devices import gathered, on_devices, over_processes, sharded
from jaxdefend.nets.net import Net
from jaxdefend.nets.scales import NAMED
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.rates import Rate

# Of the real nets, on raw pixels: trained on raw ones, logits spread by 42 (standard deviation); trained on divided
# ones, by 2,777 or more. This lies between, at the same ratio to both.
_WIDEST_RAW_SPREAD = 340.0
# Of MNIST nets trained on divided pixels 1,883 or more. Between these nothing is sure.
_RAW_SPREAD, _DIVIDED_SPREAD = 120.0, 1000.0

# Below this share of correct answers, or this lead, no scale is convincing.
_CONVINCING_ACCURACY = 0.5
_CONVINCING_LEAD = 0.05


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
def labels_and_confidences(net: Net, pixels: Num[Array, "n h w c"]) -> tuple[Int32[Array, " n"], Float[Array, " n"]]:
    """The label of each image and its softmax probability; pixels 0–255."""

    def of_part(net: Net, pixels: Num[Array, "n h w c"]) -> tuple[Int32[Array, " n"], Float[Array, " n"]]:
        logits = net.features(pixels, ("logits",))["logits"]
        return largest(logits), jnp.exp(logits.max(axis=-1) - jax.nn.logsumexp(logits, axis=-1))

    return sharded(of_part, net, (pixels,))


def logits_of(net: Net, images: object) -> Float[np.ndarray, "n k"]:
    """Logits of all images, whatever `as_images` takes."""
    shown = as_images(images, net.image_shape)
    found = [logits[labels >= 0] for logits, labels in on_devices(_logits, net, batches(shown))]
    return gathered(np.concatenate(found), len(shown))


def predicted(
    net: Net, images: ImageSet, title: str = "images", report: Report = silent, smallest: int = BATCH
) -> tuple[Int32[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """`labels_and_confidences` for all images, of which every process of the run takes its part."""
    return gathered(predictions(net, batches(images, title, report, smallest)), len(images))


@jax.jit
def _logits(net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"]) -> Float[Array, "n k"]:
    def of_part(net: Net, pixels: Num[Array, "n h w c"]) -> Float[Array, "n k"]:
        return net.features(pixels, ("logits",))["logits"]

    return sharded(of_part, net, (pixels,))


def predictions(net: Net, batches: Batches) -> tuple[Int32[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """`labels_and_confidences` for all images of the batches, padding left out."""
    results = [
        (found[labels >= 0], shares[labels >= 0]) for (found, shares), labels in on_devices(_predicted, net, batches)
    ]
    return np.concatenate([found for found, _ in results]), np.concatenate([shares for _, shares in results])


def _predicted(
    net: Net, pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"]
) -> tuple[Int32[Array, " n"], Float[Array, " n"]]:
    return labels_and_confidences(net, pixels)


@dataclass(frozen=True)
class ScaleMeasurement:
    """How many of `n` labelled clean images a net recognises at each input scale."""

    n: int
    correct: dict[str, int]

    @property
    def input_scale(self) -> str:
        """The best one; of equal ones the first of unit, symmetric, raw."""
        return max(("unit", "symmetric", "raw"), key=lambda scale: self.correct[scale])

    @property
    def recognises_most(self) -> bool:
        """Whether the net recognises most of the images at the best scale."""
        return max(self.correct.values()) >= _CONVINCING_ACCURACY * self.n

    @property
    def candidates(self) -> tuple[str, ...]:
        """The scales that cannot be told apart from the best one: their 95 % intervals meet."""
        low = Rate(max(self.correct.values()), self.n).interval[0]
        return tuple(scale for scale, count in self.correct.items() if Rate(count, self.n).interval[1] >= low)

    @property
    def is_convincing(self) -> bool:
        """Whether the best scale recognises most images, and clearly more than the others: by 5 points, or so many that
        the 95 % intervals do not meet."""
        best, second = sorted(self.correct.values(), reverse=True)[:2]
        if not self.recognises_most or best == second:
            return False
        apart = Rate(best, self.n).interval[0] > Rate(second, self.n).interval[1]
        return apart or best - second >= _CONVINCING_LEAD * self.n


def measured_input_scale(net: Net, batches: Batches) -> ScaleMeasurement:
    """How well the net recognises labelled clean images under both scales; over the images of all processes."""
    nets: dict[str, Net] = {scale: net.with_input_scale(scale) for scale in NAMED}
    counts = np.zeros(1 + len(nets), np.int64)
    for found, labels in on_devices(_labels_of_each, nets, batches):
        counts += [(labels >= 0).sum(), *((found[scale] == labels).sum() for scale in nets)]
    n, *correct = over_processes(counts).tolist()
    return ScaleMeasurement(n, dict(zip(nets, correct, strict=True)))


def _labels_of_each(
    nets: dict[str, Net], pixels: Num[Array, "n h w c"], labels: Int32[Array, " n"]
) -> dict[str, Int32[Array, " n"]]:
    return {scale: labels_and_confidences(net, pixels)[0] for scale, net in nets.items()}


def assumed_input_scale(net: Net, pixels: Num[np.ndarray, "n h w c"]) -> tuple[str, str]:
    """The scale to assume where no image is labelled, and in words, why, and how sure that is.

    What goes into the first batch normalization has the mean and variance that training left there, or not. Without
    one: a net that was trained on divided pixels answers raw ones with logits in the thousands.
    """
    first = next((layer for layer in net.graph.layers if isinstance(layer.settings, kinds.BatchNormalization)), None)
    if first is not None:
        far = {scale: float(_distance(net.with_input_scale(scale), pixels, first.name)) for scale in NAMED}
        best, second = sorted(far, key=far.__getitem__)[:2]
        told = f"its first batch normalization is used to what {best} pixels give"
        return best, told if far[second] > 2 * far[
            best
        ] else f"{told}, though hardly more than to {second} ones: not sure"
    spread = float(_spread(net.with_input_scale("raw"), pixels))
    told = f"on raw pixels its logits have a standard deviation of {spread:,.0f}"
    sure = "" if spread < _RAW_SPREAD or spread > _DIVIDED_SPREAD else ", which is not sure"
    if spread > _WIDEST_RAW_SPREAD:
        return "unit", f"{told}, far more than training on raw pixels leaves{sure} (it could be symmetric as well)"
    return "raw", f"{told}, as training on raw pixels leaves it{sure}"


@partial(jax.jit, static_argnames="layer")
def _distance(net: Net, pixels: Num[Array, "n h w c"], layer: str) -> Float[Array, ""]:
    """How far the input of a batch normalization is from its statistics, mean over the channels."""
    read = net.graph[layer].inputs[0]
    found = net.features(pixels, (read,))[read]
    axes = tuple(range(found.ndim - 1))
    mean, variance = (jnp.asarray(net.weights[layer][name]) for name in ("moving_mean", "moving_variance"))
    least = 1e-3 * variance.mean() + 1e-12
    shift = jnp.abs(found.mean(axes) - mean) / jnp.sqrt(variance + least)
    width = jnp.abs(jnp.log((found.var(axes) + least) / (variance + least)))
    return (shift + width).mean()


@jax.jit
def _spread(net: Net, pixels: Num[Array, "n h w c"]) -> Float[Array, ""]:
    return net.features(pixels, ("logits",))["logits"].std(axis=-1).mean()
