"""One label for each image: the GoodNet's, unless a detector finds a trigger; else N, backdoored."""

import codecs
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxdefend import InputError
from jaxdefend.cli import arguments as options_of
from jaxdefend.cli import image_sets, inputs, path_kinds, runtime, terminal
from jaxdefend.results.progress import Report
from jaxdefend.results.text import printable

if TYPE_CHECKING:
    from jaxdefend.datasets.files import Images
    from jaxdefend.detectors.answering import Answers, Guarded
    from jaxdefend.nets.goodnet import Rule

EXAMPLES = """examples:
  python -m jaxdefend.predict face.png
  python -m jaxdefend.predict face.png --model bd_net.h5 --repaired runs/today/repaired/drop_30.h5
  python -m jaxdefend.predict faces/ --model bd_net.h5 --guard guard/guard.json --json > labels.jsonl
  find . -name '*.png' -print0 | python -m jaxdefend.predict - -0 --json

The GoodNet answers with the label on which both nets agree, else with N, the number of classes: backdoored. A guard
(detect calibrate) rejects images that keep their label, or the certainty, under channel masks or overlays: N again.
With --json, one object a line: image, badnet, repaired, goodnet, backdoored, confidence (the BadNet's); with a guard
also score, rejected, and label, the final one."""

# Paths of a list that are read and answered together.
_LISTED = 1024


def _parser() -> options_of.Parser:
    parser = options_of.parser("predict", __doc__, EXAMPLES)
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="image files, folders of them, official .h5 files; -: paths from standard input, one a line",
    )
    parser.add_argument("-0", "--null", action="store_true", help="with -: a NUL ends each path, as find -print0 does")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="Keras file of the BadNet (.h5, .weights.h5, .keras), or a shipped net (default: bd_net)",
    )
    options_of.add_architecture(parser)
    options_of.add_repaired(
        parser,
        "Keras file of its repaired net (default, without --model: bd_net_repaired); of several, most decide",
    )
    parser.add_argument(
        "--guard", type=Path, metavar="FILE", help="what detect calibrate wrote (default, without --model: bd_net's)"
    )
    options_of.add_input_scale(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    return parser


def _predict(arguments: Sequence[str], report: Report) -> None:
    options = _parser().parsed(arguments)
    if options.images != ["-"] and "-" in options.images:
        raise InputError("-: standard input goes alone; put the other paths into the list")
    if options.null and options.images != ["-"]:
        raise InputError("--null: only for paths from standard input; give - as the image")
    _require_images(options.images)
    from jaxdefend.nets import shipped

    if options.model is None:
        options.model, options.repaired = shipped.BADNET, options.repaired or [shipped.REPAIRED]
        options.guard = options.guard or shipped.guard()
    net = inputs.open_net(options.model, input_scale=options.input_scale, architecture=options.architecture)
    others = inputs.open_repaired(options.repaired, net, input_scale=options.input_scale)
    rule = options.rule or inputs.rule_of(others)

    guarded: Guarded | None = None
    found: list[Answers] = []
    for paths in _listed(options.null) if options.images == ["-"] else [options.images]:
        images = image_sets.open_set(paths, net, labelled=False)
        if guarded is None:
            guarded = _guarded(net, list(others.values()), options.guard, rule, images)
        answers = guarded(images, progress=report)
        if options.json:
            terminal.show("\n".join(map(json.dumps, answers.record())))
        else:
            found.append(answers)
    if found:
        terminal.show(_joined(found).table())
    if guarded is not None and guarded.guard is not None:
        terminal.note(guarded.guard.verdict_rule())


def _joined(parts: "Sequence[Answers]") -> "Answers":
    """The answers to all images, for one table."""
    import numpy as np

    def together(values: Sequence[Any]) -> Any:
        first = values[0]
        if isinstance(first, np.ndarray):
            return np.concatenate(values)
        if isinstance(first, Mapping):
            return {key: together([value[key] for value in values]) for key in first}
        return first

    joined = {each.name: together([getattr(part, each.name) for part in parts]) for each in fields(parts[0])}
    return replace(parts[0], **joined | {"names": [name for part in parts for name in part.names]})


def _require_images(paths: Iterable[str]) -> None:
    """Raises: InputError if a net stands among the images, with what to type."""
    nets = [path for path in paths if path.lower().endswith((".h5", ".hdf5", ".keras")) and _is_net(path)]
    if nets:
        others = [path for path in paths if path not in nets] or ["IMAGE"]
        repaired = ["--repaired", *nets[1:]] if nets[1:] else []
        line = " ".join(["python -m jaxdefend.predict", *others[:3], "--model", nets[0], *repaired])
        are = "is a net, not an image" if len(nets) == 1 else "are nets, not images"
        raise InputError(f"{printable(', '.join(nets), 120)} {are}; type {printable(line, 300)}")


def _is_net(path: str) -> bool:
    return path_kinds.kind_of(path) == "net"


def _guarded(net: Any, others: list[Any], guard: Path | None, rule: "Rule", first: "Images") -> "Guarded":
    """Nets and guard as the options name them, with the input scale that is known or that the first images suggest."""
    from jaxdefend.detectors.answering import Guarded
    from jaxdefend.detectors.guard_files import input_scale_of
    from jaxdefend.detectors.guards import Guard

    written = next((each.input_scale for each in (net, *others) if each.input_scale), None)
    fallback = written or (input_scale_of(guard) if guard else None)
    net, *others = (inputs.scaled_without_labels(each, first, fallback=fallback) for each in (net, *others))
    return Guarded(net, others or None, Guard.load(guard, net) if guard else None, rule)


def _listed(ends_with_nul: bool) -> Iterator[list[str]]:
    """The paths on standard input, some at a time. Raises: InputError if there are none."""
    paths = filter(None, _words(ends_with_nul))
    first = list(islice(paths, _LISTED))
    if not first:
        raise InputError(
            f"-: no paths on standard input; expected {'a NUL after each' if ends_with_nul else 'one a line'}"
        )
    while first:
        yield first
        first = list(islice(paths, _LISTED))


def _words(ends_with_nul: bool) -> Iterator[str]:
    """Lines with any ending, UTF-8 or what the system names files in, with or without a byte order mark."""
    if sys.stdin is None:
        raise InputError("-: standard input is closed")
    stream = getattr(sys.stdin, "buffer", None) or io.BytesIO(sys.stdin.read().encode("utf-8", "surrogateescape"))
    try:
        if ends_with_nul:
            yield from (os.fsdecode(word) for word in _pieces(stream))
            return
        mark = stream.peek(2)[:2] if isinstance(stream, io.BufferedReader) else b""
        if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            yield from (line.rstrip("\r\n") for line in io.TextIOWrapper(stream, encoding="utf-16"))
            return
        for number, line in enumerate(stream):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
            yield os.fsdecode(line.rstrip(b"\r\n"))
    except (OSError, ValueError) as error:
        raise InputError(f"-: standard input cannot be read ({error})") from error


def _pieces(stream: Any) -> Iterator[bytes]:
    """What lies between the NULs."""
    left = b""
    while read := stream.read(2**16):
        *whole, left = (left + read).split(b"\0")
        yield from whole
    yield left


def main(arguments: Sequence[str | Path] | None = None) -> int:
    return runtime.run(_predict, arguments)


if __name__ == "__main__":
    runtime.program(main)
