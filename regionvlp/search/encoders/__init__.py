"""Encoders: whatever turns clips and sentences into something that can be compared. See ``base`` for what one is."""
