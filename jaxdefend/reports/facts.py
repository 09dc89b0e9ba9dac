"""What a report knows: the results handed in, typed or from files, under one roof."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxdefend import InputError
from jaxdefend.detectors.answering import Answers
from jaxdefend.detectors.base import module_of
from jaxdefend.detectors.evaluation import CLEAN, Evaluation
from jaxdefend.detectors.guards import Guard
from jaxdefend.nets.net import Net
from jaxdefend.repairs.base import Repair
from jaxdefend.repairs.measurement import Measurement
from jaxdefend.repairs.sweeping import Sweep
from jaxdefend.reports.activations import Activations
from jaxdefend.reports.along import Walk
from jaxdefend.reports.comparison import Comparison
from jaxdefend.reports.confusions import Confusions
from jaxdefend.reports.demonstrations import Demonstration
from jaxdefend.reports.gallery import Gallery
from jaxdefend.reports.samples import Samples
from jaxdefend.reports.saved import Saved
from jaxdefend.reports.summary import Summary, summarise
from jaxdefend.results.rates import Rate
from jaxdefend.results.text import printable

BADNET, REPAIRED, GOODNET = "badnet", "repaired", "goodnet"


@dataclass(frozen=True)
class Block:
    """Clean accuracy and attack success of one net; `flagged` where it is a GoodNet; `inverted` are the poisoned sets
    under an inverted trigger."""

    clean: Rate
    poisoned: Mapping[str, Rate]
    flagged: Rate | None = None
    flagged_poisoned: Mapping[str, Rate] = field(default_factory=dict)
    der: Mapping[str, float] = field(default_factory=dict)
    inverted: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Defended:
    """A repaired net: what it is called, how it was made, and what it does."""

    name: str
    method: str
    settings: Mapping[str, Any]
    own: Block | None
    goodnet: Block | None
    history: Sequence[Any] = ()
    notes: Sequence[str] = ()
    measured_on: str = ""


@dataclass(frozen=True)
class Origin:
    """Where the numbers of a part come from."""

    part: str
    command: str
    file: str
    model: str
    sha256: str
    seed: str
    versions: str
    device: str
    seconds: str


@dataclass
class Facts:
    """Everything a page is made of; what is None or empty was not there."""

    name: str = ""
    sha256: str = ""
    input_scale: str | None = None
    badnet: Block | None = None
    sweep: Mapping[str, Any] | None = None
    walk: Walk | None = None
    repairs: list[Defended] = field(default_factory=list)
    guard: Mapping[str, Any] | None = None
    detect: Mapping[str, Any] | None = None
    # {set: {detector: scores}}, of poisoned sets where the attack succeeds.
    scores: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    activations: list[Activations] = field(default_factory=list)
    samples: Samples | None = None
    gallery: Gallery | None = None
    confusions: Confusions | None = None
    summary: Summary | None = None
    demonstrations: list[Demonstration] = field(default_factory=list)
    audits: list[Mapping[str, Any]] = field(default_factory=list)
    comparison: Comparison | Mapping[str, Any] | None = None
    origins: list[Origin] = field(default_factory=list)

    @property
    def classes(self) -> int | None:
        for of in (self.walk, self.summary):
            if of is not None:
                return of.classes
        return None if self.gallery is None else self.gallery.backdoored


def gathered(results: Sequence[object]) -> Facts:
    """Raises: InputError for what a report cannot show, or for results of different nets."""
    facts = Facts()
    for result in results:
        if isinstance(result, Saved):
            try:
                _add_saved(facts, result)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as error:
                if isinstance(error, InputError):
                    raise
                told = f"{printable(error, 80)} is missing or wrong"
                raise InputError(f"{printable(result.path, 200)}: not what {result.kind} writes ({told})") from error
        else:
            _add(facts, result)
    if facts.badnet is None and facts.sweep is not None:
        facts.badnet = _of_sweep(facts.sweep)
    return facts


def _is_of(facts: Facts, name: str, sha256: str | None, scale: str | None) -> None:
    if facts.sha256 and sha256 and facts.sha256 != sha256:
        raise InputError(
            f"results of different nets: {printable(facts.name, 80)} ({facts.sha256[:12]}…) and {printable(name, 80)} "
            f"({printable(sha256, 12)}…); a report is about one net"
        )
    facts.sha256 = facts.sha256 or (sha256 or "")
    facts.name = facts.name if facts.name not in ("", "net") else name
    facts.input_scale = facts.input_scale or scale


def _add(facts: Facts, result: object) -> None:
    match result:
        case Net():
            _of_net(facts, result)
            facts.summary = facts.summary or summarise(result)
        case Summary():
            _is_of(facts, result.name, result.sha256, result.input_scale)
            facts.summary = result
        case Sweep():
            _of_net(facts, result.net)
            facts.sweep = plain(result.record())
        case Walk():
            facts.walk = result
        case Repair():
            facts.repairs.append(
                Defended(result.method, result.method, plain(result.chosen), None, None, result.history, result.notes)
            )
        case Measurement():
            _add_measurement(facts, plain(result.record()))
        case Guard():
            _of_net(facts, result.net)
            facts.guard = plain(result.record())
        case Evaluation():
            _of_net(facts, result.guard.net)
            facts.guard = facts.guard or plain(result.guard.record())
            facts.detect = plain(result.record())
            facts.scores = {
                of: {
                    name: np.asarray(values if of == CLEAN else values[result.correct[of]], float)
                    for name, values in by_detector.items()
                }
                for of, by_detector in result.scores.items()
            }
        case Activations():
            facts.activations.append(result)
        case Samples():
            facts.samples = result
        case Gallery():
            facts.gallery = result
        case Confusions():
            facts.confusions = result
        case Demonstration():
            facts.demonstrations.append(result)
        case Comparison():
            facts.comparison = result
        case Answers():
            raise InputError("answers alone are not shown; hand in a gallery made of them, see reports.collect")
        case _ if hasattr(result, "suspects") and hasattr(result, "record"):
            facts.audits.append(plain(result.record()))  # type: ignore[attr-defined]
        case _:
            raise InputError(f"{type(result).__name__}: not a result that a report can show")


def _of_net(facts: Facts, net: Net) -> None:
    _is_of(facts, net.name, net.source.sha256 if net.source else None, net.input_scale)


def _add_measurement(facts: Facts, record: Mapping[str, Any]) -> None:
    """Of the BadNet first, then of its repaired nets; with several of these, the GoodNet is that of all."""
    names = list(record)
    facts.badnet = block(record[names[0]])
    others = [name for name in names[1:] if name not in (GOODNET, "b0")]
    for name in others:
        goodnet = block(record[GOODNET]) if len(others) == 1 and GOODNET in record else None
        waiting = next((each for each in facts.repairs if each.own is None), None)
        if waiting is not None and len(others) == 1:
            facts.repairs.remove(waiting)
            facts.repairs.append(
                Defended(
                    waiting.name,
                    waiting.method,
                    waiting.settings,
                    block(record[name]),
                    goodnet,
                    waiting.history,
                    waiting.notes,
                )
            )
        else:
            facts.repairs.append(
                Defended(re.sub(r"^repaired_(\d+)$", r"repaired net \1", name), "", {}, block(record[name]), goodnet)
            )
    if len(others) > 1 and GOODNET in record:
        facts.repairs.append(Defended("all of them, by vote", "", {}, None, block(record[GOODNET])))


def _add_saved(facts: Facts, saved: Saved) -> None:
    record = saved.record
    model = record.get("model") or {}
    _is_of(facts, str(model.get("name", "")), model.get("sha256"), record.get("input_scale"))
    facts.origins.append(origin(saved.kind, record, str(saved.path)))
    match saved.kind:
        case "sweep":
            channels = len(record["order"])
            for key in ("valid_accuracy", "test_accuracy", *record["attack_success"]):
                shares = record[key] if key in record else record["attack_success"][key]
                if len(shares) != channels + 1:
                    raise ValueError(key)
            facts.sweep, _ = record, _of_sweep(record)
        case "evaluate":
            facts.badnet = block(record)
            for name in [key for key in record if key.startswith("repaired")]:
                alone = sum(key.startswith("repaired") for key in record) == 1
                goodnet = block(record[GOODNET]) if alone else None
                title = str((record[name].get("model") or {}).get("name", name))
                facts.repairs.append(Defended(title, "", {}, block(record[name]), goodnet))
        case "repair":
            facts.badnet = facts.badnet or block(record[BADNET])
            facts.repairs.append(
                Defended(
                    str(record["method"]),
                    str(record["method"]),
                    dict(record["settings"]),
                    block(record[REPAIRED]),
                    block(record[GOODNET]),
                    measured_on=str(record.get("measured_on", "")),
                )
            )
        case "detect":
            facts.detect = record
            facts.scores = saved.scores()
        case "guard":
            facts.guard = record
        case "audit":
            facts.audits.append(record)
        case "compare":
            facts.comparison = record


def block(record: Mapping[str, Any]) -> Block:
    """Of what the result files hold of one net."""

    def rate(of: Mapping[str, Any], count: str) -> Rate:
        found = Rate(int(of[count]), int(of["n"]))
        if not 0 <= found.count <= found.n or found.n < 1:
            raise ValueError(count)
        return found

    poisoned = record.get("poisoned") or {}
    flagged = record["clean"].get("flagged_count")
    return Block(
        rate(record["clean"], "correct"),
        {str(name): rate(of, "hits") for name, of in poisoned.items()},
        None if flagged is None else rate(record["clean"], "flagged_count"),
        {str(name): rate(of, "flagged_count") for name, of in poisoned.items() if "flagged_count" in of},
        {str(name): float(value) for name, value in (record.get("der") or {}).items()},
        frozenset(str(name) for name, of in poisoned.items() if of.get("inverted_trigger")),
    )


def _of_sweep(sweep: Mapping[str, Any]) -> Block:
    """The BadNet is the first point of the curve."""
    n = sweep["n"]

    def rate(shares: Sequence[float], size: int) -> Rate:
        return Rate(round(float(shares[0]) * size), size)

    attacks = {name: rate(shares, n["poisoned"][name]) for name, shares in sweep["attack_success"].items()}
    return Block(rate(sweep["test_accuracy"], n["test"]), attacks)


def origin(part: str, record: Mapping[str, Any], file: str = "") -> Origin:
    """From the head of a result file."""
    model, device = record.get("model") or {}, record.get("device") or {}
    versions = record.get("versions") or {}
    return Origin(
        part,
        str(record.get("command", "from Python")),
        file,
        str(model.get("name", "")),
        str(model.get("sha256", "")),
        "" if record.get("seed") is None else str(record["seed"]),
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"{device.get('count', '')} × {device.get('kind', '')}" if device else "",
        "" if record.get("seconds") is None else f"{float(record['seconds']):.1f}",
    )


def plain(value: Any) -> Any:
    """A record with lists and numbers in place of arrays, and texts as keys."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, range | tuple | list):
        return [plain(inner) for inner in value]
    return value


def drawn(detector: str) -> tuple[str, bool]:
    """What a detector's score is, and whether it is an entropy's negative."""
    from jaxdefend.detectors import DETECTORS

    if detector not in DETECTORS:
        return "score", False
    module = module_of(DETECTORS[detector]())
    return module.LABEL, getattr(module, "NEGATED", False)
