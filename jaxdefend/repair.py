"""A repaired net from a BadNet and clean images: pruned, or pruned and then trained."""

import argparse
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from jaxdefend import InputError, _command, _inputs, _measuring

if TYPE_CHECKING:
    import numpy as np

    from jaxdefend.datasets.batches import ImageSet
    from jaxdefend.nets.deepid import DeepID

EXAMPLES = """examples:
  python -m jaxdefend.repair
  python -m jaxdefend.repair bd_net.h5 --valid valid.h5 --test test.h5 --poisoned sunglasses.h5 --out repaired
  python -m jaxdefend.repair bd_net.h5 --valid valid.h5 --method prune --drop 10

methods:
  prune       the channels that clean images activate least are zeroed, up to the first point whose validation accuracy
              lies --drop points below the net's
  fine-prune  the same, then training on nine tenths of the clean images; the epoch that recognises most of the last
              tenth is kept (Liu et al. 2018)

Nothing but the clean validation images decides anything. Prints what the BadNet, the repaired net and the GoodNet of
both do on the test and the poisoned images, and writes repaired.h5, repaired.orbax/ and repair.json into DIR."""

BATCH = 128


def _parser():
    parser = _command.parser("repair", __doc__, EXAMPLES)
    _command.add_model(parser)
    parser.add_argument("--method", choices=("prune", "fine-prune"), default="fine-prune", help="(default: fine-prune)")
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
    parser.add_argument(
        "--drop",
        type=_command.drop,
        default=Fraction(4),
        metavar="X",
        help="percentage points of validation accuracy that pruning gives up (default: 4)",
    )
    parser.add_argument("--epochs", type=int, default=25, metavar="N", help="of training (default: 25)")
    parser.add_argument(
        "--learning-rate", type=float, default=5e-3, metavar="R", help="the highest one; it falls to 0 (default: 0.005)"
    )
    parser.add_argument("--seed", type=_command.seed, default=0, metavar="N", help="of the training (default: 0)")
    _command.add_input_scale(parser)
    _command.add_out(parser)
    return parser


def _repair(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    if options.epochs < 1:
        raise InputError(f"--epochs {options.epochs}: expected at least 1")
    if not 0 < options.learning_rate < 1:
        raise InputError(f"--learning-rate {options.learning_rate:g}: expected a number between 0 and 1")
    from jaxdefend.nets.checkpoints import write_checkpoint
    from jaxdefend.nets.keras_files import read_model, write_model
    from jaxdefend.results.rates import defense_effectiveness
    from jaxdefend.results.records import output_folder, write_json

    model = _inputs.load_model(options.model)
    _inputs.fill_in_default_sets(options, model)
    valid = _inputs.load_images(options.valid, model.net, options.labels)
    target = _command.out_folder(options.out)
    with output_folder(target) as folder:
        net = _inputs.scaled_by_measure(model, options.input_scale, valid)
        repaired, settings = _repaired(options, net, valid)
        write_model(repaired, folder / "repaired.h5")
        write_checkpoint(repaired, folder / "repaired.orbax")

        test = _inputs.load_images(options.test, net, options.labels) if options.test else valid
        poisoned = _inputs.load_poisoned(options, net)
        on_clean, on_poisoned = _measuring.measured({"badnet": net, "repaired": repaired}, test, poisoned)
        results = _measuring.by_net(on_clean, on_poisoned)
        for key in ("repaired", "goodnet"):
            results[key]["der"] = defense_effectiveness(results["badnet"], results[key])
        record = _command.record_head("repair", arguments, model, net, options.seed) | {
            "method": options.method,
            "settings": settings,
            "file": "repaired.h5",
            "badnet": results["badnet"],
            "repaired": {"model": _command.model_record(read_model(folder / "repaired.h5")), **results["repaired"]},
            "goodnet": results["goodnet"],
        }
        write_json(folder / "repair.json", record)

    print(_measuring.rates_table(on_clean, on_poisoned))
    _command.note(f"written to {target}/: repaired.h5, repaired.orbax/, repair.json")


def _repaired(options: argparse.Namespace, net: "DeepID", valid: "ImageSet") -> "tuple[DeepID, dict]":
    """The repaired net, and the settings that made it."""
    from jaxdefend.defenses import pruning
    from jaxdefend.nets.deepid import with_channels_zeroed

    order = pruning.ascending(pruning.mean_activations(net, _measuring.batches(valid, "activations"), options.layer))
    curve = pruning.curve(net, _measuring.batches(valid, "curve"), order, options.layer)
    pruned = pruning.first_drop(curve, options.drop)
    if pruned is None:
        raise InputError(
            f"--drop {_command.number(options.drop)}: no point of the curve lies that far below the first; give up less"
        )
    channels = order[:pruned]
    settings = {"layer": options.layer, "drop": _command.number(options.drop), "channels": channels}
    if options.method == "prune":
        return with_channels_zeroed(net, options.layer, channels), settings
    fitted, epoch, accuracy = _fine_pruned(options, net, channels, valid)
    training = {"epochs": options.epochs, "learning_rate": options.learning_rate, "batch": BATCH}
    return fitted, settings | training | {"epoch": epoch, "held_back_accuracy": accuracy}


def _fine_pruned(
    options: argparse.Namespace, net: "DeepID", channels: "np.ndarray", valid: "ImageSet"
) -> "tuple[DeepID, int, float]":
    """The net of the epoch that recognises most of the images held back, the latest on a tie; the epoch; that share."""
    import jax
    import numpy as np

    from jaxdefend.datasets.batches import ArrayImages, padded
    from jaxdefend.defenses.finetuning import fine_pruned
    from jaxdefend.nets.inference import predictions
    from jaxdefend.nets.training import Schedule

    if len(valid) < 10 or valid.labels is None:
        raise InputError(f"{len(valid)} clean images to train on; expected ten or more, labelled")
    splitting, training = jax.random.split(jax.random.key(options.seed))
    order = np.asarray(jax.random.permutation(splitting, len(valid)))
    pixels, labels = np.rint(valid[:]).astype(np.uint8), valid.labels.astype(np.int32)
    held, used = np.split(order, [len(valid) // 10])
    held_back = ArrayImages(pixels[held], labels[held])

    passes = max(1, len(used) // BATCH)
    schedule = Schedule(options.epochs * passes, BATCH, options.learning_rate)
    best, best_epoch, most = net, 0, -1
    with _command.progress("fine-prune", schedule.steps * BATCH, "images") as advance:
        steps = fine_pruned(net, options.layer, channels, pixels[used], labels[used], schedule, training)
        for step, (fitted, loss) in enumerate(steps, 1):
            advance(BATCH)
            if step % passes:
                continue
            right = int((predictions(fitted, padded(held_back))[0] == held_back.labels).sum())
            _command.say(
                f"epoch {step // passes} of {options.epochs}: loss {float(loss):.4f}, "
                f"{100 * right / len(held):.1f} % of the images held back"
            )
            if right >= most:
                best, best_epoch, most = jax.device_get(fitted), step // passes, right
    return best, best_epoch, most / len(held)


def main(arguments: Sequence[str] | None = None) -> int:
    return _command.run(_repair, arguments)


if __name__ == "__main__":
    sys.exit(main())
