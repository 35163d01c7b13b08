"""Generalization difficulty: record and claims."""
