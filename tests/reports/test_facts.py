"""Results under one roof: typed ones and those of files say the same."""

import dataclasses
import json

import pytest
from small import small_net

from jaxdefend import InputError
from jaxdefend.reports import read_saved
from jaxdefend.reports.facts import block, gathered, plain
from jaxdefend.reports.verdict import numbers, verdict
from jaxdefend.results.rates import Rate
from jaxdefend.results.records import write_csv, write_json


def head(made, command="python -m jaxdefend.sweep"):
    return {"schema": 1, "command": command, "model": dataclasses.asdict(made.net.source), "seed": 0}


def test_files_say_what_the_results_say(made, tmp_path):
    write_json(tmp_path / "sweep.json", head(made) | made.sweep.record())
    measured = made.measurement.record()
    repair = made.repair.record() | {"badnet": measured["badnet"], "repaired": measured["repaired"]}
    write_json(tmp_path / "repair.json", head(made) | repair | {"goodnet": measured["goodnet"]})
    write_json(tmp_path / "detect.json", head(made) | made.evaluation.record())
    write_csv(tmp_path / "detect.csv", made.evaluation.columns())
    write_json(tmp_path / "guard.json", head(made) | made.guard.record())
    typed = gathered([made.sweep, made.repair, made.measurement, made.guard, made.evaluation])
    saved = gathered(read_saved([tmp_path]))
    assert verdict(typed).headline == verdict(saved).headline
    assert {(what, rate) for _, what, rate in numbers(typed)} == {(what, rate) for _, what, rate in numbers(saved)}
    assert plain(typed.sweep).items() <= json.loads(json.dumps(saved.sweep)).items()
    assert [origin.part for origin in saved.origins] == ["sweep", "repair", "guard", "detect"]


def test_evaluate_and_audit(made, tmp_path):
    measured = made.measurement.record()
    record = head(made) | measured["badnet"] | {"repaired": measured["repaired"], "goodnet": measured["goodnet"]}
    write_json(tmp_path / "evaluate.json", record)
    audit = {"verdict": "backdoored", "suspects": [{"class": 1, "p_value": 0.01, "success": 0.9, "interval": [0.8, 1]}]}
    write_json(tmp_path / "audit.json", head(made) | audit)
    facts = gathered(read_saved([tmp_path]))
    assert facts.badnet and facts.repairs[0].goodnet and facts.audits[0]["verdict"] == "backdoored"


def test_the_first_point_of_the_curve_stands_in_for_a_measurement(made):
    facts = gathered([made.sweep])
    assert facts.badnet and facts.badnet.clean == made.measurement.clean["badnet"].hits


def test_blocks():
    found = block({"clean": {"n": 3, "correct": 2, "flagged_count": 1}, "poisoned": {"a": {"n": 2, "hits": 0}}})
    assert (found.clean, found.poisoned, found.flagged) == (Rate(2, 3), {"a": Rate(0, 2)}, Rate(1, 3))
    with pytest.raises(ValueError):
        block({"clean": {"n": 3, "correct": 4}})


def test_what_a_report_cannot_show(made, tmp_path):
    with pytest.raises(InputError, match="not a result"):
        gathered(["sweep.json"])
    with pytest.raises(InputError, match="hand in a gallery"):
        gathered([made.answers["clean"]])
    other = dataclasses.replace(made.sweep, net=small_net())
    assert gathered([other, made.sweep]).name == made.net.name
    write_json(
        tmp_path / "sweep.json", head(made) | {"model": {"name": "a", "sha256": "cd" * 32}} | made.sweep.record()
    )
    with pytest.raises(InputError, match="different nets"):
        gathered([made.guard, *read_saved([tmp_path])])


@pytest.mark.parametrize("missing", ["order", "attack_success", "n", "valid_accuracy"])
def test_a_file_that_lacks_something_is_named(made, tmp_path, missing):
    record = head(made) | made.sweep.record()
    del record[missing]
    write_json(tmp_path / "sweep.json", record)
    with pytest.raises(InputError, match=r"sweep\.json"):
        gathered(read_saved([tmp_path]))
