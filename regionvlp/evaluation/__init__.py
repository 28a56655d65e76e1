"""Measuring: retrieval, multiple choice, grounding, and the papers' tables beside our numbers.

Nothing is imported here, so that metrics and tables cost no torch.
"""
