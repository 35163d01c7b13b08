"""Generative distribution embeddings: record and claims."""
