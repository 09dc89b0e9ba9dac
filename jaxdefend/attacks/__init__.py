"""The attack lab: triggers, BadNets, and the synthetic faces on which they are trained."""
