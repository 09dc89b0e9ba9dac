"""The attack lab: triggers, BadNets, and the synthetic faces on which they are trained."""

from jaxdefend.attacks.settings import LabSettings

__all__ = ["LabSettings"]
