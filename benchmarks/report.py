"""The table, benchmarks.json and the figure."""

import argparse
import inspect
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measuring import FULL, QUICK, Row, Size, Times, median
from jaxdefend import InputError, __version__
from jaxdefend.cli import jax_setup, runtime, terminal
from jaxdefend.cli.output import SCHEMA
from jaxdefend.results.text import table

PACKAGES = (
    *("jax", "jaxlib", "flax", "numpy", "keras", "tensorflow", "tensorflow-cpu", "torch"),
    "adversarial-robustness-toolbox",
)


def main(*scripts: Callable[[Size], list[Row]], arguments: Sequence[str] | None = None) -> int:
    """Run the scripts, print their rows, write `benchmarks.json` and `benchmarks.png`; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats: two minutes on two cores")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    return runtime.run(lambda _, report: _report(scripts, size, options.out), [])


def _report(scripts: Sequence[Callable[[Size], list[Row]]], size: Size, folder: Path) -> None:
    from jaxdefend.results.records import write_json

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder with --out") from error
    load = os.getloadavg()
    rows = []
    for script in scripts:
        terminal.say(f"{inspect.getmodulename(inspect.getfile(script))} …")
        rows += script(size)
    terminal.show(_table(rows))
    write_json(
        folder / "benchmarks.json",
        {
            "schema": SCHEMA,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": size is QUICK,
            "machine": _machine() | {"load_before": load},
            "versions": _versions(),
            "rows": [row.record() for row in rows],
            "spread": {row.name: {"ours_s": row.ours, "peer_s": row.theirs} for row in rows},
        },
    )
    _draw(rows, folder / "benchmarks.png")
    terminal.note(f"written to {folder}/: benchmarks.json, benchmarks.png")


def _table(rows: Sequence[Row]) -> str:
    def seconds(times: Times | None) -> str:
        if times is None:
            return "–"
        unit, name = (1e3, "ms") if median(times) < 0.1 else (1, "s")
        return f"{unit * median(times):.3g} [{unit * min(times):.3g}, {unit * max(times):.3g}] {name}"

    def cells(row: Row) -> list[str]:
        ratio = "–" if row.ratio is None else f"{row.ratio:.3g}"
        met, same = ({None: "–", True: "yes", False: "NO"}[answer] for answer in (row.met, row.same_result))
        return [row.name, seconds(row.ours), seconds(row.theirs), ratio, row.goal or "–", met, same, row.peer]

    header = ["", "ours", "peer", "ratio", "goal", "met", "same result", "peer is"]
    return table(header, map(cells, rows))


def _machine() -> dict:
    import jax

    device = jax.devices()[0]
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "system": platform.platform(),
        "processor": models[0] if models else platform.processor(),
        "cores": jax_setup.cores(),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
    }


def _versions() -> dict[str, str]:
    found = {"jaxdefend": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _draw(rows: Sequence[Row], path: Path) -> None:
    """How many times the goal every ratio is; beyond the line it is met, if the seconds are."""
    from matplotlib.figure import Figure

    from jaxdefend.results.records import replacing

    def label(row: Row) -> str:
        seconds = f", {median(row.ours):.2g} s (goal {row.longest_seconds:g} s)" if row.longest_seconds else ""
        return f"{row.ratio:.3g} (goal {row.smallest_ratio:g}){seconds}"

    drawn = [row for row in rows if row.ratio and row.smallest_ratio][::-1]
    figure = Figure(figsize=(7.2, 1 + 0.32 * len(drawn)), layout="constrained")
    axes = figure.add_subplot()
    shares = [row.ratio / row.smallest_ratio for row in drawn]
    bars = axes.barh([row.name for row in drawn], shares, color=["#0072B2" if row.met else "#D55E00" for row in drawn])
    axes.axvline(1, color="black", linewidth=0.8)
    backing = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.bar_label(bars, list(map(label, drawn)), padding=3, fontsize=8, bbox=backing)
    axes.set(xlabel="ratio to the peer, in units of the goal", xlim=(0, 1.5 * max([1, *shares])))
    axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
