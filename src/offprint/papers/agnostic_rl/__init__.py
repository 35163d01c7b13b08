"""Agnostic reinforcement learning: record and claims."""
