"""Predicting pairs: record and claims."""
