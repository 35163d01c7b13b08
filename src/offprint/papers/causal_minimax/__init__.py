"""Causal minimax learning: record and claims."""
