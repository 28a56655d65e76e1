"""The commands and the recipes: thin, no algorithms."""
