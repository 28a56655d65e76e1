"""Captions as a model reads them: tokens, and which of them are nouns and verbs."""
