"""Causal models of the package transformers, as stages with declared weights."""
