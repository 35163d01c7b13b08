"""Attention entropy maximization: record and claims."""
