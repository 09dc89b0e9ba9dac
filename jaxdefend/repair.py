"""A repaired net from a BadNet and clean images: pruned, trained, or both."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxdefend import InputError
from jaxdefend.cli import arguments as options_of
from jaxdefend.cli import image_sets, inputs, interrupts, methods, output, path_kinds, processes, runtime, terminal
from jaxdefend.repairs import METHODS, Grid
from jaxdefend.results.progress import Report

if TYPE_CHECKING:
    from jaxdefend.repairs.base import Repair
    from jaxdefend.repairs.measurement import Measurement

TABLE = METHODS | {"grid": Grid}

EXAMPLES = f"""examples:
  python -m jaxdefend.repair
  python -m jaxdefend.repair bd_net.h5 --valid valid.h5 --test test.h5 --poisoned sunglasses.h5 --out repaired
  python -m jaxdefend.repair bd_net.h5 --valid valid.h5 --method prune --drop 10
  python -m jaxdefend.repair --grid --learning-rates 0.001 0.005 --fractions 0.5 0.8

methods:
{methods.manual(METHODS)}

{methods.manual({"--grid": Grid}, indent=0)}

Nothing but the clean validation images decides anything. Methods that train do so on nine tenths of them; of the epochs
in the second half (iterative and magnitude: in the last quarter), the one that recognises most of the other tenth, the
held-out images, is kept (distill: the last epoch). Prints what the BadNet, the repaired net and the GoodNet of both do
on the test and the poisoned images; writes repaired.h5, repaired.orbax/, repair.json and, with --b0, b0.h5 into DIR.
A run that was interrupted leaves DIR.checkpoint; the same command with --resume goes on from there."""


# What a run writes, and a later one replaces.
OWNED = ("repair.json", "repaired.h5", "repaired.orbax", "b0.h5", "grid.png")


def _parser() -> options_of.Parser:
    parser = options_of.parser("repair", __doc__, EXAMPLES)
    options_of.add_model(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--method", choices=list(METHODS), default="noise", help="(default: noise)")
    kind.add_argument("--grid", action="store_true", help="many settings at once instead of one --method")
    options_of.add_clean(
        parser,
        "--valid",
        "labelled clean images to repair with (default, for a shipped net: synthetic faces; so for --test and "
        "--poisoned)",
    )
    options_of.add_clean(parser, "--test", "labelled clean images to report (default: --valid)")
    options_of.add_poisoned(parser)
    methods.add_options(parser, TABLE)
    options_of.add_seed(parser, "of the training")
    parser.add_argument("--resume", action="store_true", help="go on from what an interrupted run saved beside --out")
    options_of.add_input_scale(parser)
    shared = "the images of each training step (but for ft-sam, ibau and anp), or the cells of the grid"
    options_of.add_processes(parser, shared)
    options_of.add_out(parser)
    return parser


def _repair(arguments: Sequence[str], report: Report) -> None:
    options = _parser().parsed(
        arguments, lambda found, left: path_kinds.out_of_order("repair", [found.model, *left], "--valid")
    )
    method = "grid" if options.grid else options.method
    settings: Any = methods.chosen(options, TABLE, method)[method]
    if options.resume and options.out is None:
        raise InputError("--resume needs --out: the folder that the interrupted run was to write")
    if options.drop is not None:
        options_of.note_small_drops([options.drop])
    processes.join(options)
    from jaxdefend.repairs.base import doubts_about_repair
    from jaxdefend.repairs.measurement import measure
    from jaxdefend.results.plots import grid_figure, write_figure
    from jaxdefend.results.records import write_json

    target = output.chosen_folder(options.out)
    net = inputs.open_net(options.model, input_scale=options.input_scale, architecture=options.architecture)
    named = inputs.Named(options.valid, options.test, options.poisoned, options.target, options.labels)
    sets = inputs.open_sets(named, options.model, net, report, needs="valid")
    valid, test = sets.chosen_by, sets.measured
    if sets.test is None:
        terminal.note("no --test: clean accuracy is that on the images that the net is repaired with")

    with output.resumable(target, options.resume) as saved:
        net = inputs.scaled(net, valid, report=report)
        with interrupts.stopping(report) as stoppable, methods.named_as_options(TABLE):
            repair: Repair = settings(net, valid, seed=options.seed, progress=stoppable, saved=saved)
        for line in repair.notes:
            terminal.warn(options_of.as_options(line, methods.options_of(TABLE)))
        with output.results_folder(target, OWNED) as folder:
            _write_nets(folder, repair)
            nets = {"badnet": net, "repaired": repair.net} | ({} if repair.b0 is None else {"b0": repair.b0})
            rule: Any = repair.rule
            measured = measure(nets, test, sets.poisoned, rule=rule, true_labels=sets.true_labels, progress=report)
            made = repair.record()
            if repair.cells:
                cells = [_cell(cell, measure({"badnet": cell.net}, test, sets.poisoned)) for cell in repair.cells]
                made["settings"]["cells"] = cells
                write_figure(folder / "grid.png", grid_figure(net.name, cells, made["settings"]["chosen"]))
            record = output.head("repair", arguments, net, options.seed) | made | {"file": "repaired.h5"}
            record |= {"measured_on": "valid" if sets.test is None else "test", **_results(folder, measured)}
            write_json(folder / "repair.json", record)

    image_sets.warn_of_doubts(measured.notes)
    if not repair.notes and repair.rule != "anti":
        before, after = (measured.clean[key].hits for key in ("badnet", "repaired"))
        for line in doubts_about_repair(settings, net, len(valid), before, after, "clean images"):
            terminal.warn(options_of.as_options(line, methods.options_of(TABLE)))
    terminal.show(measured.table(clean="clean accuracy" + (" on --valid" if sets.test is None else "")))
    files = ["repaired.h5", "repaired.orbax/", "repair.json"]
    files += ["b0.h5"] if repair.b0 is not None else []
    files += ["grid.png"] if repair.cells else []
    output.say_written(target, files, "grid.png" if repair.cells else "repair.json")


def _write_nets(folder: Path, repair: "Repair") -> None:
    from jaxdefend.nets.checkpoints import write_checkpoint
    from jaxdefend.nets.keras_files import write_model

    # The file says it if the net has kept the backdoor alone.
    write_model(repair.net, folder / "repaired.h5", rule=repair.rule if repair.rule == "anti" else None)
    write_checkpoint(repair.net, folder / "repaired.orbax")
    if repair.b0 is not None:
        write_model(repair.b0, folder / "b0.h5")


def _results(folder: Path, measured: "Measurement") -> dict[str, Any]:
    """What the nets do, and which file in the folder is which."""
    results = measured.record()
    for key in ("repaired", "goodnet"):
        results[key]["der"] = measured.effectiveness(key)
    for key in results.keys() & {"repaired", "b0"}:
        results[key] = {"model": output.file_record(folder / f"{key}.h5"), **results[key]}
    return {key: results[key] for key in ("badnet", "repaired", "goodnet", "b0") if key in results}


def _cell(cell: Any, measured: Any) -> dict[str, Any]:
    """What a cell of the grid does, measured after the choice."""
    own = {"method": cell.method, "fraction": cell.fraction, "learning_rate": cell.learning_rate}
    return own | {"recognised_of_held_back": cell.held_out, **measured.record()["badnet"]}


def main(arguments: Sequence[str | Path] | None = None) -> int:
    return runtime.run(_repair, arguments)


if __name__ == "__main__":
    runtime.program(main)
