"""Learnable commutative monoids: record and claims."""
