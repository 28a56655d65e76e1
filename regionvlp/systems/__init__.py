"""The systems of the literature, one module each: model and losses as one module that the trainer can train.

``base`` says what a system is, ``registry`` finds them by name.
"""
