"""The verdict in plain words, the numbers behind it, and what was not checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxdefend.reports.facts import Defended, Facts
from jaxdefend.results.rates import Rate
from jaxdefend.results.text import printable

# An attack that succeeds on so many of the images works; one that succeeds on so few does not.
WORKS, STOPPED = 0.5, 0.1
# Percentage points of clean accuracy that a repair may cost before the verdict says that it is dear.
_DEAR = 10


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict; `tone` is "bad", "good" or "open"."""

    tone: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """The headline, then what was found about each defense."""

    tone: str
    headline: str
    findings: tuple[Finding, ...]


def verdict(facts: Facts) -> Verdict:
    name = printable(facts.name, 80) or "the net"
    tone, headline = _headline(facts, name)
    findings = [*_attacks(facts), *_audits(facts), *_pruning(facts), *_repairs(facts), *_guard(facts)]
    return Verdict(tone, headline, tuple(findings))


def _headline(facts: Facts, name: str) -> tuple[str, str]:
    tried = facts.badnet.poisoned if facts.badnet else {}
    # That a net is misled by a trigger that was made to mislead it says nothing.
    attacks = {of: rate for of, rate in tried.items() if facts.badnet and of not in facts.badnet.inverted}
    suspected = [audit for audit in facts.audits if _suspects(audit)]
    if attacks:
        working = [of for of, rate in attacks.items() if rate.interval[0] > WORKS]
        idle = [of for of, rate in attacks.items() if rate.interval[1] < STOPPED]
        if working:
            return "bad", f"{name} is backdoored: images with {_listed(working)} get the attacker's answer."
        if len(idle) == len(attacks):
            what = (
                "None of the triggers tried works"
                if len(attacks) > 1
                else f"The trigger {_listed(list(attacks))} does not work"
            )
            if suspected:
                return "bad", f"{what} on {name}, but the audit suspects another backdoor."
            return "good", f"{what} on {name}. Other triggers were not tried."
        return "open", f"A trigger works on some of the images that {name} was shown: this is not decided."
    if suspected:
        return "bad", f"The audit suspects that {name} is backdoored."
    if facts.audits:
        return "good", f"The audit of {name} found no backdoor. No image with a trigger was tried."
    told = "the only triggers were made to mislead it" if tried else "no images with a trigger were given"
    return "open", f"Whether {name} is backdoored was not measured: {told}."


def _attacks(facts: Facts) -> list[Finding]:
    if facts.badnet is None:
        return []
    clean = facts.badnet.clean
    found = [Finding("open", f"It recognises {_share(clean)} of the clean images ({_counts(clean)}).")]
    for name, rate in facts.badnet.poisoned.items():
        tone = "bad" if rate.share >= WORKS else "good" if rate.share < STOPPED else "open"
        what, gets = f"images with {printable(name, 60)}", "get the attacker's target"
        if name in facts.badnet.inverted:
            tone, what, gets = "open", f"{what}, an inverted trigger", "get its class: no proof of a backdoor"
        found.append(Finding(tone, f"Of the {what}, {_share(rate)} {gets} ({_counts(rate)})."))
    return found


def _suspects(audit: Mapping[str, Any]) -> bool:
    return bool(audit.get("suspects")) or audit.get("verdict") == "backdoored"


def _audits(facts: Facts) -> list[Finding]:
    found = []
    for audit in facts.audits:
        suspects = audit.get("suspects") or []
        if suspects:
            classes = ", ".join(
                f"{printable(suspect.get('class'), 20)} (p = {float(suspect['p_value']):.2g})"
                if suspect.get("p_value") is not None
                else printable(suspect.get("class"), 20)
                for suspect in suspects[:8]
            )
            found.append(Finding("bad", f"The audit, which saw no image with a trigger, suspects the class {classes}."))
        elif _suspects(audit):
            found.append(Finding("bad", "The audit found a part of the file or of the graph that makes a backdoor."))
        else:
            found.append(Finding("good", "The audit, which saw no image with a trigger, found nothing."))
    return found


def _pruning(facts: Facts) -> list[Finding]:
    sweep = facts.sweep
    if sweep is None or not sweep["attack_success"] or not sweep["repairs"]:
        return []
    if max(shares[0] for shares in sweep["attack_success"].values()) < STOPPED:
        return []
    for drop in sweep["repairs"]:
        highest = max(float(share) for share in drop["goodnet"]["attack_success"].values())
        if highest <= STOPPED:
            accuracy = float(drop["goodnet"]["test_accuracy"])
            dear = 100 * (float(sweep["test_accuracy"][0]) - accuracy) > _DEAR
            text = (
                f"Pruning alone stops the attack at drop {drop['drop']} ({drop['pruned']} of {len(sweep['order'])} "
                f"channels): the GoodNet's attack success is {100 * highest:.1f} %, its clean accuracy "
                f"{100 * accuracy:.1f} %."
            )
            return [Finding("open" if dear else "good", text)]
    last = sweep["repairs"][-1]
    highest = max(float(share) for share in last["goodnet"]["attack_success"].values())
    text = (
        f"Pruning alone does not stop the attack: even at drop {last['drop']} it succeeds on {100 * highest:.1f} %, "
        f"with {100 * float(last['goodnet']['test_accuracy']):.1f} % clean accuracy left."
    )
    return [Finding("bad", text)]


def _repairs(facts: Facts) -> list[Finding]:
    return [_repair(facts, each) for each in facts.repairs if each.goodnet or each.own]


def _repair(facts: Facts, each: Defended) -> Finding:
    name = printable(each.name, 60)
    after, what = (each.goodnet, "GoodNet of net and repaired net") if each.goodnet else (each.own, "repaired net")
    assert after is not None
    before = facts.badnet
    cost = 0.0 if before is None else 100 * (before.clean.share - after.clean.share)
    costs = f"clean accuracy {100 * after.clean.share:.1f} %"
    if before is not None:
        change = "no change" if abs(cost) < 0.005 else f"{abs(cost):.1f} points {'less' if cost > 0 else 'more'}"
        costs += f", {change}"
    if not after.poisoned:
        return Finding("open", f"Repair {name}: {costs} for the {what}. No images with a trigger were given.")
    changes = []
    for of, rate in after.poisoned.items():
        first = before.poisoned.get(of) if before else None
        fall = f"from {100 * first.share:.1f} to " if first and first != rate else "still " if first else ""
        changes.append(f"with {printable(of, 40)} {fall}{100 * rate.share:.1f} %")
    highest = max(rate.share for rate in after.poisoned.values())
    tone = "bad" if highest >= WORKS else "good" if highest <= STOPPED and cost <= _DEAR else "open"
    does = (
        "stops the attack"
        if highest <= STOPPED
        else "does not stop the attack"
        if tone == "bad"
        else "weakens the attack"
    )
    return Finding(tone, f"Repair {name} {does}: attack success {'; '.join(changes)}; {costs} ({what}).")


def _guard(facts: Facts) -> list[Finding]:
    if facts.detect is None:
        return []
    name = str(facts.detect["default"])
    found = facts.detect["detectors"][name]
    rejected = (
        f"The guard ({printable(name, 40)}) rejects {100 * float(found['frr_measured']):.1f} % of the clean images"
    )
    attacks = found["guarded"]["poisoned"]
    if not attacks:
        return [Finding("open", f"{rejected}.")]
    left = {of: float(block["attack_success"]) for of, block in attacks.items()}
    told = "; ".join(f"{100 * share:.1f} % with {printable(of, 40)}" for of, share in left.items())
    highest = max(left.values())
    tone = "bad" if highest >= WORKS else "good" if highest <= STOPPED else "open"
    return [Finding(tone, f"{rejected}; behind it the attack succeeds on {told}.")]


def numbers(facts: Facts) -> list[tuple[str, str, Rate]]:
    """What stands behind the verdict: who, what, and the rate."""
    found: list[tuple[str, str, Rate]] = []

    def add(who: str, block: Any) -> None:
        found.append((who, "clean accuracy", block.clean))
        found.extend((who, f"attack success, {name}", rate) for name, rate in block.poisoned.items())
        if block.flagged is not None:
            found.append((who, "clean images called backdoored", block.flagged))

    if facts.badnet is not None:
        add("net as it is", facts.badnet)
    for each in facts.repairs:
        if each.own is not None:
            add(f"repaired: {each.name}", each.own)
        if each.goodnet is not None:
            add(f"GoodNet: {each.name}", each.goodnet)
    if facts.detect is not None:
        name = str(facts.detect["default"])
        guarded = facts.detect["detectors"][name]["guarded"]
        who = f"guarded by {name}"
        found.append((who, "clean accuracy", Rate(int(guarded["clean"]["correct"]), int(guarded["clean"]["n"]))))
        found.extend(
            (who, f"attack success, {of}", Rate(int(block["hits"]), int(block["n"])))
            for of, block in guarded["poisoned"].items()
        )
    return found


def unchecked(facts: Facts, notes: Mapping[str, bool] | None = None) -> list[str]:
    """What a reader may think was checked, and was not.

    Args:
        notes: "synthetic": whether the images are drawn ones.
    """
    notes = notes or {}
    found = []
    has_attacks = bool(facts.badnet and facts.badnet.poisoned)
    if notes.get("synthetic"):
        found.append(
            "Real photographs: all images here are synthetic faces. Rates on them say nothing about rates on real ones."
        )
    if not has_attacks:
        found.append("Images with a trigger: none were given, so that attack success was not measured.")
    else:
        names = ", ".join(printable(name, 40) for name in facts.badnet.poisoned) if facts.badnet else ""
        found.append(f"Other triggers and other target classes than those of the images given ({names}).")
    if not facts.audits:
        found.append("Backdoors whose trigger nobody knows: no audit is part of this report.")
    if facts.sweep is None:
        found.append("The pruning curve.")
    else:
        found.append(f"Pruning at other layers than {printable(facts.sweep['layer'], 60)}, and in other orders.")
        if facts.sweep["valid_accuracy"] == facts.sweep["test_accuracy"]:
            found.append(
                "Clean images that nothing was chosen by: order and drops go by the same images on which the accuracy "
                "of the curve is measured, which makes it look better than it is."
            )
    if not facts.repairs:
        found.append("Repaired nets other than those of the pruning curve.")
    for each in facts.repairs:
        if each.measured_on == "valid":
            found.append(f"The repair {printable(each.name, 40)} on images that it was not made with.")
    if facts.detect is None:
        found.append("A guard on its own images: none was evaluated." if facts.guard else "A guard: none was given.")
    elif not facts.detect["detectors"][facts.detect["default"]]["poisoned"]:
        found.append("The guard on images with a trigger.")
    if has_attacks and facts.badnet and max(rate.n for rate in facts.badnet.poisoned.values()) < 1000:
        found.append("More images: with so few, the intervals are wide; read them rather than the shares.")
    found.append("An attacker who knows these defenses and trains against them.")
    found.append("What else may be in the model file than the layers and arrays listed under “The net”.")
    return found


def _listed(names: list[str]) -> str:
    shown = [printable(name, 40) for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def _share(rate: Rate) -> str:
    return f"{100 * rate.share:.1f} %"


def _counts(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.count:,} of {rate.n:,}; 95 % interval {100 * low:.1f}–{100 * high:.1f} %"
