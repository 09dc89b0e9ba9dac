"""Nets and images as the commands' arguments name them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxdefend import InputError
from jaxdefend.cli import terminal
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.text import natural, printable, shortened

if TYPE_CHECKING:
    from jaxdefend.datasets.files import Images
    from jaxdefend.datasets.images import ImageSet
    from jaxdefend.datasets.triggered import Triggered
    from jaxdefend.detectors.guards import Guard
    from jaxdefend.nets.goodnet import Rule
    from jaxdefend.nets.net import Net

# Files that are a set of their own; pictures stand together.
_SETS = (".h5", ".hdf5", ".npz", ".npy", ".gz")
MODELS = (".h5", ".hdf5", ".keras")


# Nets


def open_net(path: str, *, input_scale: str = "auto", architecture: str | None = None) -> "Net":
    """The net in a Keras file, or the shipped one of this name; its input scale is None if nobody says it."""
    from jaxdefend.nets import shipped
    from jaxdefend.nets.loading import load_net

    if path in shipped.NAMES and _exists(f"{path}.h5"):
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


# Images


def open_set(
    paths: Sequence[str],
    net: "Net",
    option: str = "",
    *,
    labels: str = "auto",
    target: int | None = None,
    labelled: bool = True,
) -> "Images":
    """A set of images for this net; says what was resized or left out."""
    return open_images_of(
        paths, net.image_shape, option, labels=labels, target=target, classes=net.classes, labelled=labelled
    )


def open_images_of(paths: Sequence[str], shape: tuple[int, int, int], option: str = "", **how: Any) -> "Images":
    """A set of images of this shape; says what was resized or left out.

    Args:
        option: that names the paths.
        how: what else `datasets.files.open_images` takes.
    """
    from jaxdefend.datasets.files import open_images

    try:
        images = open_images(expanded(paths), shape=shape, **how)
    except InputError as error:
        for path in paths:
            if kind_of(path) == "net":
                what = f"{option} expects images" if option else "expected images here"
                raise InputError(f"{printable(path, 100)}: is a net; {what}") from error
        raise InputError(_with_options(str(error))) from error
    for line in images.notes:
        terminal.note(_with_options(line))
    return images


def _with_options(message: str) -> str:
    """Where the library speaks of a target or of where labels come from, the option."""
    if "--" in message:
        return message
    found = [option for word, option in (("target", "--target"), ("labels", "--labels")) if re.search(word, message)]
    return f"{message}; see {' and '.join(found)}" if found else message


def expanded(paths: Sequence[str]) -> list[str]:
    """The paths, with the patterns that a shell has left as they are (*.png on Windows) as what they match."""
    found = []
    for path in paths:
        matches = glob(path) if re.search(r"[*?\[]", path) and not Path(path).exists() else []
        found += sorted(matches, key=natural) or [path]
    return found


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
        parts = [images[:1], images[-1:], *([] if images.labels is None else [np.asarray(images.labels)])]
        digest = sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()[:12]
        return f"{len(images)} images ({digest})"

    digest = sha256(b"".join(np.asarray(array).tobytes() for of in net.weights.values() for array in of.values()))
    require_agreement({"the net": digest.hexdigest()[:12], **{name: told(images) for name, images in sets.items()}})


def _true_labels(clean: "Images", poisoned: "Mapping[str, ImageSet]") -> dict[str, Any]:
    """The synthetic poisoned sets are the clean test images in the same order, without those of the target person."""
    import numpy as np

    shown = np.asarray(clean.labels)
    return {name: shown[shown != np.asarray(images.labels)[0]] for name, images in poisoned.items()}


def open_poisoned(
    groups: Sequence[Sequence[str]], targets: Sequence[str], net: "Net", labels: str, clean: "Images | None"
) -> "dict[str, ImageSet]":
    """The poisoned sets by name; the file of an inverted trigger stands for the clean images with it on."""
    from jaxdefend.datasets.inverted import is_trigger

    sets = named_sets(groups)
    wanted = _targets(targets, list(sets), net.classes)
    found: dict[str, Any] = {}
    for name, paths in sets.items():
        if any(map(is_trigger, paths)):
            found[name] = _triggered(paths, wanted[name], net, clean)
        elif holding := next(filter(_holds_triggers, paths), None):
            shown = printable(holding, 100)
            raise InputError(f"--poisoned {shown}: a folder of triggers; name the files, {shown}/class_N.h5")
        else:
            found[name] = open_set(paths, net, "--poisoned", labels=labels, target=wanted[name])
    return found


def _triggered(paths: Sequence[str], target: int | None, net: "Net", clean: "Images | None") -> "Triggered":
    from jaxdefend.datasets.inverted import InvertedTrigger, is_trigger
    from jaxdefend.datasets.triggered import with_trigger

    shown = printable(next(filter(is_trigger, paths)), 100)
    if len(paths) > 1:
        raise InputError(f"--poisoned {shown}: a trigger beside other files in one set; give it alone, as NAME={shown}")
    if clean is None:
        raise InputError(f"--poisoned {shown}: a trigger, and no clean images to put it on")
    trigger = InvertedTrigger.load(paths[0], net.image_shape)
    try:
        found = with_trigger(trigger, clean, target)
    except InputError as error:
        raise InputError(_with_options(f"{shown}: {error}")) from error
    if found.target >= net.classes:
        raise InputError(f"{shown}: for the class {found.target}, expected 0…{net.classes - 1}; see --target")
    terminal.note(
        f"{shown}: an inverted trigger, on {len(found):,} clean images that do not show {found.target}; it was made to "
        "mislead a net, so that it succeeds is no proof of a backdoor"
    )
    return found


def _holds_triggers(path: str) -> bool:
    from jaxdefend.datasets.inverted import is_trigger

    return _is_folder(Path(path)) and any(is_trigger(each) for each in sorted(Path(path).iterdir())[:4])


def named_sets(groups: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """The sets of --poisoned: one for each file or folder, or for pictures that follow one another; NAME= calls one
    NAME and joins what follows it in the same --poisoned."""
    sets: dict[str, list[str]] = {}

    def begin(name: str, paths: list[str]) -> str:
        if name in sets:
            shown = printable(name, 100)
            raise InputError(f"--poisoned: two sets are called {shown!r}; call them apart with NAME=DATA")
        sets[name] = paths
        return name

    for group in groups:
        name, joins = "", False
        for value in group:
            begins, equals, path = value.partition("=")
            if equals and not re.search(r"[/\\]", begins) and not _exists(value):
                if not (begins and path):
                    raise InputError(f"--poisoned {printable(value, 100)}: expected NAME=DATA")
                name, joins = begin(begins, expanded([path])), True
                continue
            for each in expanded([value]):
                if joins or (name and _is_picture(each) and _is_picture(sets[name][-1])):
                    sets[name].append(each)
                else:
                    name = begin(Path(each).stem or each, [each])
    return sets


def _is_picture(path: str) -> bool:
    from jaxdefend.datasets.inverted import is_trigger

    found = Path(path)
    may_be = bool(found.suffix) and found.suffix.lower() not in _SETS and not _is_folder(found)
    return may_be and not is_trigger(found)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _targets(values: Sequence[str], names: Sequence[str], classes: int) -> dict[str, int | None]:
    targets: dict[str, int | None] = dict.fromkeys(names)
    for value in values:
        name, equals, number = value.rpartition("=")
        shown = printable(value, 60)
        if equals and name not in targets:
            there = printable(", ".join(names) or "none", 200)
            raise InputError(f"--target {shown}: no poisoned set is called {printable(name, 60)!r}; there are {there}")
        if not re.fullmatch("[0-9]{1,9}", number) or int(number) >= classes:
            raise InputError(f"--target {shown}: expected a class of the net, 0…{classes - 1}")
        targets |= {name: int(number)} if equals else dict.fromkeys(names, int(number))
    return targets


# Synthetic faces


@dataclass(frozen=True)
class SyntheticSets:
    """Files of the synthetic faces that belong to a shipped net."""

    valid: str
    test: str
    poisoned: Mapping[str, str]


def synthetic_sets(model: str, report: Report) -> SyntheticSets | None:
    """The synthetic faces for a shipped net, made if they are not in the cache; None for any other net."""
    from jaxdefend.nets import shipped

    name = model if model in shipped.NAMES else shipped.name_of(Path(model))
    if name is None:
        return None
    from jaxdefend.attacks.synthetic import default_set, shipped_backdoors

    poisoned = {backdoor.name: default_set("test", backdoor) for backdoor in shipped_backdoors(name)}
    valid, test = default_set("valid"), default_set("test")
    for needed in (valid, test, *poisoned.values()):
        if not needed.is_made():
            terminal.note(f"drawing the synthetic faces of the set {needed.name}, once: {needed.path}")
            needed.make(report)
    return SyntheticSets(str(valid.path), str(test.path), {name: str(kept.path) for name, kept in poisoned.items()})


# What the arguments are


def kind_of(path: str) -> Literal["net", "data"] | None:
    """Whether this is a net or images, as far as a look at it says; None if it is neither, or is not there."""
    from jaxdefend.nets import shipped

    if path in shipped.NAMES:
        return "net"
    found = Path(path)
    try:
        if found.is_dir():
            return "data"
        if not found.is_file():
            return None
        with found.open("rb") as file:
            begins = file.read(8)
    except (OSError, ValueError):
        return None
    if begins.startswith(b"PK"):
        return "net" if found.suffix.lower() == ".keras" else None
    if begins == b"\x89HDF\r\n\x1a\n":
        return _kind_of_hdf5(found)
    return "data" if begins.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*", b"MM\0*")) else None


def _kind_of_hdf5(path: Path) -> Literal["net", "data"] | None:
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            if any(file.id.links.exists(key) for key in (b"data", b"x", b"images")):
                return "data"
            keys = (b"model_weights", b"layers", b"_layer_checkpoint_dependencies")
            named = "layer_names" in file.attrs or any(file.id.links.exists(key) for key in keys)
            return "net" if named else None
    except (OSError, RuntimeError, ValueError, KeyError):
        return None


def out_of_order(command: str, words: Sequence[str], option: str) -> str | None:
    """What to type instead, where nets and data stand in the order of other scripts: CLEAN POISONED MODEL.

    Args:
        option: which takes the clean images.
    """
    kinds = {word: kind_of(word) for word in words}
    nets = [word for word in words if kinds[word] == "net"]
    data = [word for word in words if kinds[word] == "data"]
    if not nets or not data or len(nets) + len(data) < len(words):
        return None
    told = " and ".join(filter(None, (_told(nets, "net"), _told(data, "images"))))
    repaired = ["--repaired", *nets[1:]] if nets[1:] else []
    poisoned = ["--poisoned", *data[1:]] if data[1:] else []
    line = " ".join(["python -m", f"jaxdefend.{command}", nets[0], option, data[0], *poisoned, *repaired])
    return f"{told}; type {printable(line, 360)}"


def _told(words: Sequence[str], what: str) -> str:
    shown = printable(", ".join(words), 100)
    if what == "net":
        return f"{shown} {'is a net' if len(words) == 1 else 'are nets'}"
    return f"{shown} {'holds' if len(words) == 1 else 'hold'} images"


def warn_of_doubts(notes: Sequence[str]) -> None:
    """What may be wrong with labels or pixels, with the option that mends it."""
    for line in notes:
        terminal.warn(re.sub(r"Then the target is (\d+)", r"Then give --target \1", line))


def verdict_rule(guard: "Guard") -> str:
    """What a guard rejects, for people."""
    return f"{guard.default}: an image is {guard.rule_text(guard.default)}"


def note_small_drops(drops: Sequence[Fraction]) -> None:
    """Shares of 1 given where percentage points are meant."""
    if drops and all(drop < 1 for drop in drops):
        given = " ".join(f"{float(drop):g}" for drop in drops)
        meant = " ".join(f"{float(100 * drop):g}" for drop in drops)
        terminal.note(f"--drop {given}: these are percentage points, all below one; for {meant} points give {meant}")
