"""One label for each image: the GoodNet's, unless a detector finds a trigger; else N, backdoored."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from jaxdefend import InputError, _command, _guards, _inputs

if TYPE_CHECKING:
    from jaxdefend.datasets.files import Images
    from jaxdefend.nets.deepid import InputScale

EXAMPLES = """examples:
  python -m jaxdefend.predict face.png
  python -m jaxdefend.predict face.png --model bd_net.h5 --repaired runs/today/repaired/drop_30.h5
  python -m jaxdefend.predict faces/ --model bd_net.h5 --guard guard/guard.json --json > labels.jsonl
  find . -name '*.png' | python -m jaxdefend.predict - --json

The GoodNet answers with the label on which both nets agree, else with N, the number of classes: backdoored. A guard
(detect calibrate) rejects images that keep their label, or the certainty, under channel masks or overlays: N again.
With --json, one object a line: image, badnet, repaired, goodnet, backdoored, confidence (the BadNet's); with a guard
also score, rejected, and label, the final one."""

# Paths of a list that are read and answered together.
_LISTED = 1024

Row = dict[str, str | int | float | bool | None]


def _parser():
    parser = _command.parser("predict", __doc__, EXAMPLES)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files, folders of them, official .h5 files; -: paths from standard input, one a line",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="Keras file of the BadNet (.h5, .weights.h5, .keras), or a shipped net (default: bd_net)",
    )
    _command.add_repaired(
        parser,
        "Keras file of its repaired net (default, without --model: bd_net_repaired); of several, most decide",
    )
    parser.add_argument(
        "--guard", type=Path, metavar="FILE", help="what detect calibrate wrote (default, without --model: bd_net's)"
    )
    _command.add_input_scale(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    return parser


def _predict(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    from jaxdefend.datasets.files import open_images
    from jaxdefend.nets import shipped

    if options.images != ["-"] and "-" in options.images:
        raise InputError("-: standard input goes alone; put the other paths into the list")
    if options.model is None:
        options.model, options.repaired = shipped.BADNET, options.repaired or [shipped.REPAIRED]
        options.guard = options.guard or shipped.guard()

    answer: Callable[[Images], list[Row]] | None = None
    rows: list[Row] = []
    for paths in _listed() if options.images == ["-"] else [options.images]:
        images = open_images(paths, labelled=False)
        for line in images.notes:
            _command.note(line)
        answer = answer or _answering(options, images)
        found = answer(images)
        if options.json:
            print("\n".join(map(json.dumps, found)), flush=True)
        else:
            rows += found
    if rows:
        print(_table(rows))


def _listed() -> Iterator[list[str]]:
    """The paths on standard input, some at a time. Raises: InputError if there are none."""
    lines = (line.rstrip("\n") for line in sys.stdin)
    paths = filter(None, lines)
    first = list(islice(paths, _LISTED))
    if not first:
        raise InputError("-: no paths on standard input; expected one a line")
    while first:
        yield first
        first = list(islice(paths, _LISTED))


def _answering(options, first: "Images") -> "Callable[[Images], list[Row]]":
    """What answers for images, with nets and guard as the options name them and the input scale of the first ones."""
    import numpy as np

    from jaxdefend.datasets.batches import padded
    from jaxdefend.defenses.goodnet import goodnet_labels
    from jaxdefend.nets.devices import batch_size
    from jaxdefend.nets.inference import predictions

    badnet = _inputs.load_model(options.model)
    repaired = _inputs.load_repaired(options.repaired, badnet)
    models = [badnet, *repaired.values()]
    written: InputScale | None = next((model.net.input_scale for model in models if model.net.input_scale), None)
    if options.guard:
        written = written or _guards.scale_of(options.guard)
    nets = [_inputs.scaled_by_assumption(model, options.input_scale, first, written) for model in models]
    guard = _guards.read_guard(options.guard, badnet, nets[0]) if options.guard else None
    n = badnet.net.classes

    def answer(images: "Images") -> list[Row]:
        # A few compiled sizes, powers of two, serve any number of images.
        size = min(batch_size(), 1 << (len(images) - 1).bit_length())

        def batches(title: str):
            return _command.tracked(padded(images, size), title, len(images))

        (labels, confidences), *others = [predictions(net, batches("predict")) for net in nets]
        fixed = {key: found for key, (found, _) in zip(repaired, others, strict=True)}
        final, answers = labels, {}
        if fixed:
            final = goodnet_labels(labels, np.stack(list(fixed.values())), n, options.rule)
            answers["goodnet"] = final
        if guard:
            scores = _guards.scores(guard.detection, _guards.measures(guard.detection, batches), guard.clean)
            answers["score"] = scores[guard.default]
            answers["rejected"] = scores[guard.default] > guard.detectors[guard.default]["threshold"]
            final = np.where(answers["rejected"], n, final)
        if guard:
            answers["label"] = final
        columns = {"badnet": labels, "repaired": None, **fixed, "goodnet": None, **answers}
        columns |= {"backdoored": final == n if answers else None, "confidence": confidences}
        return [
            {"image": name, **{key: None if column is None else column[i].item() for key, column in columns.items()}}
            for i, name in enumerate(images.names)
        ]

    return answer


def _table(rows: list[Row]) -> str:
    """For people: the final label last."""
    repaired = [key for key in rows[0] if key.startswith("repaired") and rows[0][key] is not None]

    def cells(row: Row) -> list[str]:
        guarded = [f"{row['score']:.3f}{' rejected' if row['rejected'] else ''}"] if "score" in row else []
        goodnet = [] if row["goodnet"] is None or "label" not in row else [str(row["goodnet"])]
        label = row.get("label", row["goodnet"])
        final = [] if label is None else [f"{label}{' backdoored' if row['backdoored'] else ''}"]
        confidence = f"{100 * float(row['confidence'] or 0):.1f} %"
        return [
            str(row["image"]),
            str(row["badnet"]),
            confidence,
            *(str(row[key]) for key in repaired),
            *goodnet,
            *guarded,
            *final,
        ]

    header = [
        "image",
        "BadNet",
        "confidence",
        *("repaired net" if key == "repaired" else key.replace("_", " net ") for key in repaired),
        *(["GoodNet"] if repaired else []),
        *(["score", "label"] if "label" in rows[0] else []),
    ]
    return _command.table(header, map(cells, rows))


def main(arguments: Sequence[str] | None = None) -> int:
    return _command.run(_predict, arguments)


if __name__ == "__main__":
    sys.exit(main())
