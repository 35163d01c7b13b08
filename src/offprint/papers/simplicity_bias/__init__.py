"""Simplicity bias: record and claims."""
