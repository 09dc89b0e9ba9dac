"""One page to hand on: what this net is, what the backdoor does, what the defenses do, with everything to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from jaxdefend import InputError
from jaxdefend.cli import arguments as options_of
from jaxdefend.cli import inputs, output, path_kinds, processes, runtime, terminal
from jaxdefend.results.progress import Report

if TYPE_CHECKING:
    from jaxdefend.datasets.images import ImageSet
    from jaxdefend.detectors.guards import Guard
    from jaxdefend.nets.net import Net

EXAMPLES = """examples:
  python -m jaxdefend.report
  python -m jaxdefend.report bd_net.h5 --valid valid.h5 --test test.h5 --poisoned sunglasses.h5 --out report.html
  python -m jaxdefend.report bd_net.h5 --valid valid.h5 --poisoned sunglasses.h5 --repaired repaired.h5 --files figures
  python -m jaxdefend.report --from sweep/ repaired/ guard/ --out report.html

Writes one HTML file that needs nothing else: the verdict in plain words with the numbers behind it, the net, the
images, the pruning curve with a slider over it, what the channels respond to, repairs, guard, images to look at, what
is called what, what was not checked, and how to make each number again. --files DIR writes every figure and table as a
file of its own.
--from takes what sweep, evaluate, repair, detect, audit and compare have written, and computes nothing."""

# Images of each set that the guard sees, where the faces are synthetic and nothing else is asked for.
_SYNTHETIC_LIMIT = 1000


def _parser() -> options_of.Parser:
    parser = options_of.parser("report", __doc__, EXAMPLES)
    options_of.add_model(parser)
    options_of.add_clean(
        parser,
        "--valid",
        "labelled clean images that order, drops and thresholds go by (default, for a shipped net: synthetic faces; so "
        "for --test and --poisoned)",
    )
    options_of.add_clean(parser, "--test", "labelled clean images to report (default: --valid)")
    options_of.add_poisoned(parser)
    options_of.add_repaired(
        parser,
        "Keras file of a repaired net; of several, most decide (default: bd_net_repaired for the shipped bd_net, else "
        "the net pruned at the smallest drop)",
    )
    parser.add_argument(
        "--guard",
        type=Path,
        metavar="FILE",
        help="what detect calibrate wrote (default: the shipped one for bd_net, else one calibrated on --valid)",
    )
    parser.add_argument(
        "--layer", metavar="LAYER", help="convolution whose channels are looked at and pruned (default: the last one)"
    )
    options_of.add_limit(parser, "the guard sees")
    parser.add_argument(
        "--pictures",
        type=options_of.whole(1, 1000),
        default=12,
        metavar="N",
        help="images of each kind in the gallery of --files; the page has up to 12 (default: 12)",
    )
    options_of.add_seed(parser, "of the guard's masks")
    options_of.add_input_scale(parser)
    options_of.add_processes(parser)
    parser.add_argument(
        "--from",
        dest="sources",
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of results, or result files, to report without computing anything",
    )
    parser.add_argument(
        "--files", type=Path, metavar="DIR", help="folder for every figure (PNG, SVG) and table (CSV, JSON) by itself"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page (default: report.html)"
    )
    return parser


def _report(arguments: Sequence[str], report: Report) -> None:
    options = _parser().parsed(
        arguments, lambda found, left: path_kinds.out_of_order("report", [found.model, *left], "--valid")
    )
    if options.out.is_dir():
        raise InputError(f"--out {options.out}: is a folder, expected the name of an HTML file")
    if options.sources:
        _from_results(options)
        return
    processes.join(options)
    began = perf_counter()
    from jaxdefend.nets.devices import place
    from jaxdefend.reports.files import write_files
    from jaxdefend.reports.page import write_report
    from jaxdefend.results.records import require_folder

    if options.files is not None:
        require_folder(options.files)
    made = _made(options, report)
    if place()[0]:
        return
    seconds = perf_counter() - began
    head = output.head("report", arguments, made.net, options.seed) | {"seconds": round(seconds, 3)}
    write_report(options.out, *made.results, origins=_origins(head, options, made), is_synthetic=made.is_synthetic)
    if options.files is not None:
        write_files(options.files, made.results, head)
        terminal.note(f"figures and tables in {options.files}/")
    _say(options.out, made.results)


def _from_results(options: Any) -> None:
    from jaxdefend.reports.page import write_report
    from jaxdefend.reports.saved import read_saved

    given = [
        option
        for option, value in (
            ("--valid", options.valid),
            ("--test", options.test),
            ("--poisoned", options.poisoned),
            ("--repaired", options.repaired),
            ("--guard", options.guard),
            ("--files", options.files),
            ("--coordinator", options.coordinator),
        )
        if value
    ]
    if given:
        raise InputError(f"--from computes nothing: leave out {' and '.join(given)}")
    results = read_saved(options.sources)
    write_report(options.out, *results)
    _say(options.out, results)


def _say(path: Path, results: Sequence[object]) -> None:
    """The verdict, and the file to open."""
    from jaxdefend.reports.facts import gathered
    from jaxdefend.reports.verdict import verdict

    found = verdict(gathered(results))
    terminal.show("\n".join([found.headline, *(f"- {finding.text}" for finding in found.findings)]))
    terminal.note(f"written to {path}; open it in a browser")


@dataclass(frozen=True)
class _Made:
    """What was computed: the net, the results, and whether the images are synthetic faces."""

    net: "Net"
    results: list[object]
    is_synthetic: bool
    parts: Mapping[str, str]


def _made(options: Any, report: Report) -> _Made:
    from jaxdefend import reports
    from jaxdefend.detectors import evaluate
    from jaxdefend.detectors.answering import Guarded
    from jaxdefend.nets import shipped
    from jaxdefend.repairs.curve import checked_layer
    from jaxdefend.repairs.measurement import measure
    from jaxdefend.repairs.sweeping import sweep
    from jaxdefend.reports.comparing import thinned

    is_shipped = options.model == shipped.BADNET
    net = inputs.open_net(options.model, input_scale=options.input_scale, architecture=options.architecture)
    with options_of.options_named(["layer"]):
        layer = checked_layer(net, options.layer)
    named = inputs.Named(options.valid, options.test, options.poisoned, options.target, options.labels)
    sets = inputs.open_sets(named, options.model, net, report, needs="valid")
    valid, test, poisoned = sets.chosen_by, sets.measured, sets.poisoned
    paths = options.repaired or ([shipped.REPAIRED] if is_shipped and sets.are_synthetic else [])
    others = inputs.open_repaired(paths, net, input_scale=options.input_scale)

    nets, found = _scaled(net, others, valid, report)
    net = nets.pop("badnet")
    nets = _by_file(nets)

    swept = sweep(net, valid, test=sets.test, poisoned=poisoned, layer=layer, seed=options.seed, progress=report)
    rule = options.rule or inputs.rule_of(others)
    if not nets and swept.repaired:
        nets = {f"pruned, drop {swept.repaired[0].points}": swept.repaired[0].net}
    measured = measure(
        {"badnet": net, **nets}, test, poisoned, rule=rule, true_labels=sets.true_labels, progress=report
    )
    answering = Guarded(net, list(nets.values()) or None, None, rule)
    answers = {name: answering(images, progress=report) for name, images in {"clean": test, **poisoned}.items()}

    limit = options.limit or (_SYNTHETIC_LIMIT if sets.are_synthetic else None)
    if options.guard is None and is_shipped and sets.are_synthetic and options.seed == 0:
        options.guard = shipped.guard()
    guard = _guard(options, net, valid, limit, report)
    seen = {name: thinned(images, limit) for name, images in poisoned.items()}
    evaluated = evaluate(guard, thinned(test, limit), seen, progress=report)

    few = thinned(test, 256)
    labels: dict[str, Any] = {"clean": test.labels} | {name: images.labels for name, images in poisoned.items()}
    results: list[object] = [
        reports.summarise(net, options.model, found),
        swept,
        reports.walk(swept, test, poisoned),
        measured,
        guard,
        evaluated,
        reports.sample(net, test, poisoned),
        reports.activate(net, test, poisoned, layer=layer, progress=report),
        reports.under_overlays(net, few, poisoned),
        reports.under_masks(net, few, poisoned, seed=options.seed),
        reports.collect(net, test, answers, poisoned, evaluation=evaluated, n=max(12, options.pictures)),
        reports.confuse(net.name, {name: of.badnet for name, of in answers.items()}, labels),
    ]
    return _Made(net, results, sets.are_synthetic, _commands(options, limit, guard))


def _scaled(
    net: "Net", others: "Mapping[str, Net]", valid: "ImageSet", report: Report
) -> "tuple[dict[str, Net], list[str]]":
    """The nets with their input scales, and what was said about these: the page says it too."""
    import warnings

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        nets = inputs.all_scaled(net, others, valid, report)
    found = list(dict.fromkeys(str(each.message) for each in told))
    for line in found:
        terminal.note(line)
    return nets, found


def _by_file(nets: "Mapping[str, Net]") -> "dict[str, Net]":
    """The repaired nets by the names of their files, where these differ."""
    stems = [Path(net.name).stem for net in nets.values()]
    return (
        dict(zip(stems, nets.values(), strict=True))
        if len(set(stems) - {"badnet", "goodnet", "b0"}) == len(nets)
        else dict(nets)
    )


def _guard(options: Any, net: "Net", valid: "ImageSet", limit: int | None, report: Report) -> "Guard":
    """The guard asked for, or one calibrated on the validation images."""
    from jaxdefend.detectors import default_detector
    from jaxdefend.detectors.guards import Guard
    from jaxdefend.reports.comparing import thinned

    if options.guard is not None:
        return Guard.load(options.guard, net)
    images = thinned(valid, limit)
    detector = default_detector(net, images, seed=options.seed, progress=report)
    return detector.calibrate(net, images, seed=options.seed, progress=report)


def _commands(options: Any, limit: int | None, guard: "Guard") -> dict[str, str]:
    """Which command makes the numbers of a part by itself."""
    import shlex

    def given(*names: str) -> list[str]:
        words = []
        for name in names:
            values = getattr(options, name)
            if name == "poisoned":
                for group in values or ():
                    words += ["--poisoned", *map(str, group)]
            elif values:
                words += [f"--{name.replace('_', '-')}", *map(str, values if isinstance(values, list) else [values])]
        return words

    model = [options.model, *given("architecture")]
    scale = [] if options.input_scale == "auto" else ["--input-scale", options.input_scale]
    sets = [*given("poisoned", "target"), *([] if options.labels == "auto" else ["--labels", options.labels]), *scale]
    clean = ["--clean", *map(str, options.test or options.valid)] if options.valid else []
    limited = [] if limit is None else ["--limit", str(limit)]
    valid = ["--valid", *map(str, options.valid)] if options.valid and options.test else []
    lines = {
        "curve": ["sweep", *model, *given("valid", "test", "layer"), *sets],
        "net and repairs": ["evaluate", *model, *clean, *given("repaired"), *sets],
        "guard": ["detect", "evaluate", *model, *clean, *(given("guard") or valid), "--detector", guard.default],
    }
    lines["guard"] += [*sets, *limited]
    return {part: f"python -m jaxdefend.{line[0]} {shlex.join(line[1:])}".strip() for part, line in lines.items()}


def _origins(head: Mapping[str, Any], options: Any, made: _Made) -> list[Any]:
    """The command that made the page, and those that make its parts by themselves."""
    from jaxdefend.reports.facts import origin

    alone = {key: value for key, value in head.items() if key != "seconds"}
    parts = [origin(part, alone | {"command": command}) for part, command in made.parts.items()]
    return [origin("everything on this page", head), *parts]


def main(arguments: Sequence[str | Path] | None = None) -> int:
    return runtime.run(_report, arguments)


if __name__ == "__main__":
    runtime.program(main)
