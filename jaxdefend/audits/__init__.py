"""Audits: is there a backdoor in this net, and for which class? Without a single poisoned image.

found = audit(net)
found.verdict, found.suspects, found.p_values, found.triggers
"""

from typing import TYPE_CHECKING, Any

from jaxdefend.results.progress import Report, silent

if TYPE_CHECKING:
    from jaxdefend.audits.file import FileFacts
    from jaxdefend.audits.result import Audit
    from jaxdefend.nets.net import Net


def audit(
    net: "Net",
    clean: Any = None,
    *,
    file: "FileFacts | None" = None,
    frr: float = 0.05,
    seed: int = 0,
    progress: Report = silent,
) -> "Audit":
    """Statistics of every class, closer ones of the few that stand out, a verdict with p-values, and the triggers.

    Args:
        clean: images without a trigger, labels are not needed; 64 are used. Without them, synthetic faces for a net
            that takes images of their size, and drawn shapes for any other.
        file: what `audits.file.file_findings` says of the net's file, to be part of the verdict.
        frr: which share of clean nets may be called backdoored, 0.001–0.5.
        seed: of marks and their refinement.
    Raises: InputError if the net's input scale is not known, or its answers or the images cannot be used; so if
        it answers all of them alike, and neither graph nor file has a finding.
    """
    from jaxdefend.audits.auditing import audited

    return audited(net, clean, file, frr, seed, progress)
