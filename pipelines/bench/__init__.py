"""The command 'regionvlp bench': measurements against a named baseline in the same run."""
