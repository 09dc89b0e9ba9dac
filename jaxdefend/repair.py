"""A repaired net from a BadNet and clean images: pruned, trained, or both."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from jaxdefend import InputError, _command, _inputs, _measuring, _repairing

if TYPE_CHECKING:
    from pathlib import Path

    from jaxdefend.datasets.batches import ImageSet
    from jaxdefend.defenses.grid import Cell
    from jaxdefend.nets.deepid import DeepID
    from jaxdefend.nets.keras_files import ModelFile

METHODS = ("noise", "fine-prune", "prune", "iterative", "magnitude", "ft-sam", "ibau", "distill", "anp", "clp", "anti")

EXAMPLES = """examples:
  python -m jaxdefend.repair
  python -m jaxdefend.repair bd_net.h5 --valid valid.h5 --test test.h5 --poisoned sunglasses.h5 --out repaired
  python -m jaxdefend.repair bd_net.h5 --valid valid.h5 --method prune --drop 10
  python -m jaxdefend.repair --grid --learning-rates 0.001 0.005 --fractions 0.5 0.8

methods:
  noise       the channels that clean images activate least are zeroed, up to the first point whose validation accuracy
              lies --drop points below the net's (or as many as --channels or --fraction says); then training on the
              clean images, half of them under squares of random colours (Veldanda et al. 2020)
  fine-prune  the same without the squares (Liu et al. 2018)
  prune       the same channels, and no training
  iterative   the same channels one after another, with training in between; with --b0 N the GoodNet has B0, the net
              after the epoch in which the Nth goes, in place of the BadNet (vbabushkin, on GitHub)
  magnitude   training while the smallest weights of every kernel are zeroed, 50 to 70 % (Zhu & Gupta 2017)
  ft-sam      training for a flat loss (Zhu et al. 2023)
  ibau        training against the one perturbation that misleads all images (Zeng et al. 2022)
  distill     training to find in images under boxes of random colours what the net finds in them without, and no label
              counts: for where there are few images a person (Li et al. 2021, Zhong et al. 2020)
  anp         the channels of all convolutions that do not stand disturbance go, as long as that gives up less than
              --drop points (Wu & Wang 2021)
  clp         the channels of all convolutions that stand out by their Lipschitz constant go (Zheng et al. 2022)
  anti        the most active channels of conv_2 go until one face in twenty is left: no repaired net, but one that has
              kept the backdoor alone; the GoodNet answers N where it agrees with the net (--rule anti in evaluate and
              predict)

--grid trains fine-prune and magnitude at once, each with every learning rate and fraction (of the channels of --layer,
or of the weights of each kernel), keeps the net that recognises most of the images held back, and draws grid.png.

Nothing but the clean validation images decides anything. Those that train do so on nine tenths of them; of the epochs
in the second half, the one that recognises most of the last tenth is kept; of distill, the last epoch. Prints what the
BadNet, the repaired net and the GoodNet of both do on the test and the poisoned images, and writes repaired.h5,
repaired.orbax/, repair.json and, with --b0, b0.h5 into DIR. What an interrupted run leaves in DIR.checkpoint, the same
command goes on from with --resume."""


def _parser():
    parser = _command.parser("repair", __doc__, EXAMPLES)
    _command.add_model(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--method", choices=METHODS, default="noise", help="(default: noise)")
    kind.add_argument("--grid", action="store_true", help="many settings at once instead of one --method")
    parser.add_argument(
        "--valid",
        nargs="+",
        metavar="DATA",
        help="labelled clean images to repair with (default, for a shipped net: made faces; so for --test and "
        "--poisoned)",
    )
    parser.add_argument("--test", nargs="+", metavar="DATA", help="labelled clean images to report (default: --valid)")
    _command.add_data_options(parser)
    _command.add_layer(parser)
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--drop",
        type=_command.drop,
        default=Fraction(4),
        metavar="X",
        help="percentage points of validation accuracy that pruning gives up (default: 4)",
    )
    amount.add_argument("--channels", type=int, metavar="N", help="how many channels to prune")
    amount.add_argument("--fraction", type=float, metavar="F", help="which part of the channels to prune, 0–1")
    parser.add_argument("--epochs", type=int, metavar="N", help="of training (default: 25; distill 80; ibau and anp 5)")
    parser.add_argument(
        "--learning-rate",
        type=float,
        metavar="R",
        help="the highest one; it falls to 0 (default: 0.005; distill 0.004; ibau 0.001; anp 0.2, constant)",
    )
    parser.add_argument("--batch", type=int, metavar="N", help="images a step (default: 128; distill 32)")
    parser.add_argument(
        "--optimizer",
        choices=("adam", "adamw", "sgd"),
        default="adam",
        help="adamw: with weight decay 1e-4; sgd: with momentum 0.9 (default: adam; anp and --grid have their own)",
    )
    parser.add_argument("--b0", type=int, metavar="N", help="with iterative: channels that B0 lacks, or a few more")
    parser.add_argument(
        "--learning-rates",
        type=float,
        nargs="+",
        metavar="R",
        help="of the grid (default: 0.001 0.003 0.01)",
    )
    parser.add_argument("--fractions", type=float, nargs="+", metavar="F", help="of the grid (default: 0.5 0.7)")
    parser.add_argument("--seed", type=_command.seed, default=0, metavar="N", help="of the training (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on from what an interrupted run saved beside --out")
    _command.add_input_scale(parser)
    _command.add_out(parser)
    return parser


def _repair(arguments: Sequence[str] | None) -> None:
    options = _checked(_parser().parse_args(arguments))
    from jaxdefend.nets.checkpoints import write_checkpoint
    from jaxdefend.nets.keras_files import read_model, write_model
    from jaxdefend.nets.resuming import saved_run
    from jaxdefend.results import plots
    from jaxdefend.results.rates import defense_effectiveness
    from jaxdefend.results.records import output_folder, require_folder, write_json

    model = _inputs.load_model(options.model)
    _inputs.fill_in_default_sets(options, model)
    valid = _inputs.load_images(options.valid, model.net, options.labels)
    options.out = _command.out_folder(options.out)
    require_folder(options.out)
    with saved_run(options.out, _configuration(options, model), options.resume) as saved:
        net = _inputs.scaled_by_measure(model, options.input_scale, valid)
        (repaired, settings, b0), trained = _made(options, net, valid, saved)
        with output_folder(options.out) as folder:
            write_model(repaired, folder / "repaired.h5")
            write_checkpoint(repaired, folder / "repaired.orbax")
            nets = {"badnet": net, "repaired": repaired}
            if b0 is not None:
                write_model(b0, folder / "b0.h5")
                nets["b0"] = b0
            test = _inputs.load_images(options.test, net, options.labels) if options.test else valid
            poisoned = _inputs.load_poisoned(options, net)
            rule = "anti" if options.method == "anti" else "goodnet"
            true_labels = _inputs.true_labels(options, test, poisoned)
            on_clean, on_poisoned = _measuring.measured(nets, test, poisoned, rule, true_labels)
            results = _measuring.by_net(on_clean, on_poisoned)
            for key in ("repaired", "goodnet"):
                results[key]["der"] = defense_effectiveness(results["badnet"], results[key])
            if trained:
                settings["cells"] = [
                    {**cell._asdict(), "recognised_of_held_back": count, **_rates(each, test, poisoned)}
                    for cell, each, count in trained
                ]
                plots.write_grid(folder / "grid.png", model.name, settings["cells"], settings["chosen"])
            record = _command.record_head("repair", arguments, model, net, options.seed) | {
                "method": options.method,
                "settings": settings,
                "rule": rule,
                "file": "repaired.h5",
                "badnet": results["badnet"],
                "repaired": {"model": _command.model_record(read_model(folder / "repaired.h5")), **results["repaired"]},
                "goodnet": results["goodnet"],
            }
            if b0 is not None:
                record["b0"] = {"model": _command.model_record(read_model(folder / "b0.h5")), **results["b0"]}
            write_json(folder / "repair.json", record)

    print(_measuring.rates_table(on_clean, on_poisoned))
    more = ", grid.png" if options.grid else ", b0.h5" if options.b0 else ""
    _command.note(f"written to {options.out}/: repaired.h5, repaired.orbax/, repair.json{more}")


def _made(
    options: argparse.Namespace, net: "DeepID", valid: "ImageSet", saved: "Path"
) -> "tuple[_repairing.Repair, list[tuple[Cell, DeepID, int]]]":
    """The repair asked for; of a grid the chosen one, and all cells."""
    if not options.grid:
        return _repairing.repaired(options, net, valid, saved), []
    trained, chosen = _repairing.grid(options, net, valid, saved)
    batch = options.batch or _repairing.BATCH
    settings = {"layer": options.layer, "epochs": options.epochs, "batch": batch, "chosen": chosen}
    return _repairing.Repair(trained[chosen][1], settings), trained


def _rates(net: "DeepID", test: "ImageSet", poisoned: "Mapping[str, ImageSet]") -> dict:
    """What a cell does, measured after the choice."""
    clean, by_set = _measuring.measured({"badnet": net}, test, poisoned)
    return {"clean": clean["badnet"], "poisoned": {name: blocks["badnet"] for name, blocks in by_set.items()}}


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    if options.grid:
        unread, instead = ("learning_rate", "channels", "fraction"), "--grid takes --learning-rates and --fractions"
    elif options.method in _repairing.PRUNING:
        unread, instead = ("learning_rates", "fractions"), "only --grid takes several"
    else:
        unread = ("learning_rates", "fractions", "channels", "fraction")
        instead = f"{options.method} does not prune channels by their activation"
    for name in unread:
        if getattr(options, name) is not None:
            raise InputError(f"--{name.replace('_', '-')}: {instead}; leave the option out")
    if not options.grid and options.method not in _repairing.PRUNING and options.layer != "conv_3":
        raise InputError(f"--layer {options.layer}: {instead}; leave the option out")
    if options.grid:
        options.method = "grid"
        options.learning_rates = options.learning_rates or [1e-3, 3e-3, 1e-2]
        options.fractions = options.fractions or [0.5, 0.7]
        for rate in options.learning_rates:
            if not 0 < rate < 1:
                raise InputError(f"--learning-rates {rate:g}: expected numbers between 0 and 1")
        for fraction in options.fractions:
            if not 0 <= fraction < 1:
                raise InputError(f"--fractions {fraction:g}: expected shares from 0 to below 1")
    epochs, rate = _repairing.TRAINING.get(options.method, (1, 1e-3))
    options.epochs = epochs if options.epochs is None else options.epochs
    options.learning_rate = rate if options.learning_rate is None else options.learning_rate
    if options.epochs < 1:
        raise InputError(f"--epochs {options.epochs}: expected at least 1")
    if not 0 < options.learning_rate < 1:
        raise InputError(f"--learning-rate {options.learning_rate:g}: expected a number between 0 and 1")
    if options.fraction is not None and not 0 <= options.fraction <= 1:
        raise InputError(f"--fraction {options.fraction:g}: expected a part of the channels, 0–1")
    if options.batch is not None and options.batch < 1:
        raise InputError(f"--batch {options.batch}: expected at least 1")
    least = {"distill": 4, "noise": 2}.get(options.method, 1)
    if options.batch is not None and options.batch < least:
        raise InputError(
            f"--batch {options.batch}: {options.method} covers a part of each batch; expected {least} or more"
        )
    if options.optimizer != "adam" and options.method in ("anp", "grid"):
        raise InputError(f"--optimizer {options.optimizer}: {options.method} has its own; leave the option out")
    if options.method not in _repairing.TRAINING and (options.batch is not None or options.optimizer != "adam"):
        raise InputError(f"--batch and --optimizer: {options.method} does not train; leave them out")
    if options.b0 is not None and (options.b0 < 1 or options.method != "iterative"):
        raise InputError(f"--b0 {options.b0}: expected at least one channel, with --method iterative")
    if options.resume and options.out is None:
        raise InputError("--resume needs --out: the folder that the interrupted run was to write")
    return options


def _configuration(options: argparse.Namespace, model: "ModelFile") -> dict:
    """What a saved state must share with the run that goes on from it."""
    names = (
        "method",
        "learning_rates",
        "fractions",
        "valid",
        "labels",
        "layer",
        "channels",
        "fraction",
        "b0",
        "epochs",
        "batch",
        "optimizer",
        "learning_rate",
        "seed",
        "input_scale",
    )
    return {name: getattr(options, name) for name in names} | {"drop": str(options.drop), "model": model.sha256}


def main(arguments: Sequence[str] | None = None) -> int:
    return _command.run(_repair, arguments)


if __name__ == "__main__":
    sys.exit(main())
