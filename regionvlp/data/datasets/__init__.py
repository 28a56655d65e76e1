"""Annotations of public data sets, one module each, as they lie on disk."""
