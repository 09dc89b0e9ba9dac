"""Every figure and table of a report as a file of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxdefend.detectors.evaluation import CLEAN, Evaluation
from jaxdefend.repairs.base import Repair
from jaxdefend.repairs.measurement import Measurement
from jaxdefend.repairs.sweeping import Sweep
from jaxdefend.reports.activations import Activations
from jaxdefend.reports.bars import drops_figure
from jaxdefend.reports.confusions import Confusions
from jaxdefend.reports.demonstrations import Demonstration
from jaxdefend.reports.gallery import Gallery
from jaxdefend.reports.samples import Samples, counted, wrapped
from jaxdefend.reports.summary import Summary
from jaxdefend.results.plots import write_figure
from jaxdefend.results.records import output_folder, replacing, write_csv, write_json


def write_files(folder: Path, results: Sequence[object], head: Mapping[str, Any] | None = None) -> list[str]:
    """The figures and tables of the results, whole or not at all; other files in the folder stay.

    Args:
        head: what every JSON begins with.
    Returns: the names of the files.
    Raises: InputError if they cannot be written.
    """
    head = dict(head or {})
    # An earlier run may have had more images: its gallery goes as a whole.
    with output_folder(folder, ("gallery/*.png",)) as staging:
        for result in results:
            _write(staging, result, head)
        names = sorted(str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file())
    return names


def _write(folder: Path, result: object, head: Mapping[str, Any]) -> None:
    def record(name: str) -> None:
        write_json(folder / f"{name}.json", {**head, **result.record()})  # type: ignore[attr-defined]

    match result:
        case Summary():
            record("summary")
            write_csv(folder / "layers.csv", result.columns())
            with replacing(folder / "graph.svg") as temporary:
                temporary.write_text(result.svg(), encoding="utf-8")
        case Sweep():
            record("sweep")
            write_csv(folder / "sweep.csv", result.columns())
            write_figure(folder / "sweep.png", result.figure(_of_sweep(result)))
            if result.repaired:
                write_figure(folder / "drops.png", drops_figure(result))
        case Measurement():
            write_json(folder / "measurement.json", {**head, **result.record()})
            write_figure(folder / "measurement.png", result.figure(_of_measurement(result, head)))
        case Repair():
            if result.history:
                write_figure(folder / f"training_{result.method}.png", result.figure())
        case Evaluation():
            record("detect")
            write_csv(folder / "detect.csv", result.columns())
            write_figure(folder / "histogram.png", result.figure(_of_evaluation(result)))
            if len(result.sets) > 1:
                write_figure(folder / "errors.png", result.errors_figure(_of_evaluation(result)))
        case Activations():
            record("activations")
            write_csv(folder / "activations.csv", result.columns())
            write_figure(folder / "activations.png", result.figure())
            write_figure(folder / "activations_sorted.png", result.bars_figure())
        case Samples():
            write_figure(folder / "samples.png", result.figure())
        case Gallery():
            record("gallery")
            if any(group.pictures for group in result.groups):
                write_figure(folder / "gallery.png", result.figure())
            result.write(folder / "gallery")
        case Confusions():
            record("confusions")
            write_csv(folder / "confusions.csv", result.columns())
            write_figure(folder / "confusions.png", result.figure())
        case Demonstration():
            record(f"under_{result.what}")
            write_figure(folder / f"under_{result.what}.png", result.figure())
        case _:
            pass


# Titles say the net, the number of images and the set.


def _of_sweep(sweep: Sweep) -> str:
    n = {"validation": sweep.valid.n, "test": sweep.test.n}
    attacked = counted({name: curve.n for name, curve in sweep.poisoned.items()})
    own = ", ".join(f"{size:,} {name}" for name, size in n.items())
    return wrapped(f"{sweep.net.name}; images: {own}{', ' * bool(attacked)}{attacked}")


def _of_measurement(measurement: Measurement, head: Mapping[str, Any]) -> str:
    n = {"clean": next(iter(measurement.clean.values())).hits.n}
    n |= {name: next(iter(by_net.values())).hits.n for name, by_net in measurement.poisoned.items()}
    name = (head.get("model") or {}).get("name", "")
    return wrapped(f"{name}{'; ' * bool(name)}images: {counted(n)}", 60)


def _of_evaluation(evaluation: Evaluation) -> str:
    n = {
        name: int(evaluation.correct[name].sum()) if name != CLEAN else len(of) for name, of in evaluation.sets.items()
    }
    return f"{evaluation.guard.net.name}; images: {counted(n)} (where the attack succeeds)"
