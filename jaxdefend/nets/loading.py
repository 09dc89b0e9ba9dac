"""A net from a file, or one of those that ship with jaxdefend, and its input scale."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdefend import Note
from jaxdefend.nets import shipped
from jaxdefend.nets.batches import sampled
from jaxdefend.nets.devices import own_rows
from jaxdefend.nets.inference import ScaleMeasurement, assumed_input_scale, measured_input_scale
from jaxdefend.nets.keras_files import read_model
from jaxdefend.nets.net import Net
from jaxdefend.nets.overflow import require_finite
from jaxdefend.nets.scales import MEANINGS, NAMED, check_scale
from jaxdefend.results.progress import Report, silent, tracked

if TYPE_CHECKING:
    from jaxdefend.datasets.images import ImageSet

# Evenly spread, they tell the scales apart as well as all of them.
_MEASURED = 1024
_GUESSED = 64


def load_net(
    path: str | Path,
    *,
    input_scale: str | None = None,
    architecture: str | Path | None = None,
    clean: object = None,
    progress: Report = silent,
) -> Net:
    """The net in a Keras file, or the shipped one of this name.

    Its input scale is the one asked for, else the file's, else the one at which it recognises more of the clean images,
    else None: not known. What had to be guessed is a warning.

    Args:
        path: a Keras file (.h5, .weights.h5, .keras), or a shipped name such as "bd_net". A name alone is the shipped
            net, whatever lies in the current folder; a file of that name there is ./bd_net.
        input_scale: see `nets.scales`.
        architecture: for a file of weights alone, see `keras_files.read_model`.
        clean: labelled images, whatever `as_images` takes.
    Raises: InputError if the file cannot be used, see `keras_files.read_model`, or the net overflows.
    """
    found = read_model(path_of(path), architecture)
    for line in found.notes:
        warnings.warn(line, Note, stacklevel=2)
    net = found.net if input_scale is None else _asked_for(found.net, input_scale)
    require_finite(net)
    if net.input_scale is None and clean is not None:
        from jaxdefend.datasets.images import as_images, labelled

        return scaled_by_measure(net, labelled(as_images(clean, net.image_shape)), progress=progress)
    return net


def path_of(model: str | Path) -> Path:
    """The file that is meant by a path or a shipped name."""
    if isinstance(model, str) and model in shipped.NAMES:
        if Path(model).exists():
            warnings.warn(f"{model} is the shipped net; the one in the current folder is ./{model}", Note, stacklevel=3)
        return shipped.path_of(model)
    return Path(model)


def _asked_for(net: Net, scale: str) -> Net:
    check_scale(scale, net.image_shape[2])
    if net.input_scale and net.input_scale != scale:
        told = f"{net.name}: the file says that its input scale is {net.input_scale}; using {scale} as asked"
        warnings.warn(told, UserWarning, stacklevel=3)
    return net.with_input_scale(scale)


def scaled_by_measure(net: Net, clean: "ImageSet", *, fallback: str | None = None, progress: Report = silent) -> Net:
    """The net with the input scale at which it recognises more of the clean images, which are labelled.

    Where none is convincing, `fallback` decides (a repaired net has the scale of its BadNet), else among those that
    cannot be told apart a guess that asks no labels, else the better one. A warning says which. A net whose scale is
    known stays as it is.
    """
    if net.input_scale is not None:
        return net
    rows = own_rows(len(clean))
    n = min(rows.stop - rows.start, _MEASURED)
    measured = measured_input_scale(net, tracked(sampled(clean, n, rows=rows), "input scale", n, progress))
    found = f"{net.name}: clean accuracy is {_shares(measured)}, {measured.n} images"
    if measured.is_convincing:
        warnings.warn(f"{found}; taking {measured.input_scale}", Note, stacklevel=2)
        return net.with_input_scale(measured.input_scale)
    if fallback is None and len(measured.candidates) > 1:
        scale, because = assumed_input_scale(net, clean[:_GUESSED])
        taking = f"taking {scale}, because {because}; give the input scale if it is another"
        if measured.recognises_most:
            warnings.warn(f"{found}, which does not tell them apart; {taking}", Note, stacklevel=2)
        else:
            causes = "are the labels those of this net, and the colours in the order red, green, blue?"
            warnings.warn(f"{found}: none is convincing; {causes} {taking}", UserWarning, stacklevel=2)
        return net.with_input_scale(scale)
    scale, why = (fallback, "the BadNet's") if fallback else (measured.input_scale, "the better")
    told = f"{found}: none is convincing; taking {scale}, {why}; give the input scale if it is another"
    warnings.warn(told, UserWarning, stacklevel=2)
    return net.with_input_scale(scale)


def _shares(measured: ScaleMeasurement) -> str:
    shares = [
        f"{100 * measured.correct[scale] / measured.n:.1f} % on {scale} pixels ({MEANINGS[scale]})" for scale in NAMED
    ]
    return ", ".join(shares)


def scaled_by_assumption(net: Net, images: "ImageSet", *, fallback: str | None = None) -> Net:
    """The net with its input scale where nothing is labelled: `fallback`, or a guess; a warning says which.

    Args:
        fallback: what another net of the same GoodNet has, or the guard.
    """
    if net.input_scale is not None:
        return net
    told = f"{net.name}: the file does not say its input scale, and no labels do"
    if fallback:
        line = f"{told}; assuming {fallback}, as the other net or the guard says; give the input scale if it is another"
        warnings.warn(line, Note, stacklevel=2)
        return net.with_input_scale(fallback)
    scale, why = assumed_input_scale(net, images[:_GUESSED])
    line = f"{told}; assuming {scale}, because {why}; give the input scale if it is another"
    warnings.warn(line, Note, stacklevel=2)
    return net.with_input_scale(scale)
