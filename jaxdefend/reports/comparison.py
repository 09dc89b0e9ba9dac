"""One table of nets × repairs × detectors; every cell is computed once and kept."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Int

from jaxdefend import InputError
from jaxdefend.datasets.images import ArrayImages, ImageSet, as_images, labelled, poisoned_sets
from jaxdefend.detectors import Detector, calibrate, evaluate
from jaxdefend.detectors.base import module_of, name_of, parts_of
from jaxdefend.nets.batches import batches
from jaxdefend.nets.goodnet import goodnet_labels
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.keras_files import read_model, write_model
from jaxdefend.nets.net import Net
from jaxdefend.repairs import Method
from jaxdefend.reports.samples import wrapped
from jaxdefend.results.detection import Separation, separation
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.rates import Rate, defense_effectiveness
from jaxdefend.results.records import replacing
from jaxdefend.results.text import printable, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLEAN = "clean"
NONE = "–"

# Part of every cell's key: one more whenever a cell would hold something else.
_VERSION = 1


@dataclass(frozen=True)
class Row:
    """What one defense of one net does.

    Attributes:
        net: its name.
        repair, detector: what they are called; "–" for none.
        form: "net": the net, or the repaired one, by itself; "goodnet": the GoodNet of both.
        clean: clean images that get their label; images that a detector rejects do not count.
        poisoned: by set, poisoned images that get the target and are not rejected.
        frr: clean images that the detector rejects, or the GoodNet calls backdoored.
        far: by set, of the images on which the attack on the net succeeds, those that the detector lets pass.
        threshold: images with a higher score are rejected; `in_bits` says that the score is an entropy's negative.
        auroc: by set, how well it separates these from clean images.
        der: by set, the defense effectiveness rating.
        seconds: that the cell took when it was computed.
    """

    net: str
    repair: str
    form: str
    detector: str
    clean: Rate
    poisoned: Mapping[str, Rate]
    der: Mapping[str, float]
    frr: Rate | None = None
    threshold: float | None = None
    in_bits: bool = False
    far: Mapping[str, Rate | None] = field(default_factory=dict)
    auroc: Mapping[str, Separation] = field(default_factory=dict)
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """What compare.json holds of it."""

        def rate(of: Rate | None) -> dict[str, Any] | None:
            return None if of is None else {"count": of.count, "n": of.n, "share": of.share, "interval": of.interval}

        return {
            "net": self.net,
            "repair": self.repair,
            "form": self.form,
            "detector": self.detector,
            "clean_accuracy": rate(self.clean),
            "attack_success": {name: rate(of) for name, of in self.poisoned.items()},
            "der": dict(self.der),
            "frr": rate(self.frr),
            "threshold": self.threshold,
            "entropy_threshold": -self.threshold if self.in_bits and self.threshold is not None else None,
            "far": {name: rate(of) for name, of in self.far.items()},
            "auroc": {name: of.auroc for name, of in self.auroc.items()},
            "auroc_interval": {name: of.auroc_interval for name, of in self.auroc.items()},
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class NetScores:
    """Scores of one net's detectors: by set, "clean" first, then by detector; poisoned images only where the attack
    succeeds. `thresholds` and what is `drawn` of each (label, whether it is an entropy) by detector."""

    scores: Mapping[str, Mapping[str, np.ndarray]]
    thresholds: Mapping[str, float]
    drawn: Mapping[str, tuple[str, bool]]


@dataclass(frozen=True, repr=False)
class Comparison:
    """Rows of one table, of any number of nets; `together` joins several."""

    rows: tuple[Row, ...]
    scores: Mapping[str, NetScores] = field(default_factory=dict)

    @cached_property
    def sets(self) -> list[str]:
        """The poisoned sets of all rows."""
        return list(dict.fromkeys(name for row in self.rows for name in row.poisoned))

    def record(self) -> dict[str, Any]:
        """What compare.json holds of it."""
        return {"rows": [row.record() for row in self.rows]}

    def columns(self) -> dict[str, list]:
        """The columns of compare.csv: a line per row and poisoned set."""
        lines = []
        for row in self.rows:
            for name in row.poisoned or {"": None}:
                of, far, auroc = row.poisoned.get(name), row.far.get(name), row.auroc.get(name)
                line: dict[str, Any] = {
                    "net": row.net,
                    "repair": row.repair,
                    "form": row.form,
                    "detector": row.detector,
                }
                line |= _flat("clean_accuracy", row.clean)
                line |= {"set": name} | _flat("attack_success", of)
                line |= (
                    {"der": row.der.get(name), "threshold": row.threshold} | _flat("frr", row.frr) | _flat("far", far)
                )
                low, high = (auroc.auroc_interval if auroc else None) or (None, None)
                line |= {"auroc": auroc.auroc if auroc else None, "auroc_low": low, "auroc_high": high}
                lines.append(line | {"seconds": round(row.seconds, 3)})
        return {key: [line[key] for line in lines] for key in lines[0]} if lines else {}

    def _tables(self) -> dict[str, tuple[list[str], list[list[str]]]]:
        """By heading: header and lines, with intervals."""
        repairs = [row for row in self.rows if row.detector == NONE]
        guards = [row for row in self.rows if row.detector != NONE and row.repair == NONE]
        both = [row for row in self.rows if row.detector != NONE and row.repair != NONE]

        def asr(row: Row) -> list[str]:
            return [str(row.poisoned[name]) if name in row.poisoned else NONE for name in self.sets]

        def der(row: Row) -> str:
            own = [f"{row.der[name]:.3f}" for name in self.sets if name in row.der]
            return " / ".join(own) or NONE

        found: dict[str, tuple[list[str], list[list[str]]]] = {}
        attacks = [f"ASR {name}" for name in self.sets]
        if repairs:
            lines = [
                [row.net, row.repair, _form(row), str(row.clean), *asr(row), NONE if row.repair == NONE else der(row)]
                for row in repairs
            ]
            found["Repairs"] = (["net", "repair", "form", "clean accuracy", *attacks, "DER"], lines)
        if guards:
            lines = [
                [row.net, row.detector, _threshold(row)]
                + [NONE if row.frr is None else str(row.frr)]
                + [NONE if row.far.get(name) is None else str(row.far[name]) for name in self.sets]
                + [str(row.clean), *asr(row), der(row)]
                for row in guards
            ]
            header = ["net", "detector", "threshold", "FRR", *(f"FAR {name}" for name in self.sets)]
            header += ["guarded accuracy", *(f"guarded {attack}" for attack in attacks), "DER"]
            found["Detectors"] = (header, lines)
        if both:
            lines = [
                [row.net, row.repair, row.detector, _or_none(row.frr), str(row.clean), *asr(row), der(row)]
                for row in both
            ]
            header = ["net", "repair", "detector", "rejected, clean", "clean accuracy", *attacks, "DER"]
            found["GoodNets behind detectors"] = (header, lines)
        return found

    def table(self) -> str:
        """For people: repairs, detectors, and both together."""
        parts = []
        for heading, (header, lines) in self._tables().items():
            shown = [[printable(cell, 60) for cell in line] for line in lines]
            parts.append(f"{heading}\n{table(header, shown)}")
        return "\n\n".join(parts)

    def markdown(self) -> str:
        """The same tables as Markdown; shares with 95 % Wilson intervals."""
        parts = []
        for heading, (header, lines) in self._tables().items():
            rows = [[_escaped(cell) for cell in line] for line in (header, *lines)]
            rows.insert(1, ["---"] * len(header))
            parts.append(f"## {heading}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows))
        return "\n\n".join(parts) + "\n"

    def __repr__(self) -> str:
        return self.table()

    def figure(self, title: str = "") -> "Figure":
        """Clean accuracy and the highest attack success of every row without a detector, one below the other.

        Raises: InputError if there is no such row.
        """
        from matplotlib.figure import Figure

        from jaxdefend.results.plots import _ACCURACY, _ATTACK

        rows = [row for row in self.rows if row.detector == NONE and (row.repair == NONE or row.form == "goodnet")]
        if not rows:
            raise InputError("no nets or repairs to draw")
        figure = Figure(figsize=(7.6, 1.2 + 0.5 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        worst = [max(row.poisoned.values(), key=lambda rate: rate.share, default=None) for row in rows]
        for offset, colour, label, rates in (
            (-0.2, _ACCURACY[0], "clean accuracy", [row.clean for row in rows]),
            (0.2, _ATTACK[0], "highest ASR of all poisoned sets", worst),
        ):
            found = [(place + offset, rate) for place, rate in enumerate(rates) if rate is not None]
            shares = np.array([100 * rate.share for _, rate in found])
            limits = np.array([rate.interval for _, rate in found]).reshape(-1, 2)
            errors = np.abs(100 * limits.T - shares)
            places = [place for place, _ in found]
            axes.barh(places, shares, 0.38, xerr=errors, color=colour, label=label, error_kw={"linewidth": 0.8})
        several = len({row.net for row in rows}) > 1
        names = [
            f"{printable(row.net, 24)}: " * several
            + ("BadNet" if row.repair == NONE else f"GoodNet of {printable(row.repair, 30)}")
            for row in rows
        ]
        axes.set_yticks(range(len(rows)), names, fontsize="small")
        axes.invert_yaxis()
        axes.set(xlim=(0, 102), xlabel="images, %")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(fontsize="small", loc="outside lower center", ncols=2, frameon=False)
        told = title or f"{_nets(self)}: {rows[0].clean.n:,} clean images, 95 % intervals"
        figure.suptitle(wrapped(told, 90), x=0.01, ha="left", fontsize="medium")
        return figure

    def histograms_figure(self, title: str = "") -> "Figure":
        """Histograms of every detector's scores, a row per net. Raises: InputError if no detector was compared."""
        from matplotlib.figure import Figure

        nets = self._with_scores()
        across = max(len(of.thresholds) for of in nets.values())
        figure = Figure(figsize=(3.4 * across, 0.4 + 3.0 * len(nets)), layout="constrained")
        for part, (name, of) in zip(figure.subfigures(len(nets), 1, squeeze=False)[:, 0], nets.items(), strict=True):
            part.suptitle(
                f"{printable(name, 60)}: {_sizes(of)}", x=0.01, ha="left", fontsize="small", fontweight="bold"
            )
            panels = part.subplots(1, across, squeeze=False)[0]
            for axes in panels[len(of.thresholds) :]:
                axes.set_axis_off()
            for axes, detector in zip(panels, of.thresholds, strict=False):
                _histogram(axes, of, detector)
            handles, labels = part.axes[0].get_legend_handles_labels()
            part.legend(handles, labels, loc="outside lower center", ncols=6, fontsize="x-small", frameon=False)
        figure.suptitle(title or "scores of clean and poisoned images", x=0.01, ha="left", fontsize="medium")
        return figure

    def errors_figure(self, title: str = "") -> "Figure":
        """FRR against FAR of every detector, a panel per net. Raises: InputError if no detector was compared."""
        from matplotlib.figure import Figure

        from jaxdefend.results.detection import error_curve
        from jaxdefend.results.plots import _ACCURACY, _ATTACK

        nets = self._with_scores()
        across = min(3, len(nets))
        down = -(-len(nets) // across)
        figure = Figure(figsize=(4.2 * across + 1.6, 0.4 + 3.6 * down), layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes in panels[len(nets) :]:
            axes.set_axis_off()
        labels: dict[str, Any] = {}
        # The same for the same detector and the same set, whatever the net.
        detectors = dict.fromkeys(name for of in nets.values() for name in of.thresholds)
        sets = dict.fromkeys(name for of in nets.values() for name in of.scores if name != CLEAN)
        colours = dict(zip(detectors, (_ACCURACY[0], *_ATTACK) * (1 + len(detectors) // 6), strict=False))
        styles = dict(zip(sets, ("-", "--", ":", "-.") * (1 + len(sets) // 4), strict=False))
        for axes, (name, of) in zip(panels, nets.items(), strict=False):
            for detector in of.thresholds:
                for set_name in of.scores:
                    if set_name != CLEAN and len(of.scores[set_name][detector]):
                        frr, far = error_curve(of.scores[CLEAN][detector], of.scores[set_name][detector])
                        look = {"color": colours[detector], "linestyle": styles[set_name]}
                        (line,) = axes.step(100 * frr, 100 * far, where="post", **look)
                        labels.setdefault(f"{detector}, {set_name}", line)
            axes.set(xscale="symlog", yscale="symlog", xlim=(0, 100), ylim=(0, 100))
            axes.set(xlabel="FRR: clean rejected, %", ylabel="FAR: poisoned accepted, %")
            ticks = [0, 1, 2, 5, 10, 20, 50, 100]
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_ticks(ticks, [str(tick) for tick in ticks])
                axis.set_ticks([], minor=True)
            axes.set_title(wrapped(f"{printable(name, 40)}: {_sizes(of)}", 52), loc="left", fontsize="x-small")
            axes.grid(alpha=0.25)
        if labels:
            figure.legend(
                list(labels.values()), list(labels), fontsize="x-small", loc="outside right upper", frameon=False
            )
        figure.suptitle(title or "errors of detectors at every threshold", x=0.01, ha="left", fontsize="medium")
        return figure

    def _with_scores(self) -> Mapping[str, NetScores]:
        found = {name: of for name, of in self.scores.items() if of.thresholds}
        if not found:
            raise InputError("no detectors were compared: there are no scores to draw")
        return found


def rows_of(record: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows in what compare.json holds. Raises: InputError if it holds others."""

    def rate(of: Mapping[str, Any] | None) -> Rate | None:
        return None if of is None else Rate(int(of["count"]), int(of["n"]))

    def there(of: Mapping[str, Any]) -> Rate:
        return Rate(int(of["count"]), int(of["n"]))

    try:
        return tuple(
            Row(
                str(row["net"]),
                str(row["repair"]),
                str(row["form"]),
                str(row["detector"]),
                there(row["clean_accuracy"]),
                {str(name): there(of) for name, of in row["attack_success"].items()},
                {str(name): float(value) for name, value in row["der"].items()},
                rate(row["frr"]),
                None if row["threshold"] is None else float(row["threshold"]),
                row["entropy_threshold"] is not None,
                {str(name): rate(of) for name, of in row["far"].items()},
                {str(name): Separation(area, row["auroc_interval"].get(name)) for name, area in row["auroc"].items()},
                float(row["seconds"]),
            )
            for row in record["rows"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not the rows of a comparison ({printable(error, 80)} is missing or wrong)") from error


def write_scores(path: Path, scores: Mapping[str, NetScores]) -> None:
    """For the figures of a later table."""
    arrays: dict[str, np.ndarray] = {}
    told: dict[str, Any] = {}
    for net, of in scores.items():
        places: dict[str, dict[str, int]] = {}
        for name, by_detector in of.scores.items():
            for detector, values in by_detector.items():
                places.setdefault(name, {})[detector] = len(arrays)
                arrays[f"scores_{len(arrays)}"] = values
        told[net] = {"scores": places, "thresholds": dict(of.thresholds), "drawn": dict(of.drawn)}
    _write(path, {"told": np.array(json.dumps(told)), **arrays})


def read_scores(path: Path) -> dict[str, NetScores]:
    """What `write_scores` wrote; nothing if the file is not there or damaged."""
    kept = _read(path)
    try:
        told = json.loads(str(kept["told"])) if kept else {}
        return {
            net: NetScores(
                {
                    name: {detector: kept[f"scores_{place}"] for detector, place in places.items()}
                    for name, places in of["scores"].items()
                },
                {name: float(threshold) for name, threshold in of["thresholds"].items()},
                {name: (str(label), bool(entropy)) for name, (label, entropy) in of["drawn"].items()},
            )
            for net, of in told.items()
            if kept
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def together(comparisons: Sequence[Comparison]) -> Comparison:
    """One table of all of them."""
    scores: dict[str, NetScores] = {}
    for comparison in comparisons:
        scores |= comparison.scores
    return Comparison(tuple(row for comparison in comparisons for row in comparison.rows), scores)


def compare(
    net: Net,
    clean: Any,
    poisoned: Mapping[str, Any] | None = None,
    *,
    test: Any = None,
    repairs: Mapping[str, Method] | None = None,
    repaired: Mapping[str, Net] | None = None,
    detectors: Mapping[str, Detector] | None = None,
    name: str = "",
    frr: float | Sequence[float] | None = None,
    fit: Any = "conformal",
    limit: int | None = None,
    seed: int = 0,
    folder: Path | None = None,
    progress: Report = silent,
) -> Comparison:
    """What repairs and detectors do for one net; `together` joins the tables of several.

    Args:
        clean: labelled clean images, from which repairs and thresholds are made; `test` are those to report, by
            default the same.
        poisoned: sets of images with a trigger by name, labelled with the attacker's target.
        repairs: what the tables call them, and their settings. `repaired`: nets that were repaired elsewhere.
        detectors: what the tables call them, and their settings.
        name: what the tables call the net; by default its file's name.
        frr, fit: see `Detector.calibrate`.
        limit: images of each set that detectors see, evenly spread; by default all.
        folder: where cells are kept; what is there already is not computed again.
    Raises: InputError if anything handed in cannot be used.
    """
    cells = _Cells(folder)
    title = name or net.name
    for of in (detectors or {}).values():
        if of.uses_repaired:
            raise InputError(
                f"the detector {type(of).__name__.lower()} asks a repaired net; its GoodNet is in the table"
            )
    shape, classes = net.image_shape, net.classes
    valid_images = labelled(as_images(clean, shape), "clean images", classes)
    test_images = valid_images if test is None else labelled(as_images(test, shape), "test images", classes)
    sets = poisoned_sets(poisoned, shape, classes)
    if CLEAN in sets:
        raise InputError(f"a poisoned set is called {CLEAN!r}; give it another name")
    sets = {CLEAN: test_images, **sets}
    digests = {key: _of_images(images) for key, images in sets.items()}
    valid_digest = digests[CLEAN] if valid_images is test_images else _of_images(valid_images)
    labels = {key: np.asarray(images.labels) for key, images in sets.items()}

    def answers(of: Net, what: str) -> dict[str, Int[np.ndarray, " n"]]:
        own = of_net(of)
        return {
            key: cells.array(
                ("answers", own, digests[key]),
                lambda key=key: predictions(of, batches(sets[key], f"{what}, {key}", progress))[0],
            )
            for key in sets
        }

    nets, rules, seconds = {NONE: net}, {NONE: "goodnet"}, {NONE: 0.0}
    for key, settings in (repairs or {}).items():
        fixed, rules[key], seconds[key] = cells.repair(
            ("repair", of_net(net), valid_digest, key_of(settings), seed),
            net,
            lambda saved, settings=settings: settings(net, valid_images, seed=seed, progress=progress, saved=saved),
        )
        nets[key] = fixed
    for key, fixed in (repaired or {}).items():
        if (fixed.image_shape, fixed.classes) != (net.image_shape, net.classes):
            raise InputError(f"{key}: not a repaired form of {title}: its images or classes differ")
        nets[key], rules[key], seconds[key] = fixed, (fixed.source and fixed.source.rule) or "goodnet", 0.0
    said = {key: answers(of, f"{title} {key}".replace(f" {NONE}", "")) for key, of in nets.items()}
    good = {
        key: {of: goodnet_labels(said[NONE][of], said[key][of][None], net.classes, rules[key]) for of in sets}  # type: ignore[arg-type]
        for key in nets
        if key != NONE
    }

    def hits(found: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        return {
            key: (found[key] == labels[key]) if rows is None else (found[key] == labels[key])[rows[key]] for key in sets
        }

    def rates(of: Mapping[str, np.ndarray]) -> tuple[Rate, dict[str, Rate]]:
        counted = {key: Rate(int(hit.sum()), len(hit)) for key, hit in of.items()}
        return counted.pop(CLEAN), counted

    before = rates(hits(said[NONE]))
    rows = [Row(title, NONE, "net", NONE, *before, {})]
    for key in good:
        for form, found in (("net", said[key]), ("goodnet", good[key])):
            after = rates(hits(found))
            flagged = int((found[CLEAN] == net.classes).sum())
            rows.append(
                Row(
                    title,
                    key,
                    form,
                    NONE,
                    *after,
                    defense_effectiveness(before, after),
                    frr=Rate(flagged, len(found[CLEAN])) if form == "goodnet" else None,
                    seconds=seconds[key],
                )
            )
    scored = None
    if detectors:
        seen = {key: _spread(len(images), limit) for key, images in sets.items()}
        base = ("detector", of_net(net), valid_digest, sorted(digests.items()), seed, frr, fit, limit)
        found = cells.detectors(
            {key: (*base, key_of(of)) for key, of in detectors.items()},
            lambda missing: _scored(
                net, {key: detectors[key] for key in missing}, valid_images, sets, frr, fit, limit, seed, progress
            ),
        )
        attacked = hits(said[NONE], seen)
        before = rates(attacked)
        for key in detectors:
            threshold, scores = found[key].threshold, found[key].scores
            passes = {of: scores[of] <= threshold for of in sets}
            frr_found = Rate(int((~passes[CLEAN]).sum()), len(passes[CLEAN]))
            hit = {of: scores[of][attacked[of]] for of in sets if of != CLEAN}
            far = {
                of: Rate(int((values <= threshold).sum()), len(values)) if len(values) else None
                for of, values in hit.items()
            }
            auroc = {of: separation(scores[CLEAN], values) for of, values in hit.items()}
            for of, answer in {NONE: said[NONE], **good}.items():
                through = {name: hit_ & passes[name] for name, hit_ in hits(answer, seen).items()}
                after = rates(through)
                rejected = ~passes[CLEAN] | (answer[CLEAN][seen[CLEAN]] == net.classes)
                rows.append(
                    Row(
                        title,
                        of,
                        "net" if of == NONE else "goodnet",
                        key,
                        *after,
                        defense_effectiveness(before, after),
                        frr=frr_found if of == NONE else Rate(int(rejected.sum()), len(rejected)),
                        threshold=threshold,
                        in_bits=getattr(module_of(detectors[key]), "NEGATED", False),
                        far=far if of == NONE else {},
                        auroc=auroc if of == NONE else {},
                        seconds=found[key].seconds,
                    )
                )
        scored = NetScores(
            {
                of: {
                    key: found[key].scores[of][attacked[of]] if of != CLEAN else found[key].scores[of]
                    for key in detectors
                }
                for of in sets
            },
            {key: found[key].threshold for key in detectors},
            {key: (module_of(of).LABEL, getattr(module_of(of), "NEGATED", False)) for key, of in detectors.items()},
        )
    return Comparison(tuple(rows), {} if scored is None else {title: scored})


# --- Cells -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Detected:
    threshold: float
    scores: Mapping[str, np.ndarray]
    seconds: float


class _Cells:
    """What was computed, by key, in a folder; without one, nothing is kept."""

    def __init__(self, folder: Path | None):
        self._folder = folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another place") from error

    def _path(self, key: object, ending: str) -> Path | None:
        if self._folder is None:
            return None
        name = sha256(json.dumps([_VERSION, key], default=str).encode()).hexdigest()[:24]
        return self._folder / f"{name}{ending}"

    def array(self, key: object, compute: Any) -> np.ndarray:
        path = self._path(key, ".npz")
        kept = _read(path)
        if kept is not None and "answers" in kept:
            return kept["answers"]
        found = np.asarray(compute())
        _write(path, {"answers": found})
        return found

    def repair(self, key: object, net: Net, compute: Any) -> tuple[Net, str, float]:
        """The repaired net, its GoodNet's rule, and the seconds that it took."""
        path, told = self._path(key, ".h5"), self._path(key, ".json")
        if path is not None and told is not None and path.exists() and told.exists():
            try:
                record = json.loads(told.read_text(encoding="utf-8"))
                fixed = net.with_weights(read_model(path).net.weights)
                return fixed, str(record["rule"]), float(record["seconds"])
            except (InputError, OSError, ValueError, KeyError):
                pass  # A damaged cell is computed again.
        saved = self._path(key, ".run")
        began = perf_counter()
        result = compute(saved)
        seconds = perf_counter() - began
        if path is not None and told is not None:
            write_model(result.net, path)
            with replacing(told) as temporary:
                temporary.write_text(json.dumps({"rule": result.rule, "seconds": round(seconds, 3)}), encoding="utf-8")
            if saved is not None and saved.exists():
                shutil.rmtree(saved)
        return result.net, result.rule, seconds

    def detectors(self, keys: Mapping[str, object], compute: Any) -> dict[str, _Detected]:
        """Those that are missing are computed together, since they share measures."""
        found = {}
        for name, key in keys.items():
            kept = _read(self._path(key, ".npz"))
            if kept is not None and "threshold" in kept:
                scores = {of.removeprefix("scores_"): kept[of] for of in kept if of.startswith("scores_")}
                found[name] = _Detected(float(kept["threshold"]), scores, float(kept["seconds"]))
        missing = [name for name in keys if name not in found]
        if missing:
            for name, detected in compute(missing).items():
                found[name] = detected
                scores = {f"scores_{of}": values for of, values in detected.scores.items()}
                _write(
                    self._path(keys[name], ".npz"),
                    {"threshold": np.float64(detected.threshold), "seconds": np.float64(detected.seconds), **scores},
                )
        return found


def _read(path: Path | None) -> dict[str, np.ndarray] | None:
    """A damaged cell is as good as none."""
    if path is None or not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            return dict(kept)
    except Exception:
        return None


def _write(path: Path | None, arrays: Mapping[str, Any]) -> None:
    if path is not None:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)


def _scored(
    net: Net,
    detectors: Mapping[str, Detector],
    valid: ImageSet,
    sets: Mapping[str, ImageSet],
    frr: Any,
    fit: Any,
    limit: int | None,
    seed: int,
    report: Report,
) -> dict[str, _Detected]:
    """Detectors that share measures are computed together; `seconds` are those of all of them."""
    found: dict[str, _Detected] = {}
    thin = {key: thinned(images, limit) for key, images in sets.items()}
    for members in _groups(detectors):
        began = perf_counter()
        guard = calibrate(
            list(members.values()), net, thinned(valid, limit), frr=frr, fit=fit, seed=seed, progress=report
        )
        attacked = {key: images for key, images in thin.items() if key != CLEAN}
        scores = evaluate(guard, thin[CLEAN], attacked, progress=report).scores
        seconds = perf_counter() - began
        for title, of in members.items():
            name = name_of(of)
            own = {key: np.asarray(by_detector[name]) for key, by_detector in scores.items()}
            found[title] = _Detected(guard.detectors[name].threshold, own, seconds)
    return found


def _groups(detectors: Mapping[str, Detector]) -> list[dict[str, Detector]]:
    """Those that fit into one guard: it holds one detector of each name, and the parts of the others."""
    groups: list[tuple[dict[str, Detector], dict[str, Detector]]] = []
    for title, of in detectors.items():
        own = {name_of(part): part for part in (*parts_of(of), of)}
        for held, members in groups:
            is_new = name_of(of) not in map(name_of, members.values())
            if is_new and all(held.get(name, part) == part for name, part in own.items()):
                held |= own
                members[title] = of
                break
        else:
            groups.append((own, {title: of}))
    return [members for _, members in groups]


def thinned(images: ImageSet, limit: int | None) -> ImageSet:
    """At most so many of the images, evenly spread, in memory."""
    if limit is None or len(images) <= limit:
        return images
    rows = _spread(len(images), limit)
    step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
    labels = None if images.labels is None else np.asarray(images.labels)[::step]
    return ArrayImages(images[::step], labels, list(images.names[::step]))


def _spread(n: int, limit: int | None) -> Int[np.ndarray, " k"]:
    return np.arange(0, n, 1 if limit is None else max(1, -(-n // limit)))


def of_net(net: Net) -> str:
    """A digest of what a net computes."""
    digest = sha256(f"{net.input_scale} {net.graph.layers} {net.graph.output}".encode())
    for leaf in jax.tree.leaves(net.weights):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _of_images(images: ImageSet) -> str:
    digest = sha256(np.asarray(images.labels).astype(np.int64).tobytes())
    for pixels, _ in images.chunks(1024):
        digest.update(np.ascontiguousarray(np.asarray(pixels, np.float32)).tobytes())
    return digest.hexdigest()


def key_of(settings: Any) -> dict[str, str]:
    """Settings as part of a cell's key."""
    assert is_dataclass(settings)
    own = {each.name: str(getattr(settings, each.name)) for each in fields(settings)}
    return {"kind": type(settings).__name__} | own


# --- Text and figures ------------------------------------------------------------------------------------------------


def _form(row: Row) -> str:
    if row.form == "goodnet":
        return "GoodNet"
    return "B" if row.repair == NONE else "B′"


def _or_none(rate: Rate | None) -> str:
    return NONE if rate is None else str(rate)


def _threshold(row: Row) -> str:
    if row.threshold is None:
        return NONE
    return f"{-row.threshold:.4f} bits" if row.in_bits else f"{row.threshold:.4f}"


def _flat(name: str, rate: Rate | None) -> dict[str, Any]:
    if rate is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high", f"{name}_count", f"{name}_n"))
    low, high = rate.interval
    return {
        name: rate.share,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_count": rate.count,
        f"{name}_n": rate.n,
    }


def _escaped(text: str) -> str:
    """For a cell of a Markdown table: no markup, no HTML."""
    plain = printable(text)
    for letter in ("\\", "|", "`", "*", "_", "[", "]", "<", ">", "#"):
        if letter in ("[", "]") and "%" in plain:
            continue
        plain = plain.replace(letter, {"<": "&lt;", ">": "&gt;"}.get(letter, f"\\{letter}"))
    return plain


def _nets(comparison: Comparison) -> str:
    names = list(dict.fromkeys(row.net for row in comparison.rows))
    return printable(", ".join(names), 80)


def _sizes(of: NetScores) -> str:
    return ", ".join(
        f"{len(next(iter(scores.values()))):,} {name if name == CLEAN else f'with {name}'}"
        for name, scores in of.scores.items()
    )


def _histogram(axes: Any, of: NetScores, detector: str) -> None:
    from jaxdefend.results.plots import _ACCURACY, _ATTACK, _SUREST

    label, entropy = of.drawn[detector]

    def shown(values: Any) -> np.ndarray:
        return np.asarray(np.maximum(-np.asarray(values), _SUREST) if entropy else values)

    threshold = shown(of.thresholds[detector])
    values = {name: shown(scores[detector]) for name, scores in of.scores.items()}
    edges = np.concatenate([*values.values(), threshold[None]])
    bins = np.histogram_bin_edges(np.log10(edges) if entropy else edges, 40)
    for name, colour in zip(values, (_ACCURACY[0], *_ATTACK * 9), strict=False):
        weights = np.full(len(values[name]), 100 / max(1, len(values[name])))
        axes.hist(values[name], 10**bins if entropy else bins, weights=weights, alpha=0.6, color=colour, label=name)
    axes.axvline(float(threshold), color="0.3", linewidth=0.9, linestyle=":", label="threshold")
    axes.set(xlabel=label, ylabel="images, %", xscale="log" if entropy else "linear")
    axes.set_title(printable(detector, 40), loc="left", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
