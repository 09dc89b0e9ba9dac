"""Is this net backdoored, for which class, and with what trigger? No poisoned image is needed."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from jaxdefend import InputError, Interrupted
from jaxdefend.cli import arguments as options_of
from jaxdefend.cli import image_sets, inputs, output, path_kinds, processes, runtime, terminal
from jaxdefend.results.progress import Report

if TYPE_CHECKING:
    from jaxdefend.audits.file import FileFacts
    from jaxdefend.audits.result import Audit
    from jaxdefend.datasets.files import Images
    from jaxdefend.nets.net import Net

EXAMPLES = """examples:
  python -m jaxdefend.audit sunglasses_bd_net
  python -m jaxdefend.audit stranger.h5 --clean photos/
  python -m jaxdefend.audit models/ --out audits --sarif audits.sarif

Exit status: 0 nothing found, 1 a backdoor is suspected, 2 bad input (of several files, the others are still audited).
Writes DIR/audit.json, DIR/audit.png and DIR/triggers/class_N.h5 and .png, which repair --method unlearn --trigger
takes; for several files DIR/NAME/ each, and DIR/audits.jsonl. With the same DIR, what
has been audited is not audited again. --frr is the share of clean nets that may be called backdoored.
Several processes (--coordinator) must see the same DIR: each audits every N-th file, and writes its folder."""

_OWNED = ("audit.json", "audit.png", "triggers/class_*")


def _parser() -> options_of.Parser:
    parser = options_of.parser("audit", __doc__, EXAMPLES)
    parser.add_argument(
        "models",
        nargs="*",
        default=["bd_net"],
        metavar="MODEL",
        help=f"Keras files, folders of them, or shipped nets: {options_of.SHIPPED}",
    )
    options_of.add_architecture(parser)
    options_of.add_clean(
        parser,
        "--clean",
        "images without a trigger, 64 are used; labels are not needed (default: synthetic faces, or drawn shapes for "
        "a net that takes images of another size than faces)",
    )
    parser.add_argument(
        "--frr", type=options_of.share, default=0.05, metavar="R", help="clean nets that may alarm (default: 0.05)"
    )
    options_of.add_seed(parser, "of the marks that are tried")
    options_of.add_input_scale(parser)
    parser.add_argument("--sarif", type=Path, metavar="FILE", help="write the findings as SARIF 2.1.0 too")
    options_of.add_processes(parser, "the model files")
    options_of.add_out(parser)
    return parser


@dataclass(frozen=True)
class _Done:
    """What has become of one file: its record, or why there is none."""

    model: str
    record: dict[str, Any] | None
    error: str = ""


def _audit(arguments: Sequence[str], report: Report) -> int:
    options = _parser().parsed(arguments)
    processes.join(options)
    from jaxdefend.nets.devices import of_first, place, require_agreement

    # A name by the time is not the same for all processes.
    target = Path(of_first(str(output.chosen_folder(options.out))))
    if options.sarif and (options.sarif.is_dir() or not options.sarif.absolute().parent.is_dir()):
        raise InputError(f"--sarif {options.sarif}: expected the name of a file in a folder that is there")
    models = list(_files(options.models))
    require_agreement({"the list of files": " ".join(models)})
    several = len(models) > 1 or any(_is_folder(each) for each in options.models)
    folders = [target / name if several else target for name in _names(models)]

    def one(model: str, folder: Path) -> _Done:
        try:
            return _Done(model, _one(model, folder, options, arguments, report, quiet=several))
        except InputError as error:
            if several:
                terminal.say(f"jaxdefend: {error}")
            return _Done(model, None, str(error))

    try:
        done = _shared_out(models, folders, one)
    except KeyboardInterrupt:
        if several and any((folder / "audit.json").exists() for folder in folders):
            raise Interrupted(f"interrupted; {target}: the same command goes on with what is not there yet") from None
        raise
    if not several and done[0].record is None:
        raise InputError(done[0].error)
    if place()[0] == 0:
        _write(target if several else None, options.sarif, done)
    if any(each.record is None for each in done):
        return 2
    return int(any(each.record["verdict"] == "backdoored" for each in done if each.record))


def _shared_out(models: Sequence[str], folders: Sequence[Path], one: Callable[[str, Path], _Done]) -> list[_Done]:
    """What has become of every file; of several processes, each has every N-th."""
    from jaxdefend.nets.devices import alone, place, told
    from jaxdefend.results.records import plain

    process, processes = place()
    with alone():
        own = [one(*each) for each in list(zip(models, folders, strict=True))[process::processes]]
    shares = told([plain(each) for each in own])
    done = [_Done(**shares[number % processes][number // processes]) for number in range(len(models))]
    for number, each in enumerate(done):
        # What this process did, it has told.
        if number % processes != process:
            for note in each.record["notes"] if each.record else ():
                terminal.warn(f"{each.model}: {note}")
            if each.error:
                terminal.say(f"jaxdefend: {each.error}")
    return done


def _write(lines: Path | None, sarif: Path | None, done: Sequence[_Done]) -> None:
    """What several audits come to, in the folder `lines`, and the findings as SARIF."""
    from jaxdefend.results.records import write_json

    if lines:
        _write_lines(lines / "audits.jsonl", done)
        terminal.show(_table(done))
        terminal.note(f"written to {lines}/: audits.jsonl, and a folder for each net")
    if sarif:
        write_json(sarif, _sarif(done))
        terminal.note(f"written to {sarif}")


def _one(
    model: str, folder: Path, options: argparse.Namespace, arguments: Sequence[str], report: Report, quiet: bool
) -> dict[str, Any]:
    """The record of one audit, from an earlier run if it is the same."""
    from jaxdefend.audits import audit
    from jaxdefend.audits.file import file_findings
    from jaxdefend.nets.loading import path_of
    from jaxdefend.results.plots import write_figure
    from jaxdefend.results.records import write_json

    began = perf_counter()
    file = file_findings(path_of(model))
    net = _opened(model, file, options)
    clean = _opened_clean(net, options.clean) if options.clean else None
    asked = _asked(options, clean)
    if earlier := _earlier(folder, file, asked):
        terminal.note(f"{model}: audited before, in {folder}")
        if not quiet:
            terminal.show(_table([_Done(model, earlier)]))
        return earlier
    if clean is not None and clean.labels is not None and net.input_scale is None:
        net = inputs.scaled(net, clean, report=report)
    with inputs.scale_option(), options_of.options_named(["frr"]):
        found = audit(net, clean, file=file, frr=options.frr, seed=options.seed, progress=report)
    if found.input_scale:
        net = net.with_input_scale(found.input_scale)
    with output.results_folder(folder, _OWNED) as staging:
        files = _write_triggers(found, staging)
        head = output.head("audit", arguments, net, options.seed)
        record = head | {"asked": asked} | found.record(files) | {"seconds": round(perf_counter() - began, 1)}
        write_json(staging / "audit.json", record)
        write_figure(staging / "audit.png", found.figure())
    for note in found.notes:
        terminal.warn(f"{model}: {note}" if quiet else note)
    if not quiet:
        terminal.show(found.table())
        output.say_written(folder, ["audit.json", "audit.png", *files.values()], "audit.png")
    return record


def _opened(model: str, file: "FileFacts", options: argparse.Namespace) -> "Net":
    """Raises: InputError, which names code that is in the file."""
    try:
        return inputs.open_net(model, input_scale=options.input_scale, architecture=options.architecture)
    except InputError as error:
        if file.code:
            finding = file.code[0]
            told = f"{error}; not audited: the file holds code ({finding.where})"
            raise InputError(told) from error
        raise


def _opened_clean(net: "Net", paths: Sequence[str]) -> "Images":
    """The clean images, with labels where these are asked for, to find the input scale, and there are some."""
    if net.input_scale is None:
        with suppress(InputError):
            return image_sets.open_set(paths, net, "--clean")
    return image_sets.open_set(paths, net, "--clean", labelled=False)


def _write_triggers(found: "Audit", folder: Path) -> dict[int, str]:
    if found.triggers:
        (folder / "triggers").mkdir()
    for label, trigger in found.triggers.items():
        for ending in (".h5", ".png"):
            trigger.save(folder / "triggers" / f"class_{label}{ending}")
    return {label: f"triggers/class_{label}.h5" for label in found.triggers}


def _asked(options: argparse.Namespace, clean: "Images | None") -> dict[str, Any]:
    """What an audit depends on beside the file; the clean images by what they show and how they are labelled."""
    from hashlib import sha256

    from jaxdefend import __version__
    from jaxdefend.datasets.images import digest

    asked = {name: getattr(options, name) for name in ("frr", "seed", "input_scale")} | {"version": __version__}
    asked["clean_sha256"] = None if clean is None else digest(clean)
    graph = options.architecture
    asked["architecture_sha256"] = None if graph is None else sha256(Path(graph).read_bytes()).hexdigest()
    return asked


def _earlier(folder: Path, file: "FileFacts", asked: dict[str, Any]) -> dict[str, Any] | None:
    """The record of an audit of the same file with the same options, if it is there, with the files that it names."""
    import json

    from jaxdefend.results.records import plain

    try:
        record = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
        same = record["model"]["sha256"] == file.sha256 and record["asked"] == plain(asked)
        files = ["audit.png", *(suspect["trigger"] for suspect in record["suspects"])]
        same = same and all((folder / name).is_file() for name in files)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return record if same else None


def _is_folder(model: str) -> bool:
    from jaxdefend.nets import shipped

    return model not in shipped.NAMES and Path(model).is_dir()


def _files(models: Sequence[str]) -> Iterator[str]:
    """The models, and those in the folders. Raises: InputError for a folder without any."""
    for model in path_kinds.expanded(models):
        if not _is_folder(model):
            yield model
            continue
        found = sorted(path for path in Path(model).iterdir() if path.suffix.lower() in path_kinds.MODELS)
        if not found:
            raise InputError(f"{model}: no model file in this folder; expected {', '.join(path_kinds.MODELS)}")
        yield from map(str, found)


def _names(models: Sequence[str]) -> list[str]:
    """A folder's name for each, all different."""
    found: list[str] = []
    for model in models:
        stem = Path(model).name.split(".")[0] or "net"
        name, number = stem, 2
        while name in found:
            name, number = f"{stem}-{number}", number + 1
        found.append(name)
    return found


def _write_lines(path: Path, done: Sequence[_Done]) -> None:
    import json

    from jaxdefend.results.records import plain, replacing

    lines = [each.record or {"model": {"name": each.model}, "error": each.error} for each in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        text = "".join(f"{json.dumps(plain(line), ensure_ascii=False)}\n" for line in lines)
        temporary.write_text(text, encoding="utf-8")


def _table(done: Sequence[_Done]) -> str:
    from jaxdefend.results.text import printable, shortened, table

    rows = []
    for each in done:
        name = shortened(printable(each.model), 40)
        if each.record is None:
            rows.append([name, "not audited", "", "", ""])
            continue
        suspects = each.record["suspects"]
        classes = " ".join(str(suspect["class"]) for suspect in suspects)
        lowest = f"{min(suspect['p_value'] for suspect in suspects):.2g}" if suspects else ""
        rows.append([name, each.record["verdict"], classes, lowest, f"{each.record['seconds']:.0f} s"])
    return table(["net", "verdict", "classes", "p-value", "time"], rows)


def _sarif(done: Sequence[_Done]) -> dict[str, Any]:
    from jaxdefend import __version__
    from jaxdefend.results.sarif import SarifResult, SarifRule, sarif

    rule = SarifRule(
        "backdoored-class",
        "The net can be made to answer one class more easily than a net without a backdoor can.",
        "Look at the inverted trigger beside the audit, and repair the net or do without it.",
    )
    results = []
    for each in done:
        if each.record is None:
            continue
        path, sha256 = _place(each.model), each.record["model"]["sha256"]
        for suspect in each.record["suspects"]:
            told = (
                f"Class {suspect['class']} is suspected to be a backdoor's target: p = {suspect['p_value']:.2g}, an "
                f"inverted trigger succeeds on {100 * suspect['success']:.0f} % of clean images."
            )
            results.append(SarifResult(rule, "error", told, path, sha256, f"class {suspect['class']}"))
        for finding in (*each.record["graph"], *each.record["file"]["findings"]):
            own = SarifRule(finding["kind"], finding["kind"].replace("-", " "), "See docs/audit.md.")
            level = "error" if finding["is_suspicious"] else "note"
            results.append(SarifResult(own, level, finding["message"], path, sha256, finding["where"]))
    return sarif(results, __version__)


def _place(model: str) -> Path:
    from jaxdefend.nets import shipped

    return Path(shipped.path_of(model).name) if model in shipped.NAMES else Path(model)


def main(arguments: Sequence[str | Path] | None = None) -> int:
    return runtime.run(_audit, arguments)


if __name__ == "__main__":
    runtime.program(main)
