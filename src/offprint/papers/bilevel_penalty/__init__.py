"""Penalty methods for bilevel optimization: record and claims."""
