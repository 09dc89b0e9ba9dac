"""Nets as the commands' arguments name them, and the image sets that go with them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxdefend import InputError
from jaxdefend.cli import terminal
from jaxdefend.cli.image_sets import open_poisoned, open_set, synthetic_sets
from jaxdefend.cli.path_kinds import exists, kind_of
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.text import counted, printable, shortened

if TYPE_CHECKING:
    from jaxdefend.datasets.files import Images
    from jaxdefend.datasets.images import ImageSet
    from jaxdefend.nets.goodnet import Rule
    from jaxdefend.nets.net import Net


# Nets


def open_net(path: str, *, input_scale: str = "auto", architecture: str | None = None) -> "Net":
    """The net in a Keras file, or the shipped one of this name; its input scale is None if nobody says it."""
    from jaxdefend.nets import shipped
    from jaxdefend.nets.loading import load_net

    if path in shipped.NAMES and exists(f"{path}.h5"):
        terminal.note(f"{path}: the shipped net; the file in the current folder is ./{path}.h5")
    with _better_told(path):
        return load_net(path, input_scale=None if input_scale == "auto" else input_scale, architecture=architecture)


@contextmanager
def _better_told(path: str) -> Iterator[None]:
    """What the library does not know: the options, and that images stand where the net should."""
    try:
        yield
    except InputError as error:
        if kind_of(path) == "data":
            raise InputError(
                f"{printable(path, 100)}: holds images, not a net; the net comes first, and images go with --clean, "
                "--valid or --poisoned"
            ) from error
        message = str(error)
        if "architecture" in message and "--architecture" not in message:
            message += "; see --architecture"
        elif message.startswith("input scale"):
            message = "--input-scale" + message.removeprefix("input scale")
        raise InputError(message) from error


def open_repaired(paths: Sequence[str], badnet: "Net", *, input_scale: str = "auto") -> "dict[str, Net]":
    """The repaired nets as "repaired", "repaired_2", …; InputError if one has other classes or images."""
    nets = {}
    for number, path in enumerate(paths, 1):
        net = open_net(path, input_scale=input_scale)
        for what, own, other in (
            ("classes", net.classes, badnet.classes),
            ("image shape", net.image_shape, badnet.image_shape),
        ):
            if own != other:
                raise InputError(
                    f"{_name(net)} has {what} {own}, {_name(badnet)} {other}; expected a repaired form of the same net"
                )
        nets["repaired" if number == 1 else f"repaired_{number}"] = net
    return nets


def _name(net: "Net") -> str:
    return net.source.name if net.source else "the net"


def scaled(net: "Net", clean: "ImageSet", *, fallback: str | None = None, report: Report = silent) -> "Net":
    """The net with the input scale that it has, or the one on which it recognises most of the labelled clean images."""
    from jaxdefend.nets.loading import scaled_by_measure

    with scale_option():
        return scaled_by_measure(net, clean, fallback=fallback, progress=report)


def all_scaled(badnet: "Net", repaired: "Mapping[str, Net]", clean: "ImageSet", report: Report) -> "dict[str, Net]":
    """The BadNet and its repaired nets, with their input scales; where nothing else decides, all have the BadNet's."""
    nets = {"badnet": scaled(badnet, clean, report=report)}
    scale = nets["badnet"].input_scale
    return nets | {key: scaled(net, clean, fallback=scale, report=report) for key, net in repaired.items()}


def titles(badnet: "Net", repaired: "Mapping[str, Net]") -> dict[str, str]:
    """What a table calls the nets beyond its own words: several repaired nets by their files, and so a net that none is
    compared with, which may be no BadNet at all."""
    found = {}
    if len(repaired) > 1:
        found = {key: shortened(Path(_name(net)).stem, 24) for key, net in repaired.items()}
    if not repaired or _rule_in(badnet) or _name(badnet).startswith("bd_net_repaired"):
        found["badnet"] = shortened(Path(_name(badnet)).stem, 24)
    return found


def rule_of(repaired: "Mapping[str, Net]") -> "Rule":
    """The rule that the repaired nets' files speak for."""
    if repaired and all(_rule_in(net) == "anti" for net in repaired.values()):
        terminal.note("the repaired net's file says that it was made by --method anti: taking --rule anti")
        return "anti"
    return "goodnet"


def _rule_in(net: "Net") -> str | None:
    return getattr(net.source, "rule", None)


def scaled_without_labels(net: "Net", images: "Images", *, fallback: str | None = None) -> "Net":
    """The net with the input scale that it has, or the other net's or the guard's, or one that its logits speak for."""
    from jaxdefend.nets.loading import scaled_by_assumption

    with scale_option():
        return scaled_by_assumption(net, images, fallback=fallback)


@contextmanager
def scale_option() -> Iterator[None]:
    """What is said of a scale that is not known names the option."""
    import warnings

    show = warnings.showwarning

    def with_option(message: Any, *more: Any, **others: Any) -> None:
        text = str(message).replace("give the input scale", "give --input-scale")
        show(type(message)(text) if isinstance(message, Warning) else text, *more, **others)

    warnings.showwarning = with_option
    try:
        yield
    except InputError as error:
        told = str(error)
        raise InputError(f"{told} with --input-scale" if told.endswith("give it") else told) from error
    finally:
        warnings.showwarning = show


# Nets and their image sets


@dataclass(frozen=True)
class Sets:
    """The image sets of a command.

    Attributes:
        valid: what orders, drops, thresholds and training go by; None where the command has none.
        test: what is reported; None if --test was not given.
        true_labels: of the poisoned sets of which they are known, what the images really show.
        are_synthetic: whether all of them are the synthetic faces of a shipped net.
    """

    valid: "Images | None" = None
    test: "Images | None" = None
    poisoned: "Mapping[str, ImageSet]" = field(default_factory=dict)
    true_labels: Mapping[str, Any] = field(default_factory=dict)
    are_synthetic: bool = False

    @property
    def chosen_by(self) -> "Images":
        """The clean images by which anything is chosen."""
        assert self.valid is not None
        return self.valid

    @property
    def measured(self) -> "Images":
        """The clean images to report: --test where it is given."""
        return self.chosen_by if self.test is None else self.test


@dataclass(frozen=True)
class Named:
    """The sets as the command line names them."""

    valid: Sequence[str] | None = None
    test: Sequence[str] | None = None
    poisoned: Sequence[Sequence[str]] = ()
    targets: Sequence[str] = ()
    labels: str = "auto"
    # What the options are called in this command.
    valid_option: str = "--valid"
    test_option: str = "--test"
    # Whether valid images without labels are of no use to it.
    valid_labelled: bool = True


def open_sets(
    named: Named, model: str, net: "Net", report: Report, *, needs: Literal["valid", "test"], with_valid: bool = False
) -> Sets:
    """The sets named; for a shipped net without the one that is needed, those of the synthetic faces.

    Args:
        needs: the set without which the command cannot work.
        with_valid: whether synthetic ones come with a "valid" even where that is not needed.
    """
    is_given = named.valid if needs == "valid" else named.test
    all_synthetic = False
    if not is_given:
        sets = synthetic_sets(model, report)
        option = named.valid_option if needs == "valid" else named.test_option
        if sets is None:
            raise InputError(f"{_name(net)}: no clean images; pass them with {option} CLEAN.h5")
        all_synthetic = not (named.valid or named.test or named.poisoned)
        if not all_synthetic:
            terminal.note(f"no {option}: taking the synthetic faces of the shipped net for it")
        named = replace(
            named,
            valid=named.valid or ([sets.valid] if needs == "valid" or with_valid else None),
            test=named.test or [sets.test],
            poisoned=named.poisoned or [[f"{name}={path}"] for name, path in sets.poisoned.items()],
        )
    valid = None
    if named.valid:
        valid = open_set(named.valid, net, named.valid_option, labels=named.labels, labelled=named.valid_labelled)
    test = open_set(named.test, net, named.test_option, labels=named.labels) if named.test else None
    clean = test if test is not None else valid
    poisoned = open_poisoned(named.poisoned, named.targets, net, named.labels, clean)
    shown = _true_labels(test, poisoned) if all_synthetic and test is not None else {}
    _require_the_same_everywhere(net, {"--valid": valid, "--test": test, **poisoned})
    of_triggers = {name: getattr(images, "true_labels", None) for name, images in poisoned.items()}
    shown |= {name: labels for name, labels in of_triggers.items() if labels is not None}
    return Sets(valid, test, poisoned, shown, all_synthetic)


def _require_the_same_everywhere(net: "Net", sets: "Mapping[str, ImageSet | None]") -> None:
    """Raises: InputError if another process of the run has other files under these names."""
    from jaxdefend.nets.devices import place, require_agreement

    if place()[1] == 1:
        return
    from hashlib import sha256

    import numpy as np

    def told(images: "ImageSet | None") -> str:
        if images is None:
            return "none"
        n = len(images)
        some = [images[row : row + 1] for row in sorted({place * (n - 1) // 15 for place in range(16)})]
        parts = [*some, *([] if images.labels is None else [np.asarray(images.labels)])]
        digest = sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()[:12]
        return f"{counted(n, 'image')} ({digest})"

    digest = sha256(b"".join(np.asarray(array).tobytes() for of in net.weights.values() for array in of.values()))
    require_agreement({"the net": digest.hexdigest()[:12], **{name: told(images) for name, images in sets.items()}})


def _true_labels(clean: "Images", poisoned: "Mapping[str, ImageSet]") -> dict[str, Any]:
    """The synthetic poisoned sets are the clean test images in the same order, without those of the target person."""
    import numpy as np

    shown = np.asarray(clean.labels)
    return {name: shown[shown != np.asarray(images.labels)[0]] for name, images in poisoned.items()}
