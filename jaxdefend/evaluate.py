"""Clean accuracy and attack success of a net, of its repaired nets, and of the GoodNet of all."""

import sys
from collections.abc import Sequence

from jaxdefend import InputError, _command, _inputs, _measuring

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
    _command.add_repaired(parser, "Keras file of a repaired net; of several, most decide")
    _command.add_input_scale(parser)
    _command.add_processes(parser)
    _command.add_out(parser)
    return parser


def _evaluate(arguments: Sequence[str] | None) -> None:
    options = _parser().parse_args(arguments)
    _command.join_processes(options)
    from jaxdefend.results.records import write_json

    badnet = _inputs.load_model(options.model)
    repaired = _inputs.load_repaired(options.repaired, badnet)
    options.made_sets = False
    if options.clean is None:
        sets = _inputs.default_sets(options.model)
        if sets is None:
            raise InputError(f"{badnet.name}: no clean images; pass them with --clean CLEAN.h5")
        options.made_sets = not options.poisoned
        options.clean, options.poisoned = [sets.test], options.poisoned or sets.poisoned
    clean = _inputs.load_images(options.clean, badnet.net, options.labels)
    poisoned = _inputs.load_poisoned(options, badnet.net)

    target = _command.out_folder(options.out)
    with _command.results_folder(target) as folder:
        nets = {"badnet": _inputs.scaled_by_measure(badnet, options.input_scale, clean)}
        scale = nets["badnet"].input_scale
        nets |= {
            key: _inputs.scaled_by_measure(model, options.input_scale, clean, scale) for key, model in repaired.items()
        }

        on_clean, on_poisoned = _measuring.measured(
            nets, clean, poisoned, options.rule, _inputs.true_labels(options, clean, poisoned)
        )
        results = _measuring.by_net(on_clean, on_poisoned)
        record = _command.record_head("evaluate", arguments, badnet, nets["badnet"], seed=None) | results["badnet"]
        for key, model in repaired.items():
            head = {"model": _command.model_record(model), "input_scale": nets[key].input_scale}
            record |= {key: head | results[key], "rule": options.rule, "goodnet": results["goodnet"]}
        write_json(folder / "evaluate.json", record)

    print(_measuring.rates_table(on_clean, on_poisoned))
    _command.note(f"written to {target / 'evaluate.json'}")


def main(arguments: Sequence[str] | None = None) -> int:
    return _command.run(_evaluate, arguments)


if __name__ == "__main__":
    sys.exit(main())
