"""An attack lab: synthetic faces, and nets with or without a backdoor trained on them or on your own images."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from jaxdefend import InputError
from jaxdefend.attacks.settings import LabSettings
from jaxdefend.cli import arguments as options_of
from jaxdefend.cli import image_sets, interrupts, methods, output, runtime, terminal
from jaxdefend.results.progress import Report

if TYPE_CHECKING:
    from jaxdefend.datasets.files import Images
    from jaxdefend.nets.graph import Graph

TABLE = {"train": LabSettings}

EXAMPLES = """examples:
  python -m jaxdefend.train --attack badnet --trigger patch --target 7 --out patch_net.h5
  python -m jaxdefend.train --attack clean --people 50 --epochs 20 --out small.h5
  python -m jaxdefend.train --train train.h5 --valid valid.h5 --out net.h5
  python -m jaxdefend.train --model mine.h5 --train digits/ --valid test/ --trigger patch --out bad_mine.h5
  python -m jaxdefend.train --faces-only --trigger patch --target 7 --out faces

attacks: clean (none: the control), badnet (all to one), multi (lipstick to 1, eyebrows to 5, sunglasses to 8),
all-to-all (every label to the next), pruning-aware (the backdoor shares the channels that clean faces need; trains
twice; Liu et al. 2018). Triggers: sunglasses, lipstick, eyebrows, patch, blended, sinusoidal, warping.

Writes the net as a Keras .h5 and its figures as .json beside it. Ctrl-C saves; the same command with --resume goes on
from there to the same net. With --faces-only it writes the clean sets valid, test and train and each trigger's
poisoned test set into a folder. On images from files, triggers sit where eyes and mouths of aligned faces are."""


def _parser() -> options_of.Parser:
    parser = options_of.parser("train", __doc__, EXAMPLES)
    methods.add_options(parser, TABLE)
    options_of.add_seed(parser, "of poisoning and training")
    options_of.add_clean(parser, "--train", "labelled images to train on instead of synthetic faces")
    options_of.add_clean(parser, "--valid", "labelled images to measure on, with --train")
    parser.add_argument(
        "--model",
        metavar="FILE",
        help="with --train: a net of the layers in FILE, a whole Keras model or the JSON of model.to_json(); weights "
        "are not read (default: DeepID)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from what an interrupted run saved")
    parser.add_argument("--faces-only", action="store_true", help="write the synthetic faces and train nothing")
    parser.add_argument("--png", action="store_true", help="with --faces-only: pictures instead of official .h5 files")
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="the net's file (net.h5); with --faces-only the folder (faces)"
    )
    return parser


def _train(arguments: Sequence[str], report: Report) -> None:
    options = _parser().parsed(arguments)
    settings = methods.chosen(options, TABLE, "train")["train"]
    if bool(options.train) != bool(options.valid):
        raise InputError("--train and --valid belong together: images to train on and images to measure on")
    if options.model and not options.train:
        raise InputError("--model goes with --train and --valid: the synthetic faces are for DeepID")
    if options.png and not options.faces_only:
        raise InputError("--png goes with --faces-only")
    with methods.named_as_options(TABLE):
        if options.faces_only:
            _write_faces(options, settings, report)
        else:
            _write_net(options, settings, arguments, report)


def _write_net(options: argparse.Namespace, settings: LabSettings, arguments: Sequence[str], report: Report) -> None:
    from jaxdefend.attacks.lab import attack_of
    from jaxdefend.nets.keras_files import read_model, write_model
    from jaxdefend.results.records import write_json

    began = perf_counter()
    out = options.out or Path("net.h5")
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder, expected the name of the net's file")
    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise InputError(f"--out {out}: expected a name that ends in .h5; the figures go into a .json beside it")
    if not options.train:
        attack_of(settings)
    graph = _graph(options.model)
    given = [_images(getattr(options, name), name, graph) for name in ("train", "valid") if options.train]
    with output.resumable(out, options.resume) as saved:
        with interrupts.stopping(report) as stoppable:
            trained = settings(*given, graph=graph, seed=options.seed, progress=stoppable, saved=saved)
        write_model(trained.net, out)
        runtime.written.set(out)
    net = read_model(out).net
    paths = {name: getattr(options, name) for name in ("train", "valid")}
    record = output.head("train", arguments, net, options.seed) | {**trained.record(), **paths}
    write_json(out.with_suffix(".json"), record | {"seconds": round(perf_counter() - began, 1)})
    terminal.show(trained.table(out.stem))
    terminal.note(f"written to {out} and {out.with_suffix('.json')}; try it: python -m jaxdefend.sweep {out}")


def _graph(model: str | None) -> "Graph | None":
    """The layers in the file."""
    from jaxdefend.nets.keras_files import read_architecture

    return None if model is None else read_architecture(model).graph


def _images(paths: Sequence[str], name: str, graph: "Graph | None") -> "Images":
    """Labelled images for a net of these layers, by default DeepID's."""
    from jaxdefend.nets.deepid import deepid

    shape = (graph or deepid()).image_shape
    return image_sets.open_images_of(paths, shape, f"--{name}", classes=graph.classes if graph else None)


def _write_faces(options: argparse.Namespace, settings: LabSettings, report: Report) -> None:
    from jaxdefend.attacks.lab import face_sets
    from jaxdefend.datasets.official import write_official, write_pictures
    from jaxdefend.results.text import table

    sets = face_sets(settings)
    folder = options.out or Path("faces")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({error.strerror}); choose another folder") from error
    for faces in sets:
        if options.png:
            write_pictures(folder / faces.name, faces.blocks(report))
        else:
            write_official(folder / f"{faces.name}.h5", faces.size, faces.blocks(report))
    terminal.show(table(["set", "images"], [[faces.name, str(faces.size)] for faces in sets]))
    terminal.note(f"written to {folder}/")


def main(arguments: Sequence[str | Path] | None = None) -> int:
    return runtime.run(_train, arguments)


if __name__ == "__main__":
    runtime.program(main)
