"""Robust representation consistency model: record and claims."""
