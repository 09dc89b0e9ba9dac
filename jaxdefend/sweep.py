"""The pruning curve of a BadNet, all channel counts in one pass, and its repaired nets."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from jaxdefend import InputError
from jaxdefend.cli import arguments as options_of
from jaxdefend.cli import image_sets, inputs, output, path_kinds, processes, runtime, terminal
from jaxdefend.results.progress import Report
from jaxdefend.results.text import printable

if TYPE_CHECKING:
    from jaxdefend.nets.net import Net

EXAMPLES = """examples:
  python -m jaxdefend.sweep
  python -m jaxdefend.sweep bd_net.h5 --valid valid.h5 --test test.h5 --poisoned sunglasses.h5
  python -m jaxdefend.sweep multi.h5 --valid valid.h5 --poisoned lipstick=a.h5 eyebrows=b.h5 --layer conv_4 --drop 5

Prints the repaired nets and writes sweep.json, sweep.csv, sweep.png and repaired/drop_X.h5 into DIR. Channels go by
their mean activation over the clean validation images, the lowest first; drop X is the first point whose validation
accuracy is at least X percentage points below the first point's."""


# What a run writes, and a later one replaces.
OWNED = ("sweep.json", "sweep.csv", "sweep.png", "repaired/drop_*.h5")


def _parser() -> options_of.Parser:
    parser = options_of.parser("sweep", __doc__, EXAMPLES)
    options_of.add_model(parser)
    options_of.add_clean(
        parser,
        "--valid",
        "labelled clean images that order and drops go by (default, for a shipped net: synthetic faces; so for --test "
        "and --poisoned)",
    )
    options_of.add_clean(parser, "--test", "labelled clean images to report (default: --valid)")
    options_of.add_poisoned(parser)
    parser.add_argument(
        "--layer", metavar="LAYER", help="convolution whose channels are pruned (default: the last one; DeepID: conv_3)"
    )
    parser.add_argument(
        "--order",
        default="activation",
        metavar="activation|descending|random|l1|FILE",
        help="which channels go first: the least active (default), the most active, any, those with the smallest "
        "filter norm, or the indices in FILE (text or JSON)",
    )
    options_of.add_seed(parser, "for --order random")
    parser.add_argument(
        "--drop",
        nargs="+",
        type=options_of.points,
        default=[Fraction(2), Fraction(4), Fraction(10), Fraction(30)],
        metavar="X",
        help="percentage points of validation accuracy to give up for each repaired net (default: 2 4 10 30)",
    )
    options_of.add_input_scale(parser)
    options_of.add_processes(parser)
    options_of.add_out(parser)
    return parser


def _sweep(arguments: Sequence[str], report: Report) -> None:
    options = _parser().parsed(
        arguments, lambda found, left: path_kinds.out_of_order("sweep", [found.model, *left], "--valid")
    )
    processes.join(options)
    from jaxdefend.cli import picture
    from jaxdefend.nets.keras_files import write_model
    from jaxdefend.repairs.curve import checked_layer
    from jaxdefend.repairs.sweeping import drop_file, sweep
    from jaxdefend.results.plots import write_figure
    from jaxdefend.results.records import write_csv, write_json

    began = perf_counter()
    options_of.note_small_drops(options.drop)
    target = output.chosen_folder(options.out)
    net = inputs.open_net(options.model, input_scale=options.input_scale, architecture=options.architecture)
    with options_of.options_named(["layer"]):
        layer = checked_layer(net, options.layer)
    named = inputs.Named(options.valid, options.test, options.poisoned, options.target, options.labels)
    sets = inputs.open_sets(named, options.model, net, report, needs="valid")
    order = _order(options.order, net, layer)
    if sets.test is None:
        terminal.note("no --test: clean accuracy is that on the images by which channels and drops are chosen")

    with output.results_folder(target, OWNED) as folder:
        net = inputs.scaled(net, sets.chosen_by, report=report)
        with options_of.options_named(["drop", "order", "layer"]):
            swept = sweep(
                net,
                sets.chosen_by,
                test=sets.test,
                poisoned=sets.poisoned,
                layer=layer,
                order=order,
                drops=options.drop,
                seed=options.seed,
                progress=report,
            )
        (folder / "repaired").mkdir()
        for drop in swept.repaired:
            write_model(drop.net, folder / drop_file(drop))
        write_csv(folder / "sweep.csv", swept.columns())
        write_figure(folder / "sweep.png", swept.figure())
        record = output.head("sweep", arguments, net, options.seed) | swept.record()
        write_json(folder / "sweep.json", record | {"seconds": round(perf_counter() - began, 3)})

    for line in swept.notes:
        if line not in swept.doubts:
            terminal.note(line)
    image_sets.warn_of_doubts(swept.doubts)
    terminal.show(swept.table())
    picture.show_curve(swept.record())
    output.say_written(target, ["sweep.json", "sweep.csv", "sweep.png", "repaired/"], "sweep.png")


def _order(order: str, net: "Net", layer: str) -> Any:
    """The name of an order, or the channels in a file."""
    from jaxdefend.repairs.curve import checked_order
    from jaxdefend.repairs.sweeping import ORDERS

    if order in ORDERS:
        return order
    shown = printable(order, 100)
    try:
        text = Path(order).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(
            f"--order {shown}: neither {', '.join(ORDERS)} nor a readable file of channel indices"
        ) from error
    try:
        indices = [int(word) for word in text.translate(str.maketrans("[],;", "    ")).split()]
        checked_order(indices, net.graph.channels(layer))
    except ValueError as error:
        told = str(error) if isinstance(error, InputError) else f"expected whole numbers, {error}"
        raise InputError(f"{shown}: {printable(told, 300)}") from error
    return indices


def main(arguments: Sequence[str | Path] | None = None) -> int:
    return runtime.run(_sweep, arguments)


if __name__ == "__main__":
    runtime.program(main)
