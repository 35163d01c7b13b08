"""Exact learning of permutations: record and claims."""
