"""Is this input carrying a trigger? Detectors, with thresholds from clean images alone."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxdefend import InputError
from jaxdefend.cli import arguments as options_of
from jaxdefend.cli import image_sets, inputs, methods, output, path_kinds, processes, runtime, terminal
from jaxdefend.detectors import DEFAULT, DETECTORS, Detector
from jaxdefend.results.progress import Report

if TYPE_CHECKING:
    from jaxdefend.datasets.images import ImageSet
    from jaxdefend.detectors.evaluation import Evaluation
    from jaxdefend.detectors.guards import Guard
    from jaxdefend.nets.net import Net

# What a guard can be made for: a file does not hold a repaired net.
HELD = {name: detector for name, detector in DETECTORS.items() if not detector.uses_repaired}

EXAMPLES = f"""examples:
  python -m jaxdefend.detect evaluate
  python -m jaxdefend.detect calibrate bd_net.h5 --clean valid.h5 --frr 0.01 0.05 --out guard
  python -m jaxdefend.detect score bd_net.h5 faces/ --guard guard/guard.json
  python -m jaxdefend.detect evaluate bd_net.h5 --valid valid.h5 --clean test.h5 --poisoned sunglasses.h5

detectors ({DEFAULT} is the default; goodnet is for evaluate only, with --repaired):
{methods.manual(DETECTORS)}

calibrate   writes guard.json (and overlays.h5, where STRIP is in it), which score, evaluate and predict read
score       prints a line of CSV for each image and writes scores.csv and scores.json
evaluate    prints how well each detector separates clean and poisoned images; writes detect.json, detect.csv,
            histogram.png, errors.png and superimposed.png

Every score is higher for a more suspicious image; an image is rejected if its score is above the threshold. Each action
explains itself: python -m jaxdefend.detect ACTION --help."""

# Of the synthetic faces, where nothing else is asked for.
_SYNTHETIC_LIMIT = 1000

# What evaluate writes, and a later run replaces.
EVALUATED = ("detect.json", "detect.csv", "histogram.png", "errors.png", "superimposed.png")


def _parser() -> options_of.Parser:
    parser = options_of.parser("detect", __doc__, EXAMPLES)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, what: str) -> Any:
        return actions.add_parser(name, help=what, description=what, allow_abbrev=False)

    _add_calibrate(action("calibrate", "Thresholds from clean images alone, for the false rejection rates asked for."))
    _add_score(action("score", "A score for each image, and with a guard its verdict."))
    _add_evaluate(action("evaluate", "How well the detectors separate clean and poisoned images."))
    return parser


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    options_of.add_model(parser)
    options_of.add_clean(
        parser,
        "--clean",
        "clean images, with labels where the net's input scale is not known (default, for a shipped net: synthetic "
        "faces)",
    )
    options_of.add_labels(parser)
    parser.add_argument(
        "--detector",
        choices=list(HELD),
        help=f"what the guard decides by (default: {DEFAULT}, or both where its masks leave most labels as they are)",
    )
    _add_thresholds(parser)
    _add_settings(parser, HELD)


def _add_score(parser: argparse.ArgumentParser) -> None:
    options_of.add_model(parser, required=True)
    parser.add_argument("images", nargs="+", metavar="DATA", help="image files, folders of them, official .h5 files")
    parser.add_argument("--guard", type=Path, metavar="FILE", help="what calibrate wrote; without it: scores of masks")
    options_of.add_seed(parser, "without a guard")
    options_of.add_input_scale(parser)
    options_of.add_processes(parser)
    options_of.add_out(parser)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    options_of.add_model(parser)
    options_of.add_clean(
        parser,
        "--clean",
        "labelled clean images to measure on (default, for a shipped net: synthetic faces; so for --valid and "
        "--poisoned)",
    )
    options_of.add_clean(parser, "--valid", "clean images to calibrate on (default: --clean)")
    options_of.add_poisoned(parser)
    parser.add_argument("--guard", type=Path, metavar="FILE", help="what calibrate wrote, instead of --valid")
    parser.add_argument(
        "--detector",
        nargs="+",
        choices=list(DETECTORS),
        help="which detectors, of a guard those that it holds; the first one decides (default: all, goodnet with "
        "--repaired; what calibrate would take decides)",
    )
    parser.add_argument("--repaired", metavar="MODEL", help="Keras file of a repaired net, for the detector goodnet")
    parser.add_argument(
        "--threshold",
        type=options_of.real,
        metavar="T",
        help="a threshold by hand for the one --detector chosen: an entropy in bits for strip and masks, else a score",
    )
    parser.add_argument(
        "--limit",
        "--most",
        dest="limit",
        type=options_of.whole(1),
        metavar="N",
        help="images of each set, evenly spread (default: all; of the synthetic faces 1000)",
    )
    _add_thresholds(parser)
    _add_settings(parser, DETECTORS)


def _add_thresholds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--frr",
        nargs="+",
        type=options_of.share,
        metavar="R",
        help="false rejection rates; the first one decides (default: 0.01 0.05, or what so few images allow)",
    )
    parser.add_argument(
        "--fit",
        choices=("conformal", "quantile", "normal"),
        help="how a threshold comes from clean scores: split-conformal, FRR at most the asked one in expectation "
        "whatever the distribution (default); their quantile; a normal fit, as in the STRIP paper",
    )


def _add_settings(parser: argparse.ArgumentParser, table: methods.Table) -> None:
    methods.add_options(parser, table)
    parser.add_argument(
        "--pool", nargs="+", metavar="DATA", help="clean images to draw STRIP's overlays from (default: --clean)"
    )
    parser.add_argument("--seed", type=options_of.seed, metavar="N", help="of masks and overlays (default: 0)")
    options_of.add_input_scale(parser)
    options_of.add_processes(parser)
    options_of.add_out(parser)


def _detect(arguments: Sequence[str], report: Report) -> None:
    options = _parser().parsed(arguments, _out_of_order)
    processes.join(options)
    {"calibrate": _calibrate, "score": _score, "evaluate": _evaluate}[options.action](options, arguments, report)


def _out_of_order(options: argparse.Namespace, left: Sequence[str]) -> str | None:
    return path_kinds.out_of_order(f"detect {options.action}", [options.model, *left], "--clean")


def _calibrate(options: argparse.Namespace, arguments: Sequence[str], report: Report) -> None:
    from jaxdefend.detectors.base import name_of

    if options.detector:
        methods.chosen(options, HELD, options.detector)
    target = output.chosen_folder(options.out)
    net = inputs.open_net(options.model, input_scale=options.input_scale, architecture=options.architecture)
    paths = options.clean or [_synthetic(options, net, report).valid]
    clean = image_sets.open_set(paths, net, "--clean", labels=options.labels, labelled=net.input_scale is None)

    with output.results_folder(target, ("guard.json", "overlays.h5")) as folder:
        net = _scaled_to_calibrate(net, clean, report)
        name = options.detector or name_of(_default_detector(net, clean, options.seed or 0, report))
        settings = methods.chosen(options, HELD, name)[name]
        if settings.uses_pool and not options.clean:
            clean = _thinned(clean, _SYNTHETIC_LIMIT)
        pool = _pool(options, net, [settings])
        guard = _calibrated(options, [settings], {"badnet": net}, clean, pool, report)
        guard.save(folder, output.head("detect", arguments, net, guard.seed))

    terminal.show(guard.table())
    for level in guard.detectors[guard.default].levels:
        if level.frr and (found := level.confidence):
            terminal.show(
                f"FRR {100 * level.frr:.3g} %: at most {100 * found['expected_frr']:.3g} % in expectation; below "
                f"{100 * level.frr:.3g} % with {100 * found['confidence']:.0f} % confidence, below "
                f"{100 * found['frr_95']:.3g} % with 95 %, from {len(clean)} images"
            )
    terminal.note(guard.verdict_rule())
    files = ["guard.json", *(["overlays.h5"] if guard.pool is not None else [])]
    terminal.note(f"written to {target}/: {', '.join(files)}; use it with --guard {target / 'guard.json'}")


def _scaled_to_calibrate(net: "Net", clean: "ImageSet", report: Report) -> "Net":
    """The net with its input scale; says what may be wrong with the clean images, where they have labels.

    Raises: InputError if no scale lets the net recognise them: thresholds from such scores would mean nothing.
    """
    from jaxdefend.nets.diagnosis import doubts_about_clean, recognised_share

    found = inputs.scaled(net, clean, report=report)
    if clean.labels is None:
        return found
    doubts = doubts_about_clean(found, clean, "--clean")
    if net.input_scale is None and (share := recognised_share(found, clean)) < 0.5:
        told = "; ".join(doubts) or f"--clean: {100 * share:.1f} % are given their label"
        raise InputError(f"{told}, on the best input scale; give --input-scale, or images with labels of this net")
    image_sets.warn_of_doubts(doubts)
    return found


def _default_detector(net: "Net", clean: "ImageSet", seed: int, report: Report) -> Detector:
    from jaxdefend.detectors import default_detector
    from jaxdefend.detectors.base import name_of

    chosen = default_detector(net, clean, seed=seed, progress=report)
    if (name := name_of(chosen)) != DEFAULT:
        why = (
            "the net has no convolution to mask" if name == "strip" else "its masks leave most clean images their label"
        )
        terminal.note(f"{DEFAULT}: {why}; taking {name}, --detector overrides it")
    return chosen


def _score(options: argparse.Namespace, arguments: Sequence[str], report: Report) -> None:
    from jaxdefend.detectors.guard_files import input_scale_of
    from jaxdefend.detectors.guards import Guard, scores_without_guard
    from jaxdefend.results.records import write_csv, write_json

    target = output.chosen_folder(options.out)
    net = inputs.open_net(options.model, input_scale=options.input_scale, architecture=options.architecture)
    images = image_sets.open_set(options.images, net, labelled=False)
    net = inputs.scaled_without_labels(net, images, fallback=input_scale_of(options.guard) if options.guard else None)
    guard = Guard.load(options.guard, net) if options.guard else None

    with output.results_folder(target, ("scores.json", "scores.csv")) as folder:
        columns: dict[str, Any] = {"image": images.names}
        if guard is None:
            name, threshold, seed = "masks", None, options.seed
            columns["score"] = scores_without_guard(net, images, seed=seed, progress=report).astype(float)
        else:
            name, threshold, seed = guard.default, guard.threshold, guard.seed
            verdicts = guard(images, progress=report)
            columns |= {"score": verdicts.scores.astype(float), "rejected": verdicts.rejected}
        write_csv(folder / "scores.csv", columns)
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*map(list, columns.values()), strict=True)]
        head = output.head("detect", arguments, net, seed)
        write_json(folder / "scores.json", head | {"detector": name, "threshold": threshold, "images": rows})
        text = (folder / "scores.csv").read_text(encoding="utf-8")
    terminal.show(text.rstrip("\n"))
    if guard is not None:
        terminal.note(guard.verdict_rule())
    output.say_written(target, ["scores.csv", "scores.json"], "scores.csv")


def _evaluate(options: argparse.Namespace, arguments: Sequence[str], report: Report) -> None:
    from jaxdefend.detectors import evaluate

    settings = _settings_to_evaluate(options)
    target = output.chosen_folder(options.out)
    net = inputs.open_net(options.model, input_scale=options.input_scale, architecture=options.architecture)
    repaired = [options.repaired] if options.repaired else []
    others = inputs.open_repaired(repaired, net, input_scale=options.input_scale)
    named = inputs.Named(
        options.valid,
        options.clean,
        options.poisoned,
        options.target,
        options.labels,
        test_option="--clean",
        valid_labelled=False,
    )
    sets = inputs.open_sets(named, options.model, net, report, needs="test", with_valid=not options.guard)
    limit = options.limit or (_SYNTHETIC_LIMIT if options.clean is None else None)
    clean = _thinned(sets.measured, limit)
    valid = clean if sets.valid is None else _thinned(sets.valid, limit)
    poisoned = {name: _thinned(images, limit) for name, images in sets.poisoned.items()}
    if sets.valid is None and not options.guard:
        terminal.note("no --valid: the thresholds are fitted on the clean images that they are measured on")
    pool = None if options.guard else _pool(options, net, list(settings.values()))

    with output.results_folder(target, EVALUATED) as folder:
        nets = inputs.all_scaled(net, others, clean if valid.labels is None else valid, report)
        guard = _guard(options, settings, nets, valid, pool, report)
        found = evaluate(guard, clean, poisoned, progress=report)
        files = _write_evaluation(folder, found, output.head("detect", arguments, nets["badnet"], guard.seed))

    image_sets.warn_of_doubts(found.notes)
    terminal.show(found.table())
    terminal.note(guard.verdict_rule())
    output.say_written(target, files, "histogram.png")


def _settings_to_evaluate(options: argparse.Namespace) -> dict[str, Detector]:
    """The detectors asked for. Raises: InputError if they, the guard and the threshold do not fit together."""
    if options.guard and options.valid:
        raise InputError("--guard and --valid: expected one of them; a guard holds its thresholds")
    names = options.detector or [name for name in DETECTORS if options.repaired or name in HELD]
    if options.threshold is not None and len(names) != 1:
        raise InputError("--threshold: scores of several detectors differ; choose one with --detector")
    if missing := [name for name in names if DETECTORS[name].uses_repaired and not options.repaired]:
        raise InputError(f"--detector {missing[0]}: asks a repaired net; give one with --repaired")
    settings = methods.chosen(options, DETECTORS, *names)
    if options.guard:
        _warn_of_what_the_guard_holds(options)
    return settings


def _guard(
    options: argparse.Namespace,
    settings: Mapping[str, Detector],
    nets: "dict[str, Net]",
    valid: "ImageSet",
    pool: "ImageSet | None",
    report: Report,
) -> "Guard":
    """The guard of --guard, or one calibrated on the validation images, with the threshold of --threshold."""
    from jaxdefend.detectors.guards import Guard

    if options.guard:
        guard = Guard.load(options.guard, nets["badnet"])
        if options.detector:
            guard = guard.only(*options.detector)
    else:
        if not options.detector:
            settings = _default_first(settings, _default_detector(nets["badnet"], valid, options.seed or 0, report))
        guard = _calibrated(options, list(settings.values()), nets, valid, pool, report)
    if options.threshold is not None:
        with options_of.options_named(["threshold"]):
            guard = guard.with_threshold(options.threshold)
    return guard


def _write_evaluation(folder: Path, found: "Evaluation", head: dict[str, Any]) -> list[str]:
    """The names of the files written."""
    from jaxdefend.results.plots import write_figure
    from jaxdefend.results.records import write_csv, write_json

    write_json(folder / "detect.json", head | found.record())
    write_csv(folder / "detect.csv", found.columns())
    figures = {"histogram.png": found.figure()}
    if len(found.sets) > 1:
        figures["errors.png"] = found.errors_figure()
        if found.guard.pool is not None:
            figures["superimposed.png"] = found.superimposed_figure()
    for name, figure in figures.items():
        write_figure(folder / name, figure)
    return ["detect.json", "detect.csv", *figures]


def _default_first(settings: Mapping[str, Detector], default: Detector) -> dict[str, Detector]:
    from jaxdefend.detectors.base import name_of

    first = name_of(default)
    return {first: settings[first], **settings}


def _calibrated(
    options: argparse.Namespace,
    settings: Sequence[Detector],
    nets: "dict[str, Net]",
    valid: "ImageSet",
    pool: "ImageSet | None",
    report: Report,
) -> "Guard":
    from jaxdefend.detectors import calibrate

    with _options():
        guard = calibrate(
            settings,
            nets["badnet"],
            valid,
            frr=options.frr,
            fit=options.fit or "conformal",
            seed=options.seed or 0,
            pool=pool,
            repaired=nets.get("repaired"),
            progress=report,
        )
    _note_pool(guard)
    return guard


def _options() -> Any:
    """Errors about rates, fits and settings begin with their options."""
    return options_of.options_named([*methods.options_of(DETECTORS), "fit", "pool"], {"false rejection rate": "--frr"})


def _warn_of_what_the_guard_holds(options: argparse.Namespace) -> None:
    names = ["frr", "fit", "pool", "seed", *methods.options_of(DETECTORS)]
    given = [options_of.option(name) for name in names if getattr(options, name) is not None]
    if given:
        terminal.warn(f"{', '.join(given)}: not read; the guard holds its detectors, settings and thresholds")


def _synthetic(options: argparse.Namespace, net: "Net", report: Report) -> image_sets.SyntheticSets:
    sets = image_sets.synthetic_sets(options.model, report)
    if sets is None:
        raise InputError(f"{net.name}: no clean images; pass them with --clean CLEAN.h5")
    return sets


def _pool(options: argparse.Namespace, net: "Net", settings: Sequence[Detector]) -> "ImageSet | None":
    """The images of --pool, where a detector lays them over others."""
    if options.pool is None:
        return None
    if not any(detector.uses_pool for detector in settings):
        raise InputError("--pool: none of these detectors reads it; leave it out (strip, both do)")
    return image_sets.open_set(options.pool, net, "--pool", labelled=False)


def _note_pool(guard: "Guard") -> None:
    wanted = max((getattr(held.detector, "overlays", 0) for held in guard.detectors.values()), default=0)
    if guard.pool is not None and len(guard.pool) < wanted:
        terminal.note(f"{wanted} overlays per image from a pool of {len(guard.pool)}: some come more than once")


def _thinned(images: "ImageSet", limit: int | None) -> "ImageSet":
    """At most so many of the images, evenly spread, in memory."""
    from jaxdefend.datasets.images import ArrayImages

    if limit is None or len(images) <= limit:
        return images
    step = -(-len(images) // limit)
    return ArrayImages(
        images[::step], None if images.labels is None else images.labels[::step], list(images.names[::step])
    )


def main(arguments: Sequence[str | Path] | None = None) -> int:
    return runtime.run(_detect, arguments)


if __name__ == "__main__":
    runtime.program(main)
