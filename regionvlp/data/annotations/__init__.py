"""The name under which annotation readers were first published; they live in :mod:`regionvlp.data.datasets`."""
