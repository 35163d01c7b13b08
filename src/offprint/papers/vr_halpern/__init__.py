"""Variance reduced Halpern iteration: record and claims."""
