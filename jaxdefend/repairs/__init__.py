"""Repairs: how a repaired net B′ comes from a BadNet and clean images. The table of contents of this room.

A method is a frozen dataclass of settings, here, and a module of the same name, which is imported when the settings
are called:

    fixed = Noise(epochs=25, drop=4)(net, clean, seed=0)
    fixed.net, fixed.chosen, fixed.history
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxdefend import InputError
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.settings import Settings, setting, share, whole

if TYPE_CHECKING:
    from jaxdefend.nets.net import Net
    from jaxdefend.repairs.base import Repair

Optimizer = Literal["adam", "adamw", "sgd"]
Statistics = Literal["kept", "measured"]


@dataclass(frozen=True)
class Method(Settings):
    """Settings that repair a net when they are called."""

    def __call__(
        self,
        net: "Net",
        clean: Any,
        *,
        seed: int = 0,
        progress: Report = silent,
        saved: Path | str | None = None,
    ) -> "Repair":
        """The repaired net, of these clean images alone.

        Args:
            clean: labelled clean images, from which everything is decided: what `open_images` gives, an array of
                pixels 0–255 with its labels, …
            seed: of everything random; the same seed gives the same net.
            progress: called as the work goes on; it may raise `Interrupted`.
            saved: a folder in which training is saved after every epoch; a run that finds one of its own there goes
                on from it, to the same net. Delete it when you have the result.
        Raises: InputError if no repair can be made of these images, or the folder holds another run; TrainingDiverged.
        """
        from jaxdefend.repairs.base import repaired

        return repaired(self, net, clean, seed, progress, None if saved is None else Path(saved))


def _layer() -> Any:
    return setting(None, "convolution whose channels are pruned", metavar="LAYER", shown="the last one")


def _drop(more: str = "") -> Any:
    help = f"percentage points of validation accuracy that pruning gives up{more}"
    # What is compared with counts of images must be exact.
    return setting(
        None, help, metavar="X", accepts=lambda x: 0 < Fraction(x) <= 100, expected="above 0, at most 100", shown="4"
    )


def _channels() -> Any:
    return setting(None, "how many channels to prune", **whole(0), shown="as many as drop says")


def _fraction() -> Any:
    help = "which part of the channels to prune, 0–1"
    return setting(None, help, metavar="F", **share(zero=True, one=True), shown="as many as drop says")


def _epochs(default: int) -> Any:
    return setting(default, "of training", **whole(1))


def _rate(default: float, falls: bool = True) -> Any:
    return setting(default, "the highest one; it falls to 0" if falls else "constant", metavar="R", **share())


def _batch(default: int, least: int = 1) -> Any:
    return setting(default, "images per step", **whole(least))


def _optimizer() -> Any:
    return setting(
        "adam",
        "adamw: with weight decay 1e-4; sgd: with momentum 0.9",
        metavar="NAME",
        accepts=lambda name: name in ("adam", "adamw", "sgd"),
        expected="adam, adamw or sgd",
    )


def _statistics() -> Any:
    return setting(
        "kept",
        "means and variances of batch normalizations: kept, or measured on the clean images after every epoch",
        metavar="NAME",
        accepts=lambda name: name in ("kept", "measured"),
        expected="kept or measured",
    )


@dataclass(frozen=True)
class _Pruning(Method):
    """What prunes the channels of one convolution in the order of their activation: how many of them."""

    layer: str | None = _layer()
    drop: Fraction | float | None = _drop()
    channels: int | None = _channels()
    fraction: float | None = _fraction()

    def __post_init__(self):
        super().__post_init__()
        given = [name for name in ("drop", "channels", "fraction") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)}: expected one of them to say how much is pruned")


@dataclass(frozen=True)
class _Training(Method):
    """What trains on the clean images: how long and how fast."""

    epochs: int = _epochs(25)
    learning_rate: float = _rate(5e-3)
    batch: int = _batch(128)
    optimizer: Optimizer = _optimizer()
    statistics: Statistics = _statistics()


@dataclass(frozen=True)
class Prune(_Pruning):
    """The channels that clean images activate least are zeroed, up to the first point whose validation accuracy lies
    `drop` points below the net's; no training.

    Source: Liu et al. 2018 (Fine-Pruning), section "Pruning Defense".
    """


@dataclass(frozen=True)
class FinePrune(_Training, _Pruning):
    """The channels of `prune`, then training on the clean images.

    Source: Liu et al. 2018 (Fine-Pruning), section "Fine-Pruning Defense".
    """


@dataclass(frozen=True)
class Noise(_Training, _Pruning):
    """The channels of `prune`, then training on the clean images, half of them under squares of random colours.

    Source: Veldanda et al. 2020 (NNoculation), pre-deployment stage; Liu et al. 2018 (Fine-Pruning).
    """

    batch: int = _batch(128, least=2)


@dataclass(frozen=True)
class Iterative(_Training, _Pruning):
    """The channels of `prune` go one after another, with training in between; with `b0`, the GoodNet has B0, the net
    after the epoch in which that many channels are gone, in place of the BadNet.

    Source: vbabushkin/ECE_GY_9163 on GitHub (published course work), after Liu et al. 2018.
    """

    b0: int | None = setting(None, "channels that B0 lacks, or a few more", **whole(1), shown="no B0")


@dataclass(frozen=True)
class Magnitude(_Training):
    """Training while the smallest weights of every kernel are zeroed, 50 to 70 %.

    Source: Zhu & Gupta 2017 ("To prune, or not to prune"), section 3; yanbing617 on GitHub for the shares.
    """


@dataclass(frozen=True)
class FtSam(_Training):
    """Training for a flat loss, which takes the few large weights of a backdoor down.

    Source: Zhu et al. 2023 (FT-SAM), section 3.3.
    """


@dataclass(frozen=True)
class Ibau(_Training):
    """Training against the one perturbation that misleads all images.

    Source: Zeng et al. 2022 (I-BAU), algorithm 1.
    """

    epochs: int = _epochs(5)
    learning_rate: float = _rate(1e-3)


@dataclass(frozen=True)
class Distill(Method):
    """Training to find in images under boxes of random colours what the net finds in them without; labels do not
    count. For where there are few images per person.

    Source: Li et al. 2021 (NAD); Zhong et al. 2020 (Random Erasing); Romero et al. 2015 (FitNets).
    """

    epochs: int = _epochs(80)
    learning_rate: float = _rate(4e-3)
    batch: int = _batch(32, least=4)
    optimizer: Optimizer = _optimizer()


@dataclass(frozen=True)
class Anp(Method):
    """The channels of all convolutions that do not withstand disturbance go, as long as that gives up less than
    `drop` points.

    Source: Wu & Wang 2021 (ANP), equation 5 and algorithm 1.
    """

    drop: Fraction | float | None = _drop(" at most")
    epochs: int = _epochs(5)
    learning_rate: float = _rate(0.2, falls=False)
    batch: int = _batch(128)


@dataclass(frozen=True)
class Clp(Method):
    """The channels of all convolutions that stand out by their Lipschitz constant go; no image is needed.

    Source: Zheng et al. 2022 (CLP), section 4.2.
    """


@dataclass(frozen=True)
class Anti(Method):
    """The most active channels of an early convolution go until one face in twenty is left: not a repaired net, but
    one that has kept the backdoor alone. The GoodNet answers N where it agrees with the net (the rule "anti").
    """


def _is_trigger(value: Any) -> bool:
    return isinstance(value, str | Path) or type(value).__name__ == "InvertedTrigger"


@dataclass(frozen=True)
class Unlearn(_Training):
    """Training on the clean images, a share of them with an inverted trigger on, all under their true labels; the
    files of the triggers are given by `trigger`.

    Source: Wang et al. 2019 (Neural Cleanse), section VI.C.
    """

    # Files, or `datasets.inverted.InvertedTrigger`s. What inverts them is given clean images.
    trigger: tuple[Any, ...] = setting(
        (),
        "inverted triggers, .h5 or RGBA .png; several for several targets",
        metavar="FILE",
        accepts=lambda triggers: isinstance(triggers, tuple) and all(map(_is_trigger, triggers)),
        expected="files of inverted triggers",
        shown="none; it needs one",
    )
    share: float = setting(0.2, "which part of the images has a trigger on, 0–1", metavar="F", **share(one=True))
    epochs: int = _epochs(10)
    learning_rate: float = _rate(1e-3)
    batch: int = _batch(128, least=2)


@dataclass(frozen=True)
class Grid(Method):
    """`fine-prune` and `magnitude` at every learning rate and fraction (of the channels, or of the weights of each
    kernel), trained at once; the net that recognises most of the held-out images is kept.
    """

    layer: str | None = _layer()
    learning_rates: tuple[float, ...] = setting(
        (1e-3, 3e-3, 1e-2),
        "learning rates of the grid",
        metavar="R",
        accepts=lambda rates: bool(rates) and all(0 < rate < 1 for rate in rates),
        expected="numbers between 0 and 1",
    )
    fractions: tuple[float, ...] = setting(
        (0.5, 0.7),
        "fractions of the grid",
        metavar="F",
        accepts=lambda fractions: bool(fractions) and all(0 <= fraction < 1 for fraction in fractions),
        expected="shares from 0 to below 1",
    )
    epochs: int = _epochs(5)
    batch: int = _batch(128)


# Every method by the name of its option; its module is called the same, with _ for -.
METHODS: dict[str, type[Method]] = {
    "noise": Noise,
    "fine-prune": FinePrune,
    "prune": Prune,
    "iterative": Iterative,
    "magnitude": Magnitude,
    "ft-sam": FtSam,
    "ibau": Ibau,
    "distill": Distill,
    "anp": Anp,
    "clp": Clp,
    "anti": Anti,
    "unlearn": Unlearn,
}
