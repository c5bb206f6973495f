"""Evaluation: (model, windows) -> numbers."""
