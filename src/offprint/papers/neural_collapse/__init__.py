"""Perturbation analysis of neural collapse: record and claims."""
