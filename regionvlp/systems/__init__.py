"""The systems of the literature, each model and losses in one module that the trainer can train."""
