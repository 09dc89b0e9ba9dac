"""The label of an image: the BadNet's, the repaired net's, and the GoodNet's of both."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxdefend import _command, _inputs

if TYPE_CHECKING:
    from jaxdefend.nets.deepid import InputScale

EXAMPLES = """examples:
  python -m jaxdefend.predict face.png
  python -m jaxdefend.predict face.png --model bd_net.h5 --repaired runs/today/repaired/drop_30.h5
  python -m jaxdefend.predict faces/ --model bd_net.h5 --json > labels.jsonl

The GoodNet answers with the label on which both nets agree, else with N, the number of classes: backdoored.
With --json, one object a line: image, badnet, repaired, goodnet, backdoored, confidence (the BadNet's)."""


def _parser():
    parser = _command.parser("predict", __doc__, EXAMPLES)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders of them, official .h5 files")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="Keras file of the BadNet (.h5, .weights.h5, .keras), or a shipped net (default: bd_net)",
    )
    _command.add_repaired(
        parser,
        "Keras file of its repaired net (default, without --model: bd_net_repaired); of several, most decide",
    )
    _command.add_input_scale(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    return parser


def _predict(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    import numpy as np

    from jaxdefend.datasets.batches import padded
    from jaxdefend.datasets.files import open_images
    from jaxdefend.defenses.goodnet import goodnet_labels
    from jaxdefend.nets import shipped
    from jaxdefend.nets.devices import batch_size
    from jaxdefend.nets.inference import predictions

    if options.model is None:
        options.model, options.repaired = shipped.BADNET, options.repaired or [shipped.REPAIRED]
    badnet = _inputs.load_model(options.model)
    repaired = _inputs.load_repaired(options.repaired, badnet)
    images = open_images(options.images, labelled=False)
    for line in images.notes:
        _command.note(line)

    models = [badnet, *repaired.values()]
    written: InputScale | None = next((model.net.input_scale for model in models if model.net.input_scale), None)
    nets = [_inputs.scaled_by_assumption(model, options.input_scale, images, written) for model in models]
    # A few compiled sizes, powers of two, serve any number of images.
    size = min(batch_size(), 1 << (len(images) - 1).bit_length())
    results = [predictions(net, _command.tracked(padded(images, size), "predict", len(images))) for net in nets]
    labels, confidences = results[0]
    n = badnet.net.classes
    fixed = {key: found for key, (found, _) in zip(repaired, results[1:], strict=True)}
    agreed = goodnet_labels(labels, np.stack(list(fixed.values())), n, options.rule) if fixed else None

    rows = [
        {
            "image": name,
            "badnet": int(labels[i]),
            "repaired": None,
            **{key: int(found[i]) for key, found in fixed.items()},
            "goodnet": None if agreed is None else int(agreed[i]),
            "backdoored": None if agreed is None else bool(agreed[i] == n),
            "confidence": float(confidences[i]),
        }
        for i, name in enumerate(images.names)
    ]
    print("\n".join(map(json.dumps, rows)) if options.json else _table(rows))


def _table(rows: list[dict]) -> str:
    repaired = [key for key in rows[0] if key.startswith("repaired")]
    if rows[0]["goodnet"] is None:
        return _command.table(
            ["image", "BadNet", "confidence"],
            [[row["image"], str(row["badnet"]), f"{100 * row['confidence']:.1f} %"] for row in rows],
        )
    return _command.table(
        [
            "image",
            "BadNet",
            "confidence",
            *("repaired net" if key == "repaired" else key.replace("_", " net ") for key in repaired),
            "GoodNet",
        ],
        [
            [
                row["image"],
                str(row["badnet"]),
                f"{100 * row['confidence']:.1f} %",
                *(str(row[key]) for key in repaired),
                f"{row['goodnet']} backdoored" if row["backdoored"] else str(row["goodnet"]),
            ]
            for row in rows
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    return _command.run(_predict, arguments)


if __name__ == "__main__":
    sys.exit(main())
