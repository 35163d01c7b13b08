"""Unit tests for multiple instance learning: record and claims."""
