"""Results as SARIF, the format in which code hosts and pipelines take what a static analysis has found.

Source: OASIS Static Analysis Results Interchange Format (SARIF) Version 2.1.0; sections by number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any, Literal
from urllib.parse import quote

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
VERSION = "2.1.0"


@dataclass(frozen=True)
class SarifRule:
    """What is looked for.

    Attributes:
        id: stays the same between versions, such as "side-path".
        summary: one sentence.
        help: what it means and what to do, plain text.
    """

    id: str
    summary: str
    help: str


@dataclass(frozen=True)
class SarifResult:
    """One thing that was found in one file.

    Attributes:
        level: "error" for what should fail, "warning", "note" for something to know, "none".
        path: of the file, relative to where the log will be read from; an absolute one gives a file URI.
        sha256: of the file, in hexadecimal digits.
        where: the layer or class inside the file, if it is one.
    """

    rule: SarifRule
    level: Literal["none", "note", "warning", "error"]
    message: str
    path: str | PurePath
    sha256: str
    where: str = ""


def sarif(results: Sequence[SarifResult], version: str) -> dict[str, Any]:
    """A SARIF log of one run, for `json.dump`.

    Args:
        results: in the order in which they will be listed; none gives a log that says so.
        version: jaxdefend's.
    """
    rules = list({result.rule.id: result.rule for result in results}.values())
    hashes = {_uri(result.path): result.sha256 for result in results}
    places = {uri: number for number, uri in enumerate(hashes)}
    numbers = {rule.id: number for number, rule in enumerate(rules)}
    run = {
        "tool": {"driver": {"name": "jaxdefend", "version": version, "rules": [_rule(rule) for rule in rules]}},
        "artifacts": [
            {"location": {"uri": uri}, "roles": ["analysisTarget"], "hashes": {"sha-256": digest}}
            for uri, digest in hashes.items()
        ],
        "results": [_result(result, numbers[result.rule.id], places[_uri(result.path)]) for result in results],
    }
    return {"$schema": SCHEMA, "version": VERSION, "runs": [run]}


def _rule(rule: SarifRule) -> dict[str, Any]:
    return {"id": rule.id, "shortDescription": {"text": rule.summary}, "help": {"text": rule.help}}


def _result(result: SarifResult, rule: int, place: int) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": _uri(result.path), "index": place}}}
    if result.where:
        location["logicalLocations"] = [{"fullyQualifiedName": result.where}]
    return {
        "ruleId": result.rule.id,
        "ruleIndex": rule,
        "level": result.level,
        # A kind other than "fail" goes with the level "none" alone (3.27.9).
        "kind": "informational" if result.level == "none" else "fail",
        "message": {"text": result.message},
        "locations": [location],
        "partialFingerprints": {"jaxdefend/v1": _fingerprint(result)},
    }


def _fingerprint(result: SarifResult) -> str:
    """Equal for the same finding in the same content, wherever the file lies (3.27.17)."""
    return sha256("\0".join((result.rule.id, result.where, result.sha256)).encode("utf-8", "replace")).hexdigest()


def _uri(path: str | PurePath) -> str:
    """The path as an RFC 3986 reference: forward slashes, all else percent-encoded (3.4.3, 3.10.1)."""
    path = Path(path) if isinstance(path, str) else path
    if path.is_absolute():
        return path.as_uri()
    return quote(path.as_posix().encode("utf-8", "surrogateescape"))
