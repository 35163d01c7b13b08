"""Diversified distribution matching: record and claims."""
