"""Nets × repairs × detectors in one table, every cell computed once."""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, get_type_hints

from jaxdefend import InputError
from jaxdefend.cli import arguments as options_of
from jaxdefend.cli import inputs, interrupts, methods, output, path_kinds, processes, runtime, terminal
from jaxdefend.detectors import DETECTORS
from jaxdefend.repairs import METHODS
from jaxdefend.results.progress import Report
from jaxdefend.results.text import printable, shortened

if TYPE_CHECKING:
    from jaxdefend.nets.net import Net
    from jaxdefend.reports.comparison import Comparison

HELD = {name: detector for name, detector in DETECTORS.items() if not detector.uses_repaired}

EXAMPLES = f"""examples:
  python -m jaxdefend.compare bd_net sunglasses_bd_net --repair prune:drop=2 prune:drop=4 noise --out table
  python -m jaxdefend.compare bd_net.h5 --valid valid.h5 --test test.h5 --poisoned sunglasses.h5 --repaired fixed.h5 \\
      --detector persistence strip strip:overlays=50,blend=1.5+1 --out table

repairs: {", ".join(METHODS)}
detectors: {", ".join(HELD)}
Each with its settings after a colon, called as the options of repair and detect: fine-prune:epochs=10,drop=2.

Prints the table and writes compare.json, compare.csv, compare.md, compare.png and, where there are detectors,
histograms.png and errors.png into DIR. Cells are kept in DIR/cells: the same command after an interruption goes on, and
nothing that is there is computed again. Another command with the same DIR replaces the rows of its nets; those of other
nets stay, so that nets with triggers of their own come into one table by a command each."""

# What a run leaves beside the cells.
OWNED = ("compare.json", "compare.csv", "compare.md", "compare.png", "histograms.png", "errors.png")

# Images of each set that detectors see, where the faces are synthetic and nothing else is asked for.
_SYNTHETIC_LIMIT = 1000


def _parser() -> options_of.Parser:
    parser = options_of.parser("compare", __doc__, EXAMPLES)
    parser.add_argument(
        "models",
        nargs="*",
        default=["bd_net"],
        metavar="MODEL",
        help=f"Keras files of BadNets, or shipped nets: {options_of.SHIPPED}",
    )
    options_of.add_architecture(parser)
    options_of.add_clean(
        parser,
        "--valid",
        "labelled clean images that repairs and thresholds are made from (default, for shipped nets: synthetic faces; "
        "so for --test and --poisoned)",
    )
    options_of.add_clean(parser, "--test", "labelled clean images to report (default: --valid)")
    options_of.add_poisoned(parser)
    parser.add_argument(
        "--repair",
        nargs="+",
        action="extend",
        default=[],
        metavar="METHOD[:SETTING=VALUE,…]",
        help="repairs to compare",
    )
    parser.add_argument(
        "--repaired",
        nargs="+",
        action="extend",
        default=[],
        metavar="MODEL",
        help="Keras files of nets that were repaired elsewhere; with one MODEL only",
    )
    parser.add_argument(
        "--detector",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME[:SETTING=VALUE,…]",
        help="detectors to compare",
    )
    parser.add_argument(
        "--frr",
        type=options_of.share,
        metavar="R",
        help="false rejection rate of the thresholds (default: 0.01, or what so few images allow)",
    )
    parser.add_argument(
        "--fit",
        choices=("conformal", "quantile", "normal"),
        default="conformal",
        help="how a threshold comes from clean scores, see detect (default: conformal)",
    )
    options_of.add_limit(parser, "detectors see")
    options_of.add_seed(parser, "of repairs and detectors")
    options_of.add_input_scale(parser)
    options_of.add_processes(parser, "the images, those of training steps too")
    options_of.add_out(parser)
    return parser


def _compare(arguments: Sequence[str], report: Report) -> None:
    options = _parser().parsed(
        arguments, lambda found, left: path_kinds.out_of_order("compare", [*found.models, *left], "--valid")
    )
    repairs = _settings(options.repair, METHODS, "--repair")
    detectors = _settings(options.detector, HELD, "--detector")
    if options.repaired and len(options.models) > 1:
        raise InputError("--repaired goes with one MODEL: a repaired net belongs to one net")
    for model in options.models:
        if path_kinds.kind_of(model) == "data":
            raise InputError(f"{printable(model, 100)}: holds images, not a net; images go with --valid or --poisoned")
    processes.join(options)
    from jaxdefend.reports.cells import write_scores
    from jaxdefend.reports.comparison import together
    from jaxdefend.results.plots import write_figure
    from jaxdefend.results.records import write_csv, write_json

    began = perf_counter()
    target = output.chosen_folder(options.out)
    cells = target / "cells"
    comparisons, nets = [], []
    with interrupts.stopping(report) as stoppable:
        for name, model in _named(options.models).items():
            comparison, net = _one(options, name, model, repairs, detectors, cells, stoppable)
            comparisons.append(comparison)
            nets.append(net)
    found = together([_kept(target, {row.net for of in comparisons for row in of.rows}), *comparisons])
    with output.results_folder(target, OWNED) as folder:
        files = ["compare.json", "compare.csv", "compare.md", "compare.png"]
        write_csv(folder / "compare.csv", found.columns())
        (folder / "compare.md").write_text(found.markdown(), encoding="utf-8")
        write_figure(folder / "compare.png", found.figure())
        if found.scores:
            write_scores(cells / "scores.npz", found.scores)
            write_figure(folder / "histograms.png", found.histograms_figure())
            write_figure(folder / "errors.png", found.errors_figure())
            files += ["histograms.png", "errors.png"]
        head = output.head("compare", arguments, nets[0], options.seed)
        if len(nets) > 1:
            head |= {"model": None, "models": [output.model_record(net) for net in nets]}
        write_json(folder / "compare.json", head | found.record() | {"seconds": round(perf_counter() - began, 3)})
    terminal.show(found.table())
    output.say_written(target, files, "compare.md")


def _kept(folder: Path, nets: set[str]) -> "Comparison":
    """The rows of other nets that a command before wrote into the folder."""
    from jaxdefend.reports.cells import read_scores
    from jaxdefend.reports.comparison import Comparison, rows_of
    from jaxdefend.reports.saved import read_saved

    if not (folder / "compare.json").exists():
        return Comparison(())
    (saved,) = read_saved([folder / "compare.json"])
    try:
        rows = tuple(row for row in rows_of(saved.record) if row.net not in nets)
    except InputError as error:
        raise InputError(f"{folder / 'compare.json'}: {error}; choose another folder") from error
    if rows:
        terminal.note(f"the rows of {printable(', '.join(sorted({row.net for row in rows})), 200)} stay in the table")
    scores = read_scores(folder / "cells" / "scores.npz")
    return Comparison(rows, {net: of for net, of in scores.items() if net in {row.net for row in rows}})


def _one(
    options: argparse.Namespace,
    name: str,
    model: str,
    repairs: Mapping[str, Any],
    detectors: Mapping[str, Any],
    cells: Path,
    report: Report,
) -> "tuple[Comparison, Net]":
    """The rows of one net."""
    from jaxdefend.reports.comparing import compare

    net = inputs.open_net(model, input_scale=options.input_scale, architecture=options.architecture)
    named = inputs.Named(options.valid, options.test, options.poisoned, options.target, options.labels)
    sets = inputs.open_sets(named, model, net, report, needs="valid")
    others = inputs.open_repaired(options.repaired, net, input_scale=options.input_scale)
    nets = inputs.all_scaled(net, others, sets.chosen_by, report)
    net = nets.pop("badnet")
    limit = options.limit or (_SYNTHETIC_LIMIT if sets.are_synthetic else None)
    with methods.named_as_options(METHODS):
        comparison = compare(
            net,
            sets.chosen_by,
            sets.poisoned,
            test=sets.test,
            repairs=repairs,
            repaired=dict(zip(_named(options.repaired), nets.values(), strict=True)),
            detectors=detectors,
            name=name,
            frr=options.frr,
            fit=options.fit,
            limit=limit,
            seed=options.seed,
            folder=cells,
            progress=report,
        )
    return comparison, net


def _named(models: Sequence[str]) -> dict[str, str]:
    """What the table calls the nets: their files' names, told apart where two are the same."""
    found: dict[str, str] = {}
    for model in models:
        stem = shortened(printable(Path(model).stem), 40)
        name = next(name for name in (stem, *(f"{stem} ({n})" for n in range(2, 10_000))) if name not in found)
        found[name] = model
    return found


def _settings(words: Sequence[str], table: Mapping[str, type], option: str) -> dict[str, Any]:
    """What the table calls them, and the settings: "prune:drop=2" is Prune(drop=2)."""
    found = {}
    for word in words:
        name, _, rest = word.partition(":")
        shown = printable(word, 80)
        if name not in table:
            raise InputError(f"{option} {shown}: expected {', '.join(table)}, with settings after a colon")
        known = {each.name: each for each in fields(table[name]) if each.metadata}
        hints = get_type_hints(table[name])
        given: dict[str, Any] = {}
        for pair in filter(None, rest.split(",")):
            key, equals, value = pair.partition("=")
            key = key.replace("-", "_")
            if not equals or key not in known:
                there = ", ".join(key.replace("_", "-") for key in known) or "none"
                raise InputError(f"{option} {shown}: {name} has the settings {there}; expected SETTING=VALUE")
            given[key] = _value(value, hints[key], f"{option} {shown}")
        try:
            found[word] = table[name](**given)
        except InputError as error:
            raise InputError(f"{option} {shown}: {error}") from error
    return found


def _value(text: str, kind: Any, where: str) -> Any:
    """The value in the type that the setting has."""
    told = str(kind)
    try:
        if "Fraction" in told:
            return options_of.points(text)
        if kind is int or (re.search(r"\bint\b", told) and "float" not in told):
            return options_of.integer(text)
        if kind is float or "float" in told:
            return options_of.real(text)
        if kind is bool:
            return {"yes": True, "no": False, "true": True, "false": False}[text.lower()]
    except (argparse.ArgumentTypeError, KeyError) as error:
        raise InputError(f"{where}: {printable(text, 40)} is not what this setting takes") from error
    return text


def main(arguments: Sequence[str | Path] | None = None) -> int:
    return runtime.run(_compare, arguments)


if __name__ == "__main__":
    runtime.program(main)
