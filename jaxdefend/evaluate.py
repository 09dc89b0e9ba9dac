"""Clean accuracy and attack success of a net, of its repaired nets, and of the GoodNet that they make together."""

from collections.abc import Sequence
from pathlib import Path

from jaxdefend.cli import arguments as options_of
from jaxdefend.cli import image_sets, inputs, output, path_kinds, processes, runtime, terminal
from jaxdefend.results.progress import Report

EXAMPLES = """examples:
  python -m jaxdefend.evaluate sunglasses_bd_net
  python -m jaxdefend.evaluate bd_net.h5 --clean test.h5 --poisoned sunglasses.h5
  python -m jaxdefend.evaluate multi.h5 --clean test.h5 --poisoned lipstick=a.h5 eyebrows=b.h5 --repaired repaired.h5

Prints a table and writes DIR/evaluate.json. Data: official .h5 files, images, folders of images, arrays
(docs/data.md)."""


def _parser() -> options_of.Parser:
    parser = options_of.parser("evaluate", __doc__, EXAMPLES)
    options_of.add_model(parser)
    options_of.add_clean(
        parser,
        "--clean",
        "labelled images without a trigger (default, for a shipped net: synthetic faces; so for --poisoned)",
    )
    options_of.add_poisoned(parser)
    options_of.add_repaired(parser, "Keras file of a repaired net; of several, most decide")
    options_of.add_input_scale(parser)
    options_of.add_processes(parser)
    options_of.add_out(parser)
    return parser


def _evaluate(arguments: Sequence[str], report: Report) -> None:
    options = _parser().parsed(
        arguments, lambda found, left: path_kinds.out_of_order("evaluate", [found.model, *left], "--clean")
    )
    processes.join(options)
    from jaxdefend.repairs.measurement import measure
    from jaxdefend.results.records import write_json

    target = output.chosen_folder(options.out)
    net = inputs.open_net(options.model, input_scale=options.input_scale, architecture=options.architecture)
    others = inputs.open_repaired(options.repaired, net, input_scale=options.input_scale)
    named = inputs.Named(
        test=options.clean,
        poisoned=options.poisoned,
        targets=options.target,
        labels=options.labels,
        test_option="--clean",
    )
    sets = inputs.open_sets(named, options.model, net, report, needs="test")
    clean = sets.measured

    with output.results_folder(target, ("evaluate.json",)) as folder:
        nets = inputs.all_scaled(net, others, clean, report)
        rule = options.rule or inputs.rule_of(others)
        measured = measure(nets, clean, sets.poisoned, rule=rule, true_labels=sets.true_labels, progress=report)
        results = measured.record()
        record = output.head("evaluate", arguments, nets["badnet"], seed=None) | results["badnet"]
        for key in others:
            head = {"model": output.model_record(nets[key]), "input_scale": nets[key].input_scale}
            record |= {key: head | results[key], "rule": rule, "goodnet": results["goodnet"]}
        write_json(folder / "evaluate.json", record)

    image_sets.warn_of_doubts(measured.notes)
    terminal.show(measured.table(inputs.titles(net, others)))
    output.say_written(target, ["evaluate.json"])


def main(arguments: Sequence[str | Path] | None = None) -> int:
    return runtime.run(_evaluate, arguments)


if __name__ == "__main__":
    runtime.program(main)
