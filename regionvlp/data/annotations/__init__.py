"""Readers of annotation files: one module per layout, each ending in :class:`regionvlp.data.captions.Caption`."""
