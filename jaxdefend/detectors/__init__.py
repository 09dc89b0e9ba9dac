"""Detectors: does this one image carry a trigger? The table of contents of this room.

A detector is a frozen dataclass of settings, here, and a module of the same name, which is imported when it is used:

    guard = Persistence(masks=100).calibrate(net, clean, frr=(0.01, 0.05))
    guard(images).rejected

Scores have one direction: higher means backdoored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from jaxdefend.results.progress import Report, silent
from jaxdefend.results.settings import Settings, between, setting, whole

if TYPE_CHECKING:
    from jaxdefend.detectors.evaluation import Evaluation
    from jaxdefend.detectors.guards import Guard
    from jaxdefend.nets.net import Net

# How a threshold comes from clean scores.
ThresholdFit = Literal["conformal", "quantile", "normal"]

# Masks or overlays per image: more do not tell more, and a guard must not fill the memory.
LIMIT = 10_000


@dataclass(frozen=True)
class Detector(Settings):
    """Settings of a detector.

    Attributes:
        uses_pool: whether it lays clean images from a pool over others.
        uses_repaired: whether it asks a repaired net.
    """

    uses_pool: ClassVar[bool] = False
    uses_repaired: ClassVar[bool] = False

    def calibrate(
        self,
        net: "Net",
        clean: Any,
        *,
        frr: float | Sequence[float] | None = None,
        fit: ThresholdFit = "conformal",
        seed: int = 0,
        pool: Any = None,
        progress: Report = silent,
    ) -> "Guard":
        """A guard with thresholds from clean images alone.

        Args:
            clean: clean images; labels are not needed.
            frr: false rejection rates; the first one decides. By default 0.01 and 0.05, or what so few images allow.
            fit: "conformal": FRR at most the asked one in expectation, whatever the distribution; "quantile" of the
                clean scores; "normal", a fit as in the STRIP paper.
            seed: of masks and overlays.
            pool: clean images to draw STRIP's overlays from; by default `clean`.
        Raises: InputError if the images or the rates cannot be used.
        """
        return calibrate([self], net, clean, frr=frr, fit=fit, seed=seed, pool=pool, progress=progress)


class Blend(NamedTuple):
    """How an image and an overlay are superimposed: image × `image` + overlay × `overlay`.

    `saturating`: as OpenCV adds uint8 pixels, where no sum exceeds 255.
    """

    image: float = 1.0
    overlay: float = 1.0
    saturating: bool = False


def blend_of(text: str) -> Blend:
    """The blend that "sum", "saturating" or two weights such as "0.5+0.5" stand for. Raises: ValueError."""
    if text in ("sum", "saturating"):
        return Blend(saturating=text == "saturating")
    image, overlay = map(float, text.split("+"))
    if not (0 < image <= 10 and 0 < overlay <= 10):
        raise ValueError(text)
    return Blend(image, overlay)


# Beyond, masks keep next to nothing or next to everything, and no score says anything.
_KEPT = between(0.01, 0.99)


def _masks() -> Any:
    return setting(100, "masks per image", **whole(1, LIMIT))


def _keep(default: float) -> Any:
    return setting(default, "probability with which a mask keeps a channel", metavar="P", **_KEPT)


def _overlays() -> Any:
    return setting(100, "overlays per image", **whole(1, LIMIT))


def _blend() -> Any:
    return setting(
        "sum",
        "how STRIP superimposes: image and overlay are added in the net's scale; A × image + B × overlay, such as "
        "0.5+0.5; or as OpenCV adds uint8, cut off at 255",
        metavar="sum|A+B|saturating",
        accepts=lambda text: blend_of(text) is not None,
        expected="sum, saturating, or two weights above 0, at most 10, such as 0.5+0.5",
    )


@dataclass(frozen=True)
class Persistence(Detector):
    """Under random masks that leave a fifth of the channels of a convolution, a backdoored image keeps its label, or
    the net stays sure of another: share of changed labels or entropy, whichever is more suspicious.

    Source: Li et al. 2025 (PSBD) for the shift ratio; Gao et al. 2019 (STRIP) for the entropy.
    """

    masks: int = _masks()
    keep: float = _keep(0.2)


@dataclass(frozen=True)
class Masks(Detector):
    """Entropy alone, under masks that leave more channels; needs no clean images to give scores.

    Source: Gao et al. 2019 (STRIP), with masks in place of overlays.
    """

    masks: int = _masks()
    keep: float = _keep(0.4)


@dataclass(frozen=True)
class Strip(Detector):
    """STRIP: entropy under overlays, other clean images laid over this one.

    Source: Gao et al. 2019 (STRIP), section "Entropy".
    """

    uses_pool: ClassVar[bool] = True
    overlays: int = _overlays()
    blend: str = _blend()


@dataclass(frozen=True)
class Both(Detector):
    """The more suspicious of `masks` and `strip`."""

    uses_pool: ClassVar[bool] = True
    masks: int = _masks()
    keep: float = _keep(0.4)
    overlays: int = _overlays()
    blend: str = _blend()


@dataclass(frozen=True)
class GoodNet(Detector):
    """How much a repaired net contradicts the net: −log₂ of the probability that it gives the net's label."""

    uses_repaired: ClassVar[bool] = True


# Every detector by the name of its option; its module is called the same.
DETECTORS: dict[str, type[Detector]] = {
    "persistence": Persistence,
    "masks": Masks,
    "strip": Strip,
    "both": Both,
    "goodnet": GoodNet,
}
DEFAULT = "persistence"


def default_detector(net: "Net", clean: Any, *, seed: int = 0, progress: Report = silent) -> Detector:
    """The detector for a net, chosen by clean images alone.

    `Persistence` asks who keeps a label that others lose. So it needs masks under which clean images lose theirs, at
    least three times in four (Li et al. 2025, PSBD, choose their dropout rate so). In a small net with few classes they
    do not: there `Both`, whose overlays disturb the image itself. A net without a convolution to mask has `Strip`.
    """
    from jaxdefend.datasets.images import as_images
    from jaxdefend.detectors.base import Scene
    from jaxdefend.detectors.persistence import changed_share

    images = as_images(clean, net.image_shape)
    if not any(map(net.graph.stays_zero, net.convolutions)):
        return Strip()
    few = images[:: max(1, len(images) // 256)]
    share = changed_share(Persistence(), net, as_images(few), Scene(seed, progress))
    return Persistence() if share >= 0.75 else Both()


def calibrate(
    detectors: Sequence[Detector],
    net: "Net",
    clean: Any,
    *,
    frr: float | Sequence[float] | None = None,
    fit: ThresholdFit = "conformal",
    seed: int = 0,
    pool: Any = None,
    repaired: "Net | None" = None,
    progress: Report = silent,
) -> "Guard":
    """A guard that holds several detectors, of which the first one decides: see `Detector.calibrate`.

    Args:
        repaired: the repaired net that `GoodNet` asks.
    """
    from jaxdefend.detectors.guards import calibrated

    return calibrated(detectors, net, clean, frr, fit, seed, pool, repaired, progress)


def evaluate(
    guard: "Guard", clean: Any, poisoned: "Mapping[str, Any] | None" = None, *, progress: Report = silent
) -> "Evaluation":
    """How well the detectors of a guard separate clean and poisoned images.

    Args:
        clean: labelled clean images to measure on; not those that the guard was calibrated on.
        poisoned: sets of images with a trigger by name, labelled with the attacker's target.
    """
    from jaxdefend.detectors.evaluation import evaluated

    return evaluated(guard, clean, poisoned, progress)
