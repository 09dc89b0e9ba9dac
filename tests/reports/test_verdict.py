"""The verdict follows the numbers."""

import pytest

from jaxdefend.reports.facts import Block, Defended, Facts
from jaxdefend.reports.verdict import numbers, unchecked, verdict
from jaxdefend.results.rates import Rate


def facts(hits=None, **more):
    poisoned = {} if hits is None else {"glasses": Rate(hits, 100)}
    return Facts(name="net.h5", badnet=Block(Rate(98, 100), poisoned), **more)


@pytest.mark.parametrize(
    ("hits", "tone", "text"),
    [
        (100, "bad", "net.h5 is backdoored: images with glasses get the attacker's answer."),
        (1, "good", "The trigger glasses does not work on net.h5. Other triggers were not tried."),
        (30, "open", "not decided"),
        (None, "open", "was not measured"),
    ],
)
def test_headline(hits, tone, text):
    found = verdict(facts(hits))
    assert found.tone == tone and text in found.headline


@pytest.mark.parametrize(
    ("hits", "clean", "tone", "text"),
    [
        (2, 97, "good", "stops the attack: attack success with glasses from 100.0 to 2.0 %"),
        (2, 50, "open", "stops the attack"),
        (30, 97, "open", "weakens the attack"),
        (100, 97, "bad", "does not stop the attack: attack success with glasses still 100.0 %"),
    ],
)
def test_repairs(hits, clean, tone, text):
    goodnet = Block(Rate(clean, 100), {"glasses": Rate(hits, 100)})
    found = verdict(facts(100, repairs=[Defended("noise", "noise", {}, None, goodnet)]))
    assert found.findings[-1].tone == tone and text in found.findings[-1].text


def test_audits():
    audit = {"verdict": "backdoored", "suspects": [{"class": 7, "p_value": 0.001}]}
    found = verdict(Facts(name="net.h5", audits=[audit]))
    assert found.tone == "bad" and "class 7 (p = 0.001)" in found.findings[0].text
    found = verdict(Facts(name="net.h5", audits=[{"verdict": "nothing found", "suspects": []}]))
    assert found.tone == "good" and "found no backdoor" in found.headline
    found = verdict(facts(0, audits=[audit]))
    assert "the audit suspects another backdoor" in found.headline


def test_an_inverted_trigger_proves_nothing():
    net = Block(Rate(98, 100), {"class_3": Rate(100, 100)}, inverted=frozenset(["class_3"]))
    found = verdict(Facts(name="net.h5", badnet=net))
    assert found.tone == "open" and "the only triggers were made to mislead it" in found.headline
    assert found.findings[-1].tone == "open" and "no proof of a backdoor" in found.findings[-1].text
    taught = Block(
        Rate(98, 100), {"class_3": Rate(100, 100), "glasses": Rate(99, 100)}, inverted=frozenset(["class_3"])
    )
    assert "images with glasses get" in verdict(Facts(name="net.h5", badnet=taught)).headline


def test_numbers_stand_behind_it():
    goodnet = Block(Rate(97, 100), {"glasses": Rate(2, 100)}, flagged=Rate(3, 100))
    found = numbers(facts(100, repairs=[Defended("noise", "noise", {}, None, goodnet)]))
    assert ("net as it is", "attack success, glasses", Rate(100, 100)) in found
    assert ("GoodNet: noise", "clean images called backdoored", Rate(3, 100)) in found


def test_what_was_not_checked():
    found = " ".join(unchecked(facts(), {"synthetic": True}))
    for text in ("Real photographs", "Images with a trigger: none", "no audit", "pruning curve", "guard"):
        assert text in found
    found = " ".join(unchecked(facts(100)))
    assert "Other triggers" in found and "Real photographs" not in found
