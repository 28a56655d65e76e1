"""The command 'regionvlp ablate': variants of a run, with several seeds, compared."""
