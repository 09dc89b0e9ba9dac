"""SARIF logs, held against the official schema, of which `pydantic_sarif` is made."""

import json
import re
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import unquote

import pytest
from pydantic import ValidationError
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Log

from jaxdefend.results.sarif import SarifResult, SarifRule, sarif

TARGET = SarifRule("target-class", "A class answers to a trigger.", "Repair the net before it is used.")
STATE = SarifRule("optimizer-state", "The file holds the state of a training.", "It can be left out.")
ONE, OTHER = 64 * "a", 64 * "b"

RESULTS = [
    SarifResult(TARGET, "error", "class 5 answers to a patch", "nets/a b#1.h5", ONE, "class 5"),
    SarifResult(TARGET, "error", "class 8 answers to a patch", "nets/a b#1.h5", ONE, "class 8"),
    SarifResult(STATE, "note", "17 arrays of the optimizer's state", "other.h5", OTHER),
]


def checked(log: dict) -> dict:
    """The run of a log that is as the schema says, and of which the parts fit together."""
    assert json.loads(json.dumps(log)) == log
    Log.model_validate(log)
    assert len(log["runs"]) == 1
    run = log["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    for artifact in run["artifacts"]:
        # RFC 3986: a path without a scheme, or a file URI.
        assert re.fullmatch(r"(file://)?([A-Za-z0-9._~/-]|%[0-9A-F]{2})+", artifact["location"]["uri"])
        assert re.fullmatch("[0-9a-f]{64}", artifact["hashes"]["sha-256"])
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert (result["kind"] == "fail") == (result["level"] != "none")
        for location in result["locations"]:
            place = location["physicalLocation"]["artifactLocation"]
            assert run["artifacts"][place["index"]]["location"]["uri"] == place["uri"]
    return run


@pytest.mark.parametrize("where", ["run", "result", "level"])
def test_the_schema_refuses_what_it_does_not_know(where):
    log = sarif(RESULTS, "1.2.3")
    run = log["runs"][0]
    changed = {"run": run, "result": run["results"][0], "level": run["results"][0]}[where]
    changed["level" if where == "level" else "colour"] = "red"
    with pytest.raises(ValidationError):
        Log.model_validate(log)


def test_a_log():
    run = checked(sarif(RESULTS, "1.2.3"))
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("jaxdefend", "1.2.3")
    assert [rule["id"] for rule in driver["rules"]] == ["target-class", "optimizer-state"]
    assert driver["rules"][0]["help"] == {"text": TARGET.help}
    assert [artifact["hashes"]["sha-256"] for artifact in run["artifacts"]] == [ONE, OTHER]
    assert [result["message"]["text"] for result in run["results"]] == [result.message for result in RESULTS]
    assert run["results"][1]["locations"][0]["logicalLocations"] == [{"fullyQualifiedName": "class 8"}]
    assert "logicalLocations" not in run["results"][2]["locations"][0]


def test_nothing_found_is_a_log_too():
    run = checked(sarif([], "1.2.3"))
    assert run["results"] == [] and run["tool"]["driver"]["rules"] == []


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("net.h5", "net.h5"),
        ("nets/a b#1%.h5", "nets/a%20b%231%25.h5"),
        ("./nets/é.h5", "nets/%C3%A9.h5"),
        ("c:net.h5", "c%3Anet.h5"),
        ("bad\udcff.h5", "bad%FF.h5"),
        (PureWindowsPath("nets\\net.h5"), "nets/net.h5"),
        (PurePosixPath("/nets/a b.h5"), "file:///nets/a%20b.h5"),
    ],
)
def test_paths_are_uris(path, uri):
    run = checked(sarif([SarifResult(TARGET, "warning", "found", path, ONE)], "1"))
    assert run["artifacts"][0]["location"]["uri"] == uri
    if isinstance(path, str) and path.isascii():
        assert unquote(uri) == path


def test_fingerprints_follow_what_was_found_and_not_where_the_file_lies():
    def fingerprint(**changed):
        given = {"rule": TARGET, "path": "a.h5", "sha256": ONE, "where": "class 5"} | changed
        (result,) = sarif([SarifResult(level="error", message="found", **given)], "1")["runs"][0]["results"]
        return result["partialFingerprints"]

    assert fingerprint() == fingerprint(path="elsewhere/b.h5")
    others = [fingerprint(rule=STATE), fingerprint(sha256=OTHER), fingerprint(where="class 8")]
    assert fingerprint() not in others and len({str(other) for other in others}) == 3
