"""Clean accuracy and attack success of a net, of a repaired net, and of the GoodNet of both."""

import sys
from collections.abc import Sequence

from jaxdefend import InputError, _command

EXAMPLES = """examples:
  python -m jaxdefend.evaluate sunglasses_bd_net
  python -m jaxdefend.evaluate bd_net.h5 --clean test.h5 --poisoned sunglasses.h5
  python -m jaxdefend.evaluate multi.h5 --clean test.h5 --poisoned lipstick=a.h5 eyebrows=b.h5 --repaired repaired.h5

Prints a table and writes DIR/evaluate.json. Data: official .h5 files, images, folders of images (docs/data.md)."""


def _parser():
    parser = _command.parser("evaluate", __doc__, EXAMPLES)
    _command.add_model(parser)
    parser.add_argument(
        "--clean",
        nargs="+",
        metavar="DATA",
        help="labelled images without a trigger (default, for a shipped net: made faces; so for --poisoned)",
    )
    _command.add_data_options(parser)
    parser.add_argument("--repaired", metavar="MODEL", help="Keras file of a repaired net")
    _command.add_input_scale(parser)
    _command.add_out(parser)
    return parser


def _evaluate(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    from jaxdefend.datasets.batches import padded
    from jaxdefend.defenses.goodnet import goodnet_labels
    from jaxdefend.nets.inference import predictions
    from jaxdefend.results import rates
    from jaxdefend.results.records import output_folder, write_json

    badnet = _command.load_model(options.model)
    repaired = _command.load_model(options.repaired) if options.repaired else None
    if repaired:
        _command.require_same_classes(badnet, repaired)
    if options.clean is None:
        sets = _command.default_sets(options.model)
        if sets is None:
            raise InputError(f"{badnet.name}: no clean images; pass them with --clean CLEAN.h5")
        options.clean, options.poisoned = [sets.test], options.poisoned or sets.poisoned
    clean = _command.load_images(options.clean, badnet.net, options.labels)
    poisoned = _command.load_poisoned(options, badnet.net)

    target = _command.out_folder(options.out)
    with output_folder(target) as folder:
        nets = {"badnet": _command.scaled_by_measure(badnet, options.input_scale, clean)}
        if repaired:
            scale = nets["badnet"].input_scale
            nets["repaired"] = _command.scaled_by_measure(repaired, options.input_scale, clean, scale)

        def measured(images, name: str, rate) -> dict[str, dict]:
            batches = {net: _command.tracked(padded(images), name, len(images)) for net in nets}
            labels = {key: predictions(net, batches[key])[0] for key, net in nets.items()}
            if repaired:
                labels["goodnet"] = goodnet_labels(labels["badnet"], labels["repaired"], badnet.net.classes)
            blocks = {key: rate(int((found == images.labels).sum()), len(images)) for key, found in labels.items()}
            if repaired:
                flagged = int((labels["goodnet"] == badnet.net.classes).sum())
                blocks["goodnet"] |= rates.flagged_rate(flagged, len(images))
            return blocks

        on_clean = measured(clean, "clean", rates.clean_rate)
        on_poisoned = {name: measured(images, name, rates.poisoned_rate) for name, images in poisoned.items()}
        results = {
            key: {"clean": on_clean[key], "poisoned": {name: blocks[key] for name, blocks in on_poisoned.items()}}
            for key in on_clean
        }
        record = _command.record_head("evaluate", arguments, badnet, nets["badnet"], seed=None) | results["badnet"]
        if repaired:
            head = {"model": _command.model_record(repaired), "input_scale": nets["repaired"].input_scale}
            record |= {"repaired": head | results["repaired"], "goodnet": results["goodnet"]}
        write_json(folder / "evaluate.json", record)

    print(_table(on_clean, on_poisoned))
    _command.note(f"written to {target / 'evaluate.json'}")


def _table(on_clean: dict[str, dict], on_poisoned: dict[str, dict[str, dict]]) -> str:
    titles = {"badnet": "BadNet", "repaired": "repaired net", "goodnet": "GoodNet"}

    def row(name: str, blocks: dict[str, dict], count: str) -> list[str]:
        cells = [_command.per_cent(block[count], block["n"]) for block in blocks.values()]
        flags = (
            [_command.per_cent(blocks["goodnet"]["flagged_count"], blocks["goodnet"]["n"])] if len(cells) > 1 else []
        )
        return [name, str(blocks["badnet"]["n"]), *cells, *flags]

    rows = [row("clean accuracy", on_clean, "correct")]
    rows += [row(f"attack success, {name}", blocks, "hits") for name, blocks in on_poisoned.items()]
    header = ["", "images", *(titles[key] for key in on_clean), *(["flagged"] if len(on_clean) > 1 else [])]
    return _command.table(header, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    return _command.run(_evaluate, arguments)


if __name__ == "__main__":
    sys.exit(main())
