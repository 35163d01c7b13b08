"""Bayesian optimization tutorial: record and claims."""
