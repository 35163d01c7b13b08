"""Hierarchical Bayesian few-shot meta learning: record and claims."""
