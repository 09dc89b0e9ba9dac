"""The sections of a page, of what is known."""

from jaxdefend.reports.blocks import Section
from jaxdefend.reports.facts import Facts
from jaxdefend.reports.sections.audit import audit_blocks, comparison_blocks
from jaxdefend.reports.sections.channels import activation_blocks
from jaxdefend.reports.sections.curve import curve_blocks
from jaxdefend.reports.sections.defenses import guard_blocks, repair_blocks
from jaxdefend.reports.sections.images import confusion_blocks, gallery_blocks
from jaxdefend.reports.sections.net import data_blocks, net_blocks


def sections(facts: Facts, pictures: int = 12) -> list[Section]:
    """All that there is something to say about.

    Args:
        pictures: of each kind, so that the page keeps to its size.
    """
    found = [
        Section("net", "The net", net_blocks(facts)),
        Section("data", "The images", data_blocks(facts)),
        Section("curve", "The pruning curve", curve_blocks(facts, pictures)),
        Section("activations", "What the channels respond to", activation_blocks(facts)),
        Section("repairs", "Repairs", repair_blocks(facts)),
        Section("guard", "The guard", guard_blocks(facts)),
        Section("audit", "The audit", audit_blocks(facts)),
        Section("comparison", "Defenses side by side", comparison_blocks(facts)),
        Section("gallery", "Images to look at", gallery_blocks(facts, pictures)),
        Section("confusions", "What is called what", confusion_blocks(facts)),
    ]
    return [section for section in found if section.blocks]
