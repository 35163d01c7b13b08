"""Programmable variational inference: record and claims."""
