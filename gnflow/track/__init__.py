"""Mirrors run directories to MLflow; the only floor that imports it. The run directory stays the truth."""
