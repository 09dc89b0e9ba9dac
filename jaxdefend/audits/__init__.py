"""Audits: what a net tells about a backdoor without a poisoned image."""
