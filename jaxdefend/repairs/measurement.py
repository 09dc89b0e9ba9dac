"""Clean accuracy and attack success of nets, and of their GoodNet."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from jaxdefend import InputError
from jaxdefend.datasets.images import ImageSet, as_images, labelled, poisoned_sets
from jaxdefend.datasets.triggered import Triggered
from jaxdefend.nets.batches import batches
from jaxdefend.nets.devices import over_processes, own_rows
from jaxdefend.nets.diagnosis import doubts_about_clean, doubts_about_poisoned
from jaxdefend.nets.goodnet import RULES, Rule, goodnet_labels
from jaxdefend.nets.inference import predictions
from jaxdefend.nets.net import Net
from jaxdefend.results.progress import Report, silent
from jaxdefend.results.rates import Rate, clean_rate, defense_effectiveness, named_rate, poisoned_rate
from jaxdefend.results.text import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The net that takes the BadNet's place in the GoodNet, and what the answers of both are called.
B0, GOODNET = "b0", "goodnet"

_TITLES = {"badnet": "BadNet", "b0": "B0", "repaired": "repaired net", "goodnet": "GoodNet"}


@dataclass(frozen=True)
class Answers:
    """What one net says to one set of images.

    Attributes:
        hits: images that are given the label asked for: clean accuracy, or attack success.
        robust: poisoned images that are given their true label, where that is known.
        flagged: of a GoodNet, images that it calls backdoored.
    """

    hits: Rate
    robust: Rate | None = None
    flagged: Rate | None = None


@dataclass(frozen=True, repr=False)
class Measurement:
    """Clean accuracy and attack success of every net, and of their GoodNet.

    Attributes:
        clean: by net; "goodnet" is that of all of them, where there is a repaired net.
        poisoned: by poisoned set, then by net.
        inverted: those of them that are clean images with an inverted trigger on, which was made to mislead a net: that
            it does is no sign of a backdoor.
        notes: what may be wrong with labels or pixels.
    """

    rule: Rule
    clean: Mapping[str, Answers]
    poisoned: Mapping[str, Mapping[str, Answers]]
    notes: tuple[str, ...] = ()
    inverted: tuple[str, ...] = ()

    def record(self) -> dict[str, dict[str, Any]]:
        """By net: what evaluate.json and repair.json hold of it, {"clean": block, "poisoned": {set: block}}."""
        return {
            net: {"clean": _block(clean_rate, self.clean[net]), "poisoned": self._attacks(net)} for net in self.clean
        }

    def _attacks(self, net: str) -> dict[str, dict[str, Any]]:
        return {
            name: _block(poisoned_rate, by_net[net]) | ({"inverted_trigger": True} if name in self.inverted else {})
            for name, by_net in self.poisoned.items()
        }

    def effectiveness(self, net: str) -> dict[str, float]:
        """The defense effectiveness rating of a repaired net, or of the GoodNet, for each poisoned set."""
        before, after = (
            (self.clean[key].hits, {name: by_net[key].hits for name, by_net in self.poisoned.items()})
            for key in (next(iter(self.clean)), net)
        )
        return defense_effectiveness(before, after)

    def table(self, titles: Mapping[str, str] | None = None, clean: str = "clean accuracy") -> str:
        """For people: a row for every set, a column for every net; `titles` says what nets are called, `clean` what
        the row of the clean images is."""
        header = ["", "images", *(self._title(net, titles) for net in self.clean)]
        rows = [_row(clean, self.clean)]
        rows += [
            _row(f"attack success, {name}{' (inverted)' if name in self.inverted else ''}", by_net)
            for name, by_net in self.poisoned.items()
        ]
        return table([*header, "flagged"] if GOODNET in self.clean else header, rows)

    def figure(self, title: str = "") -> "Figure":
        """Clean accuracy and attack success as bars."""
        from jaxdefend.results.plots import rates_figure

        sets = {"clean accuracy": self.clean, **{f"ASR, {name}": nets for name, nets in self.poisoned.items()}}
        nets = {net: self._title(net) for net in self.clean}
        return rates_figure(
            title, {nets[net]: {name: by_net[net].hits for name, by_net in sets.items()} for net in nets}
        )

    def _title(self, net: str, titles: Mapping[str, str] | None = None) -> str:
        numbered = re.sub(r"^repaired_([0-9]+)$", r"repaired net \1", net)
        return {**_TITLES, **(titles or {})}.get(net, numbered)

    def __repr__(self) -> str:
        return self.table()


def _block(named: Any, answers: Answers) -> dict[str, Any]:
    block = named(answers.hits)
    if answers.robust is not None:
        block |= named_rate("robust", answers.robust)
    if answers.flagged is not None:
        block |= named_rate("flagged", answers.flagged)
    return block


def _row(name: str, by_net: Mapping[str, Answers]) -> list[str]:
    flagged = [str(answers.flagged) for answers in by_net.values() if answers.flagged is not None]
    n = next(iter(by_net.values())).hits.n
    return [name, str(n), *(str(answers.hits) for answers in by_net.values()), *flagged]


def measure(
    nets: Mapping[str, Net] | Net,
    clean: Any,
    poisoned: Mapping[str, Any] | None = None,
    *,
    rule: Rule = "goodnet",
    true_labels: Mapping[str, Int[np.ndarray, " n"]] | None = None,
    progress: Report = silent,
) -> Measurement:
    """Clean accuracy and attack success of nets, and of the GoodNet that they make together.

    Args:
        nets: by name, the BadNet first; the others are its repaired nets, of which most decide in the GoodNet. One
            called "b0" has the BadNet's place in it.
        clean: labelled clean images: what `open_images` gives, an array of pixels 0–255 with its labels, …
        poisoned: sets of images with a trigger by name, labelled with the attacker's target.
        rule: "anti" for repaired nets that have kept the backdoor alone: the GoodNet answers N where they agree.
        true_labels: what the images of the poisoned sets really show, where that is known.
    Raises: InputError if images or nets cannot be used, or do not fit together.
    """
    named = {"badnet": nets} if isinstance(nets, Net) else dict(nets)
    badnet = next(iter(named.values()), None)
    if badnet is None or GOODNET in named or next(iter(named)) == B0:
        raise InputError(f"nets {list(named)}: expected the BadNet first, then repaired nets by other names")
    if rule not in RULES:
        raise InputError(f"rule {rule!r}: expected {' or '.join(RULES)}")
    for name, net in named.items():
        if (net.image_shape, net.classes) != (badnet.image_shape, badnet.classes):
            raise InputError(
                f"{name} takes images {net.image_shape} and has {net.classes} classes, the BadNet {badnet.image_shape} "
                f"and {badnet.classes}; expected repaired forms of one net"
            )
    sets = poisoned_sets(poisoned, badnet.image_shape, badnet.classes)
    clean_images = labelled(as_images(clean, badnet.image_shape), "clean images", badnet.classes)

    by_set = {}
    for name, images in sets.items():
        labels = dict(_labels(named, images, name, rule, progress))
        found = _answers(labels, images, _suspected(named))
        if (true := (true_labels or {}).get(name)) is not None:
            robust = _matches(labels, np.asarray(true))
            found = {
                key: Answers(answers.hits, Rate(robust[key], len(images)), answers.flagged)
                for key, answers in found.items()
            }
        by_set[name] = found
    on_clean = _answers(dict(_labels(named, clean_images, "clean", rule, progress)), clean_images, _suspected(named))
    doubts = doubts_about_clean(badnet, clean_images)
    for name, images in sets.items():
        doubts += doubts_about_poisoned(badnet, images, name)
    inverted = tuple(name for name, images in sets.items() if isinstance(images, Triggered))
    return Measurement(rule, on_clean, by_set, doubts, inverted)


def _suspected(nets: Mapping[str, Net]) -> str:
    """The net whose labels the GoodNet gives where it does not answer N."""
    return B0 if B0 in nets else next(iter(nets))


def _labels(
    nets: Mapping[str, Net], images: ImageSet, name: str, rule: Rule, report: Report
) -> Iterator[tuple[str, Int[np.ndarray, " n"]]]:
    """Of this process's part of the images, by each net and by their GoodNet."""
    badnet, *others = nets
    labels = {key: predictions(net, batches(images, name, report))[0] for key, net in nets.items()}
    yield from labels.items()
    if repaired := [labels[key] for key in others if key != B0]:
        suspected = labels[_suspected(nets)]
        yield GOODNET, goodnet_labels(suspected, np.stack(repaired), nets[badnet].classes, rule)


def _answers(labels: Mapping[str, Int[np.ndarray, " n"]], images: ImageSet, suspected: str) -> dict[str, Answers]:
    n = len(images)
    hits = _matches(labels, np.asarray(images.labels))
    found = {key: Answers(Rate(count, n)) for key, count in hits.items()}
    if GOODNET in labels:
        # No other net says N.
        flagged = over_processes(np.asarray((labels[GOODNET] != labels[suspected]).sum()))
        found[GOODNET] = Answers(found[GOODNET].hits, flagged=Rate(int(flagged), n))
    return found


def _matches(labels: Mapping[str, Int[np.ndarray, " n"]], expected: Int[np.ndarray, " n"]) -> dict[str, int]:
    """How many of all images each net gives the label expected, over all processes."""
    own = expected[own_rows(len(expected))]
    counts = np.array([(found == own).sum() for found in labels.values()])
    return dict(zip(labels, over_processes(counts).tolist(), strict=True))
