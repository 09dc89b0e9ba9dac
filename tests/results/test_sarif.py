"""SARIF logs, held against the specification's required and allowed properties."""

import json
import re
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import unquote

import pytest

from jaxdefend.results.sarif import SarifResult, SarifRule, sarif

TARGET = SarifRule("target-class", "A class answers to a trigger.", "Repair the net before it is used.")
STATE = SarifRule("optimizer-state", "The file holds the state of a training.", "It can be left out.")
ONE, OTHER = 64 * "a", 64 * "b"

RESULTS = [
    SarifResult(TARGET, "error", "class 5 answers to a patch", "nets/a b#1.h5", ONE, "class 5"),
    SarifResult(TARGET, "error", "class 8 answers to a patch", "nets/a b#1.h5", ONE, "class 8"),
    SarifResult(STATE, "note", "17 arrays of the optimizer's state", "other.h5", OTHER),
]

# Of the objects that are written: properties by section of SARIF 2.1.0, those that are required with a star.
ALLOWED = {
    "log": "version* $schema runs* inlineExternalProperties properties",  # 3.13
    "run": "tool* artifacts results invocations columnKind properties",  # 3.14
    "tool": "driver* extensions properties",  # 3.18
    "driver": "name* version semanticVersion informationUri rules properties",  # 3.19
    "rule": "id* name shortDescription fullDescription help helpUri defaultConfiguration properties",  # 3.49
    "text": "text* markdown",  # 3.11, 3.12
    "artifact": "location roles hashes length mimeType properties",  # 3.24
    "artifactLocation": "uri uriBaseId index description",  # 3.4
    "result": "ruleId ruleIndex kind level message* locations partialFingerprints fingerprints properties",  # 3.27
    "location": "id physicalLocation logicalLocations message",  # 3.28
    "physicalLocation": "artifactLocation region",  # 3.29
    "logicalLocation": "name fullyQualifiedName kind",  # 3.33
}


def check(kind: str, value: dict) -> dict:
    names = ALLOWED[kind].split()
    assert value.keys() <= {name.strip("*") for name in names}, kind
    assert value.keys() >= {name[:-1] for name in names if name.endswith("*")}, kind
    return value


def checked(log: dict) -> dict:
    """The run of a log, of which every object is as specified."""
    assert json.loads(json.dumps(log)) == log
    assert check("log", log)["version"] == "2.1.0" and len(log["runs"]) == 1
    run = check("run", log["runs"][0])
    driver = check("driver", check("tool", run["tool"])["driver"])
    for rule in driver["rules"]:
        check("text", check("rule", rule)["shortDescription"])
        check("text", rule["help"])
    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"])
    for artifact in run["artifacts"]:
        uri = check("artifactLocation", check("artifact", artifact)["location"])["uri"]
        # RFC 3986: a path without a scheme, or a file URI.
        assert re.fullmatch(r"(file://)?([A-Za-z0-9._~/-]|%[0-9A-F]{2})+", uri)
        assert artifact["roles"] == ["analysisTarget"]
        assert re.fullmatch("[0-9a-f]{64}", artifact["hashes"]["sha-256"])
    for result in run["results"]:
        check("text", check("result", result)["message"])
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert (result["kind"] == "fail") == (result["level"] != "none")
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        for location in result["locations"]:
            place = check("physicalLocation", check("location", location)["physicalLocation"])["artifactLocation"]
            check("artifactLocation", place)
            assert run["artifacts"][place["index"]]["location"]["uri"] == place["uri"]
            for logical in location.get("logicalLocations", []):
                check("logicalLocation", logical)
    return run


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
