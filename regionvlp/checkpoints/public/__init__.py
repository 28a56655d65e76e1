"""Checkpoints of the public codes, converted to ours; one module a system."""
