"""Stable randomized parameter sharing: record and claims."""
