"""Generalizable data-free universal perturbations: record and claims."""
