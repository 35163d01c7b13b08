"""Generalized incremental learning under concept drift: record and claims."""
