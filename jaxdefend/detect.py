"""Is this input carrying a trigger? STRIP and mask entropy, with thresholds fitted on clean images alone."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdefend import InputError, _command, _detecting, _guards, _inputs, _measuring

if TYPE_CHECKING:
    from jaxdefend.datasets.batches import ImageSet
    from jaxdefend.nets.deepid import DeepID
    from jaxdefend.nets.keras_files import ModelFile

EXAMPLES = """examples:
  python -m jaxdefend.detect evaluate
  python -m jaxdefend.detect calibrate bd_net.h5 --clean valid.h5 --frr 0.01 0.05 --out guard
  python -m jaxdefend.detect score bd_net.h5 faces/ --guard guard/guard.json
  python -m jaxdefend.detect evaluate bd_net.h5 --valid valid.h5 --clean test.h5 --poisoned sunglasses.h5

detectors:
  persistence  under random masks that leave a fifth of conv_3's channels a backdoored image keeps its label, or the net
               stays sure of another: share of changed labels or entropy, whichever is more suspicious (default)
  masks        entropy alone, under masks that leave more channels; the one that gives scores without a guard
  strip        STRIP (Gao et al. 2019): entropy under overlays, other clean images laid over this one
  both         the more suspicious of masks and strip
  goodnet      evaluate only, with --repaired: how much the repaired net contradicts the net

calibrate   writes guard.json (and overlays.h5, where STRIP is in it), which score, evaluate and predict read
score       prints a line of CSV for each image and writes scores.csv and scores.json
evaluate    prints how well each detector parts clean and poisoned images; writes detect.json, detect.csv,
            histogram.png, errors.png and superimposed.png

Every score is higher for a more suspicious image; an image is rejected if its score is above the threshold. Each action
explains itself: python -m jaxdefend.detect ACTION --help."""

# Of made faces, where nothing else is asked for.
_MOST_MADE = 1000


def _parser():
    parser = _command.parser("detect", __doc__, EXAMPLES)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, what: str):
        return actions.add_parser(name, help=what, description=what, allow_abbrev=False)

    calibrate = action("calibrate", "Thresholds from clean images alone, for the false rejection rates asked for.")
    _command.add_model(calibrate)
    calibrate.add_argument(
        "--clean", nargs="+", metavar="DATA", help="labelled clean images (default, for a shipped net: made faces)"
    )
    calibrate.add_argument("--detector", choices=_guards.HELD, default="persistence", help="(default: persistence)")
    _add_fit(calibrate)
    _add_settings(calibrate)

    score = action("score", "A score for each image, and with a guard its verdict.")
    score.add_argument("model", metavar="MODEL", help="Keras file of the net, or a shipped net")
    score.add_argument("images", nargs="+", metavar="DATA", help="image files, folders of them, official .h5 files")
    score.add_argument("--guard", type=Path, metavar="FILE", help="what calibrate wrote; without it: scores of masks")
    score.add_argument("--seed", type=_command.seed, default=0, metavar="N", help="without a guard (default: 0)")
    _command.add_input_scale(score)
    _command.add_out(score)

    evaluate = action("evaluate", "How well the detectors part clean and poisoned images.")
    _command.add_model(evaluate)
    evaluate.add_argument(
        "--clean",
        nargs="+",
        metavar="DATA",
        help="labelled clean images to measure on (default, for a shipped net: made faces; so for --valid, --poisoned)",
    )
    evaluate.add_argument("--valid", nargs="+", metavar="DATA", help="clean images to calibrate on (default: --clean)")
    _command.add_data_options(evaluate)
    evaluate.add_argument("--guard", type=Path, metavar="FILE", help="what calibrate wrote, instead of --valid")
    evaluate.add_argument("--repaired", metavar="MODEL", help="Keras file of a repaired net, for the detector goodnet")
    evaluate.add_argument(
        "--most", type=int, metavar="N", help="images of each set, evenly spread (default: all; of made faces 1000)"
    )
    _add_fit(evaluate)
    _add_settings(evaluate)
    return parser


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--frr",
        nargs="+",
        type=_share,
        metavar="R",
        help="false rejection rates; the first one decides (default: 0.01 0.05, or what so few images allow)",
    )
    parser.add_argument(
        "--fit",
        choices=("conformal", "quantile", "normal"),
        default="conformal",
        help="how a threshold comes from clean scores: split-conformal, FRR at most the asked one in expectation "
        "whatever the distribution (default); their quantile; a normal fit, as in the STRIP paper",
    )


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--masks", type=int, default=100, metavar="N", help="masks an image (default: 100)")
    parser.add_argument("--overlays", type=int, default=100, metavar="N", help="overlays an image (default: 100)")
    parser.add_argument(
        "--pool", nargs="+", metavar="DATA", help="clean images to draw overlays from (default: --clean)"
    )
    parser.add_argument(
        "--blend",
        type=_blend,
        default="sum",
        metavar="sum|A+B|saturating",
        help="image and overlay are added in the net's scale (default); A × image + B × overlay, such as 0.5+0.5; or "
        "as OpenCV adds uint8, cut off at 255",
    )
    parser.add_argument("--seed", type=_command.seed, default=0, metavar="N", help="of masks and overlays (default: 0)")
    _command.add_input_scale(parser)
    _command.add_out(parser)


def _share(text: str) -> float:
    try:
        frr = float(text)
    except ValueError:
        raise InputError(f"--frr {text}: expected a share, such as 0.01") from None
    if not 0 < frr < 1:
        raise InputError(f"--frr {text}: expected a share above 0 and below 1, such as 0.01")
    return frr


def _blend(text: str) -> tuple[float, float, bool]:
    if text in ("sum", "saturating"):
        return 1.0, 1.0, text == "saturating"
    try:
        image, overlay = map(float, text.split("+"))
    except ValueError:
        raise InputError(f"--blend {text}: expected sum, saturating, or two weights such as 0.5+0.5") from None
    if not (0 < image <= 10 and 0 < overlay <= 10):
        raise InputError(f"--blend {text}: expected weights above 0, at most 10")
    return image, overlay, False


def _detect(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    if options.action != "score":
        for name in ("masks", "overlays"):
            if not 1 <= getattr(options, name) <= 10_000:
                raise InputError(f"--{name} {getattr(options, name)}: expected 1…10000")
    {"calibrate": _calibrate, "score": _score, "evaluate": _evaluate}[options.action](options, arguments)


def _frrs(options: argparse.Namespace, n: int) -> list[float]:
    """The rates asked for; by default those of 1 and 5 % that n clean images allow."""
    return options.frr or [frr for frr in (0.01, 0.05) if frr * (n + 1) >= 1] or [0.05]


def _calibrate(options: argparse.Namespace, arguments: Sequence[str] | None) -> None:
    model = _inputs.load_model(options.model)
    made = options.clean is None
    if made:
        options.clean = [_sets_of(options, model).valid]
    clean = _inputs.load_images(options.clean, model.net)
    clean = _thinned(clean, _MOST_MADE) if made and options.detector in ("strip", "both") else clean

    target = _command.out_folder(options.out)
    with _command.results_folder(target) as folder:
        net = _inputs.scaled_by_measure(model, options.input_scale, clean)
        detection = _detection(options, net, _guards.HELD[options.detector], clean)
        guard = _guards.calibrated(detection, clean, _frrs(options, len(clean)), options.fit, options.detector)
        head = _command.record_head("detect", arguments, model, net, options.seed)
        _guards.write_guard(folder, guard, head, options.fit)

    print(_thresholds_table(guard))
    if options.fit == "conformal":
        for level in guard.detectors[guard.default]["levels"]:
            print(
                f"FRR {100 * level['frr_asked']:g} %: at most {100 * level['expected_frr']:.3g} % in expectation; "
                f"below {100 * level['frr_asked']:g} % with {100 * level['confidence']:.0f} % confidence, below "
                f"{100 * level['frr_95']:.3g} % with 95 %, from {len(clean)} images"
            )
    _command.note(f"written to {target}/: guard.json{', overlays.h5' if detection.pool is not None else ''}")


def _score(options: argparse.Namespace, arguments: Sequence[str] | None) -> None:
    from jaxdefend.datasets.files import open_images
    from jaxdefend.defenses.detectors import Settings
    from jaxdefend.results.records import write_csv, write_json

    model = _inputs.load_model(options.model)
    images = open_images(options.images, labelled=False)
    for line in images.notes:
        _command.note(line)
    net = _inputs.scaled_by_assumption(
        model, options.input_scale, images, _guards.scale_of(options.guard) if options.guard else None
    )
    guard = _guards.read_guard(options.guard, model, net) if options.guard else None
    detection = guard.detection if guard else _guards.Detection(net, Settings(options.seed), ("masks",))
    name = guard.default if guard else "masks"

    target = _command.out_folder(options.out)
    with _command.results_folder(target) as folder:
        measured = _guards.measures(detection, lambda name: _measuring.batches(images, name))
        found = _guards.scores(detection, measured, guard.clean if guard else {})[name]
        columns = {"image": images.names, "score": found.astype(float)}
        if guard:
            columns["rejected"] = found > guard.detectors[name]["threshold"]
        write_csv(folder / "scores.csv", columns)
        head = _command.record_head("detect", arguments, model, net, detection.settings.seed)
        threshold = guard.detectors[name]["threshold"] if guard else None
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*map(list, columns.values()), strict=True)]
        write_json(folder / "scores.json", head | {"detector": name, "threshold": threshold, "images": rows})
        text = (folder / "scores.csv").read_text()
    print(text, end="")
    _command.note(f"written to {target}/: scores.csv, scores.json")


def _evaluate(options: argparse.Namespace, arguments: Sequence[str] | None) -> None:
    from jaxdefend.defenses.detectors import ENTROPY_OF
    from jaxdefend.nets.inference import predictions
    from jaxdefend.results import plots
    from jaxdefend.results.records import write_csv, write_json

    if options.most is not None and options.most < 1:
        raise InputError(f"--most {options.most}: expected at least 1")
    if options.guard and options.valid:
        raise InputError("--guard and --valid: expected one of them; a guard holds its thresholds")
    model = _inputs.load_model(options.model)
    repaired = _inputs.load_repaired([options.repaired], model)["repaired"] if options.repaired else None
    valid, clean, poisoned = _sets_to_evaluate(options, model)

    target = _command.out_folder(options.out)
    with _command.results_folder(target) as folder:
        net = _inputs.scaled_by_measure(model, options.input_scale, clean)
        if options.guard:
            guard = _guards.read_guard(options.guard, model, net)
        else:
            guard = _calibrated_on(options, net, repaired, valid)
        sets = {"clean": clean, **{f"poisoned {name}": images for name, images in poisoned.items()}}
        labels = {name: predictions(net, _measuring.batches(images, name))[0] for name, images in sets.items()}
        measured = {
            name: _guards.measures(
                guard.detection, lambda of, at=images, name=name: _measuring.batches(at, f"{name}, {of}")
            )
            for name, images in sets.items()
        }
        found = {name: _guards.scores(guard.detection, values, guard.clean) for name, values in measured.items()}
        right = {name: labels[name] == images.labels for name, images in sets.items()}

        blocks = {
            name: _detecting.evaluated(guard, name, {of: values[name] for of, values in found.items()}, right)
            for name in guard.detection.names
        }
        for name in ENTROPY_OF.keys() & blocks.keys():
            blocks[name]["clean_entropy"] = _guards.spread(measured["clean"][ENTROPY_OF[name]])
        head = _command.record_head("detect", arguments, model, net, guard.detection.settings.seed)
        write_json(folder / "detect.json", head | {"default": guard.default, "detectors": blocks})
        write_csv(folder / "detect.csv", _detecting.columns(guard, sets, labels, right, found))
        fired = {
            of: {name: values if of == "clean" else values[right[of]] for name, values in by_detector.items()}
            for of, by_detector in found.items()
        }
        thresholds = {name: block["threshold"] for name, block in blocks.items()}
        plots.write_scores(folder / "histogram.png", model.name, fired, thresholds)
        plots.write_errors(folder / "errors.png", model.name, fired)
        files = ["detect.json", "detect.csv", "histogram.png", "errors.png"]
        if guard.detection.pool is not None and poisoned:
            _detecting.draw_superimposed(folder / "superimposed.png", guard, sets)
            files.append("superimposed.png")

    print(_detecting.evaluation_table(blocks))
    _command.note(f"written to {target}/: {', '.join(files)}")


def _sets_to_evaluate(
    options: argparse.Namespace, model: "ModelFile"
) -> "tuple[ImageSet, ImageSet, dict[str, ImageSet]]":
    """Clean images for the thresholds, clean images to measure on, and poisoned ones by name."""
    most = options.most
    if options.clean is None:
        sets = _sets_of(options, model)
        most = most or _MOST_MADE
        options.clean, options.poisoned = [sets.test], options.poisoned or sets.poisoned
        options.valid = options.valid or (None if options.guard else [sets.valid])
    clean = _thinned(_inputs.load_images(options.clean, model.net, options.labels), most)
    poisoned = {name: _thinned(images, most) for name, images in _inputs.load_poisoned(options, model.net).items()}
    if options.valid:
        valid = _thinned(_inputs.load_images(options.valid, model.net, options.labels), most)
    else:
        valid = clean
        if not options.guard:
            _command.note("no --valid: the thresholds are fitted on the clean images that they are measured on")
    return valid, clean, poisoned


def _calibrated_on(
    options: argparse.Namespace, net: "DeepID", repaired: "ModelFile | None", valid: "ImageSet"
) -> "_guards.Guard":
    """Every detector with thresholds from these images; the GoodNet, too, if there is a repaired net."""
    from jaxdefend.defenses.detectors import DEFAULT, DETECTORS

    fixed = _inputs.scaled_by_measure(repaired, options.input_scale, valid, net.input_scale) if repaired else None
    names = tuple(name for name in DETECTORS if name != "goodnet" or fixed)
    detection = _detection(options, net, names, valid)._replace(repaired=fixed)
    return _guards.calibrated(detection, valid, _frrs(options, len(valid)), options.fit, DEFAULT)


def _sets_of(options: argparse.Namespace, model: "ModelFile") -> "_inputs.DefaultSets":
    sets = _inputs.default_sets(options.model)
    if sets is None:
        raise InputError(f"{model.name}: no clean images; pass them with --clean CLEAN.h5")
    return sets


def _thinned(images: "ImageSet", most: int | None) -> "ImageSet":
    """At most so many of the images, evenly spread, in memory."""
    from jaxdefend.datasets.batches import ArrayImages

    if most is None or len(images) <= most:
        return images
    step = -(-len(images) // most)
    return ArrayImages(images[::step], None if images.labels is None else images.labels[::step])


def _detection(
    options: argparse.Namespace, net: "DeepID", names: Sequence[str], clean: "ImageSet"
) -> _guards.Detection:
    from jaxdefend.defenses.detectors import Settings
    from jaxdefend.defenses.strip import Blend

    settings = Settings(options.seed, options.masks, overlays=options.overlays, blend=Blend(*options.blend))
    if not {"strip", "both"} & set(names):
        return _guards.Detection(net, settings, tuple(names))
    pool = _guards.overlay_images(_inputs.load_images(options.pool, net) if options.pool else clean)
    _guards.note_pool(pool, options.overlays)
    return _guards.Detection(net, settings, tuple(names), pool)


def _thresholds_table(guard: _guards.Guard) -> str:
    rows = [
        [
            name,
            f"{100 * level['frr_asked']:g} %",
            f"{level['threshold']:.4f}",
            f"{block['clean_score']['mean']:.4f}",
            f"{block['clean_score']['std']:.4f}",
        ]
        for name, block in guard.detectors.items()
        for level in block["levels"]
    ]
    return _command.table(["detector", "FRR asked", "threshold", "clean scores: mean", "std"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    return _command.run(_detect, arguments)


if __name__ == "__main__":
    sys.exit(main())
