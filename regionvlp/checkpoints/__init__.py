"""Trained models on disk: opening ours, and converting those that other projects handed out."""
