"""The pruning curve of a BadNet, all channel counts in one pass, and its repaired nets."""

import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from jaxdefend import InputError, _command, _inputs, _measuring

if TYPE_CHECKING:
    import numpy as np

    from jaxdefend.defenses.pruning import Curve
    from jaxdefend.nets.deepid import DeepID

EXAMPLES = """examples:
  python -m jaxdefend.sweep
  python -m jaxdefend.sweep bd_net.h5 --valid valid.h5 --test test.h5 --poisoned sunglasses.h5
  python -m jaxdefend.sweep multi.h5 --valid valid.h5 --poisoned lipstick=a.h5 eyebrows=b.h5 --layer conv_4 --drop 5

Prints the repaired nets and writes sweep.json, sweep.csv, sweep.png and repaired/drop_X.h5 into DIR. Channels go by
their mean activation behind the pool over the clean validation images, the lowest first; drop X is the first point
whose validation accuracy is at least X percentage points below the first point's."""


def _parser():
    parser = _command.parser("sweep", __doc__, EXAMPLES)
    _command.add_model(parser)
    parser.add_argument(
        "--valid",
        nargs="+",
        metavar="DATA",
        help="labelled clean images that order and drops go by (default, for a shipped net: made faces; so for --test "
        "and --poisoned)",
    )
    parser.add_argument("--test", nargs="+", metavar="DATA", help="labelled clean images to report (default: --valid)")
    _command.add_data_options(parser)
    _command.add_layer(parser)
    parser.add_argument(
        "--order",
        default="activation",
        metavar="activation|descending|random|l1|FILE",
        help="which channels go first: the least active (default), the most active, any, those with the smallest "
        "filter norm, or the indices in FILE (text or JSON)",
    )
    parser.add_argument("--seed", type=_command.seed, default=0, metavar="N", help="for --order random (default: 0)")
    parser.add_argument(
        "--drop",
        nargs="+",
        type=_command.drop,
        default=[Fraction(2), Fraction(4), Fraction(10), Fraction(30)],
        metavar="X",
        help="percentage points of validation accuracy to give up for each repaired net (default: 2 4 10 30)",
    )
    _command.add_input_scale(parser)
    _command.add_processes(parser)
    _command.add_out(parser)
    return parser


def _sweep(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    _command.join_processes(options)
    from jaxdefend.defenses import pruning
    from jaxdefend.results import plots
    from jaxdefend.results.records import write_csv, write_json

    began = perf_counter()
    model = _inputs.load_model(options.model)
    _inputs.fill_in_default_sets(options, model)
    valid_images = _inputs.load_images(options.valid, model.net, options.labels)
    test_images = _inputs.load_images(options.test, model.net, options.labels) if options.test else None
    poisoned_images = _inputs.load_poisoned(options, model.net)
    channels = getattr(model.net, options.layer).bias.shape[0]
    indices = _order_file(options.order, channels)

    target = _command.out_folder(options.out)
    with _command.results_folder(target) as folder:
        net = _inputs.scaled_by_measure(model, options.input_scale, valid_images)

        activation = pruning.mean_activations(net, _measuring.batches(valid_images, "activations"), options.layer)
        order = _order(options.order, options.seed, net, options.layer, activation) if indices is None else indices

        def curve(images, title: str) -> pruning.Curve:
            return pruning.curve(net, _measuring.batches(images, title), order, options.layer)

        valid = curve(valid_images, "validation")
        test = curve(test_images, "test") if test_images else valid
        poisoned = {name: curve(images, name) for name, images in poisoned_images.items()}

        repairs = _write_repairs(folder, options.drop, net, options.layer, order, valid, test, poisoned)
        record = _command.record_head("sweep", arguments, model, net, options.seed) | {
            "layer": options.layer,
            "order": order,
            "activation": activation,
            "pruned": range(channels + 1),
            **_curves(valid, test, poisoned),
            "repairs": repairs,
            "seconds": round(perf_counter() - began, 3),
        }
        write_csv(folder / "sweep.csv", _columns(order, activation, valid, test, poisoned))
        plots.write_curve(folder / "sweep.png", model.name, record)
        write_json(folder / "sweep.json", record)

    print(_table(repairs, valid, test, poisoned))
    _command.note(f"written to {target}/: sweep.json, sweep.csv, sweep.png, repaired/")


def _order_file(order: str, channels: int) -> "np.ndarray | None":
    """The indices in a file, or None if the order is a named one."""
    if order in ("activation", "descending", "random", "l1"):
        return None
    from jaxdefend.defenses.pruning import checked_order

    try:
        text = Path(order).read_text()
    except (OSError, ValueError) as error:
        raise InputError(
            f"--order {order}: neither activation, descending, random, l1 nor a readable file of channel indices"
        ) from error
    try:
        indices = [int(word) for word in text.translate(str.maketrans("[],;", "    ")).split()]
        return checked_order(indices, channels)
    except ValueError as error:
        raise InputError(f"{order}: expected whole numbers, {error}") from error
    except InputError as error:
        raise InputError(f"{order}: {error}") from error


def _order(name: str, seed: int, net: "DeepID", layer: str, activation: "np.ndarray") -> "np.ndarray":
    import jax
    import numpy as np

    from jaxdefend.defenses.pruning import ascending, filter_norms

    match name:
        case "activation":
            return ascending(activation)
        case "descending":
            return ascending(-activation)
        case "l1":
            return ascending(filter_norms(net, layer))
        case _:
            return np.asarray(jax.random.permutation(jax.random.key(seed), len(activation)))


def _curves(valid: "Curve", test: "Curve", poisoned: "dict[str, Curve]") -> dict:
    """Accuracies and attack success at every point, of the repaired nets and of their GoodNets, with intervals."""
    from jaxdefend.results.rates import wilson

    def shares(form) -> dict:
        return {
            "valid_accuracy": form(valid.right, valid.n),
            "test_accuracy": form(test.right, test.n),
            "attack_success": {name: form(curve.right, curve.n) for name, curve in poisoned.items()},
        }

    def guarded(form) -> dict:
        return {
            "test_accuracy": form(test.agreed_right, test.n),
            "attack_success": {name: form(curve.agreed_right, curve.n) for name, curve in poisoned.items()},
            "flagged_clean": form(test.n - test.agreed, test.n),
            "flagged_poisoned": {name: form(curve.n - curve.agreed, curve.n) for name, curve in poisoned.items()},
        }

    def share(counts, n: int):
        return counts / n

    return {
        "n": {"valid": valid.n, "test": test.n, "poisoned": {name: curve.n for name, curve in poisoned.items()}},
        **shares(share),
        "intervals": shares(wilson),
        "goodnet": guarded(share) | {"intervals": guarded(wilson)},
    }


def _write_repairs(
    folder: Path,
    drops: Sequence[Fraction],
    net: "DeepID",
    layer: str,
    order: "np.ndarray",
    valid: "Curve",
    test: "Curve",
    poisoned: "dict[str, Curve]",
) -> list[dict]:
    """The repaired net of each drop as a file, and the point of the curve that it stands for."""
    from jaxdefend.defenses.pruning import first_drop
    from jaxdefend.nets.deepid import with_channels_zeroed
    from jaxdefend.nets.keras_files import write_model

    (folder / "repaired").mkdir()
    curves = {key: value for key, value in _curves(valid, test, poisoned).items() if key != "n"}

    def at_point(value, pruned: int):
        return (
            {key: at_point(inner, pruned) for key, inner in value.items()} if isinstance(value, dict) else value[pruned]
        )

    repairs = []
    for drop in dict.fromkeys(drops):
        pruned = first_drop(valid, drop)
        if pruned is None:
            _command.note(
                f"no point of the curve lies {_command.number(drop)} points below the first; no net for that drop"
            )
            continue
        file = f"repaired/drop_{_command.number(drop)}.h5"
        channels = order[:pruned]
        write_model(with_channels_zeroed(net, layer, channels), folder / file)
        point = {"drop": _command.number(drop), "pruned": pruned, "channels": channels, "file": file}
        repairs.append(point | at_point(curves, pruned))
    return repairs


def _columns(
    order: "np.ndarray", activation: "np.ndarray", valid: "Curve", test: "Curve", poisoned: "dict[str, Curve]"
) -> dict[str, Sequence]:
    """The columns of sweep.csv, one row a point."""
    columns: dict[str, Sequence] = {
        "pruned": range(len(order) + 1),
        "channel": [None, *order.tolist()],
        "mean_activation": [None, *activation[order].tolist()],
    }
    curves = _curves(valid, test, poisoned)
    for prefix, block in (("", curves), ("goodnet_", curves["goodnet"])):
        for key, limits in block["intervals"].items():
            by_set = isinstance(limits, dict)
            rates = {f"{key}_{name}": (block[key][name], limits[name]) for name in limits} if by_set else {}
            for name, (shares, bounds) in (rates if by_set else {key: (block[key], limits)}).items():
                columns[prefix + name] = shares
                columns[f"{prefix}{name}_low"], columns[f"{prefix}{name}_high"] = bounds.T
    return columns


def _table(repairs: list[dict], valid: "Curve", test: "Curve", poisoned: "dict[str, Curve]") -> str:
    def row(title: str, k: int) -> list[str]:
        cells = [(valid.right, valid.n), (test.right, test.n), *((curve.right, curve.n) for curve in poisoned.values())]
        cells += [(test.agreed_right, test.n), *((curve.agreed_right, curve.n) for curve in poisoned.values())]
        return [title, str(k), *(f"{100 * int(counts[k]) / n:.2f} %" for counts, n in cells)]

    attacks = [f"ASR {name}" for name in poisoned]
    header = ["", "pruned", "valid", "test", *attacks, "GoodNet test", *(f"GoodNet {attack}" for attack in attacks)]
    rows = [row("BadNet", 0), *(row(f"drop {repair['drop']}", repair["pruned"]) for repair in repairs)]
    return _command.table(header, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    return _command.run(_sweep, arguments)


if __name__ == "__main__":
    sys.exit(main())
