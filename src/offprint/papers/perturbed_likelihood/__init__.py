"""Likelihood estimation of singular distributions: record and claims."""
