"""Files of weights that other people made: reading them safely, telling what they are, fetching them.

Nothing is imported here, so that telling kinds apart costs no torch."""
