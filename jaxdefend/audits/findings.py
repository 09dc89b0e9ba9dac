"""What an audit says about one place of a file or of a graph."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """Something that an engineer should know of a net or its file.

    Attributes:
        kind: a short identifier that stays the same between versions, such as "side-path".
        where: the layer, or the place in the file.
        message: one sentence with its numbers.
        is_suspicious: whether it counts towards the verdict "backdoored"; otherwise it is something to know.
    """

    kind: str
    where: str
    message: str
    is_suspicious: bool = False

    def record(self) -> dict[str, Any]:
        """What audit.json holds of it."""
        return asdict(self)


def suspicious(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that count towards the verdict."""
    return tuple(finding for finding in findings if finding.is_suspicious)
