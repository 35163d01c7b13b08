"""Equilibrium propagation with Jacobian homeostasis: record and claims."""
