"""Nets and images as the commands' arguments name them; what had to be guessed is told."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxdefend import InputError, _command

if TYPE_CHECKING:
    import numpy as np

    from jaxdefend.datasets.batches import ImageSet
    from jaxdefend.datasets.files import Images
    from jaxdefend.nets.deepid import DeepID, InputScale
    from jaxdefend.nets.keras_files import ModelFile


def load_model(path: str) -> "ModelFile":
    """The net in a Keras file, or the shipped one of this name; says what had to be guessed."""
    from jaxdefend.nets.keras_files import read_model

    model = read_model(_model_path(path))
    for line in model.notes:
        _command.note(line)
    return model


def _model_path(model: str) -> Path:
    from jaxdefend.nets import shipped

    return shipped.path_of(model) if model in shipped.NAMES and not Path(model).exists() else Path(model)


class DefaultSets(NamedTuple):
    """Files of the default world's sets that belong to a shipped net."""

    valid: str
    test: str
    poisoned: list[list[str]]


def default_sets(model: str) -> DefaultSets | None:
    """The default world's sets for a shipped net, made if they are not in the cache; None for any other net."""
    from jaxdefend.nets.shipped import name_of

    name = name_of(_model_path(model))
    if name is None:
        return None
    from jaxdefend.attacks.world import default_set, shipped_backdoors

    poisoned = {backdoor.name: default_set("test", backdoor) for backdoor in shipped_backdoors(name)}
    valid, test = default_set("valid"), default_set("test")
    for needed in (valid, test, *poisoned.values()):
        if not needed.path.exists():
            _command.note(f"making the default world's {needed.name} images, once: {needed.path}")
            with _command.progress(needed.name, needed.size, "faces") as advance:
                needed.make(advance)
    named = [[f"{name}={kept.path}"] for name, kept in poisoned.items()]
    return DefaultSets(str(valid.path), str(test.path), named)


def fill_in_default_sets(options: argparse.Namespace, model: "ModelFile") -> None:
    """--valid, --test and --poisoned of a shipped net, where no --valid is given."""
    options.made_sets = False
    if options.valid is not None:
        return
    sets = default_sets(options.model)
    if sets is None:
        raise InputError(f"{model.name}: no clean validation images; pass them with --valid CLEAN.h5")
    options.made_sets = not (options.test or options.poisoned)
    options.valid, options.test = [sets.valid], options.test or [sets.test]
    options.poisoned = options.poisoned or sets.poisoned


def true_labels(
    options: argparse.Namespace, clean: "Images", poisoned: "Mapping[str, Images]"
) -> "dict[str, np.ndarray]":
    """What the images of each poisoned set really show; known of the default world's sets only.

    They are its clean test images in the same order, without those of the target person.
    """
    if not options.made_sets:
        return {}
    import numpy as np

    shown = np.asarray(clean.labels)
    return {name: shown[shown != np.asarray(images.labels)[0]] for name, images in poisoned.items()}


def load_images(paths: Sequence[str], net: "DeepID", labels: str = "auto", target: int | None = None) -> "Images":
    """A labelled set for this net; says what was resized or left out."""
    from jaxdefend.datasets.files import open_images

    images = open_images(paths, labels=labels, target=target, classes=net.classes)
    for line in images.notes:
        _command.note(line)
    return images


def load_poisoned(options: argparse.Namespace, net: "DeepID") -> dict[str, "Images"]:
    """The poisoned sets by name."""
    sets = _named_sets(options.poisoned)
    targets = _targets(options.target, list(sets), net.classes)
    return {name: load_images(paths, net, options.labels, targets[name]) for name, paths in sets.items()}


def _named_sets(groups: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    sets: dict[str, list[str]] = {}
    for group in groups:
        name = ""
        for value in group:
            begins, equals, path = value.partition("=")
            named = bool(equals) and "/" not in begins and not Path(value).exists()
            if named and not (begins and path):
                raise InputError(f"--poisoned {value}: expected NAME=DATA")
            if named or not name:
                name = begins if named else Path(value).stem
                if name in sets:
                    raise InputError(f"--poisoned: two sets are called {name!r}; name them apart with NAME=DATA")
            sets.setdefault(name, []).append(path if named else value)
    return sets


def _targets(values: Sequence[str], names: Sequence[str], classes: int) -> Mapping[str, int | None]:
    targets: dict[str, int | None] = dict.fromkeys(names)
    for value in values:
        name, equals, number = value.rpartition("=")
        if equals and name not in targets:
            raise InputError(f"--target {value}: no poisoned set is called {name!r}; there are {', '.join(names)}")
        if not number.isascii() or not number.isdigit() or int(number) >= classes:
            raise InputError(f"--target {value}: expected a class of the net, 0…{classes - 1}")
        targets |= {name: int(number)} if equals else dict.fromkeys(names, int(number))
    return targets


def scaled_by_measure(
    model: "ModelFile", asked: str, clean: "ImageSet", fallback: "InputScale | None" = None
) -> "DeepID":
    """The net with its input scale: the one asked for, the file's, or the one that recognises more clean images.

    `fallback` decides where the measurement convinces nobody: a repaired net has the scale of its BadNet.
    """
    from jaxdefend.datasets.batches import sampled
    from jaxdefend.nets.devices import own_rows
    from jaxdefend.nets.inference import measured_input_scale

    known = _known_scale(model, asked)
    if known is not None:
        return known
    # A thousand images, evenly spread, tell the scales apart as well as all of them.
    rows = own_rows(len(clean))
    most = min(rows.stop - rows.start, 1024)
    measured = measured_input_scale(model.net, _command.tracked(sampled(clean, most, rows=rows), "input scale", most))
    shares = {scale: f"{100 * count / measured.n:.1f} %" for scale, count in measured.correct.items()}
    found = (
        f"{model.name}: clean accuracy is {shares['raw']} on raw pixels (0–255), {shares['unit']} on unit ones (0–1)"
    )
    if measured.is_convincing:
        _command.note(f"{found}, {measured.n} images; taking {measured.input_scale}")
        return _with_scale(model, measured.input_scale)
    scale = fallback or measured.input_scale
    why = "the BadNet's" if fallback else "the better"
    _command.warn(
        f"{found}, {measured.n} images: neither is convincing; taking {scale}, {why}; --input-scale overrides it"
    )
    return _with_scale(model, scale)


def scaled_by_assumption(
    model: "ModelFile", asked: str, images: "Images", fallback: "InputScale | None" = None
) -> "DeepID":
    """The net with its input scale where nothing is labelled: the one asked for, the file's, or a guess that is told.

    `fallback` is what the file of another net of the GoodNet says, or the guard.
    """
    from jaxdefend.nets.inference import assumed_input_scale

    known = _known_scale(model, asked)
    if known is not None:
        return known
    told = f"{model.name}: the file does not say its input scale and no image is labelled; assuming"
    if fallback:
        _command.note(f"{told} {fallback}, as the other net or the guard says; --input-scale overrides it")
        return _with_scale(model, fallback)
    scale, spread = assumed_input_scale(model.net, images[:64])
    why = "far more than training on raw pixels leaves" if scale == "unit" else "as training on raw pixels leaves it"
    _command.note(
        f"{told} {scale}, because on raw pixels its logits have a standard deviation of {spread:,.0f}, {why}; "
        "--input-scale overrides it"
    )
    return _with_scale(model, scale)


def _known_scale(model: "ModelFile", asked: str) -> "DeepID | None":
    written = model.net.input_scale
    if asked == "auto":
        return model.net if written else None
    if written and written != asked:
        _command.warn(f"{model.name}: the file says that its input scale is {written}; using {asked} as asked")
    return _with_scale(model, "raw" if asked == "raw" else "unit")


def _with_scale(model: "ModelFile", scale: "InputScale") -> "DeepID":
    from jaxdefend.nets.deepid import with_input_scale

    return with_input_scale(model.net, scale)


def load_repaired(paths: Sequence[str], badnet: "ModelFile") -> "dict[str, ModelFile]":
    """The repaired nets as "repaired", "repaired_2", …; InputError if one has other classes than the BadNet."""
    models = {}
    for number, path in enumerate(paths, 1):
        model = load_model(path)
        if badnet.net.classes != model.net.classes:
            raise InputError(
                f"{model.name} has {model.net.classes} classes, {badnet.name} has {badnet.net.classes}; "
                "expected a repaired form of the same net"
            )
        models["repaired" if number == 1 else f"repaired_{number}"] = model
    return models
