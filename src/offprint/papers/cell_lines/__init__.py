"""Microscopy profiling on unseen cell lines: record and claims."""
