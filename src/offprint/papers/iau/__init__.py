"""Unlearning by influence approximation: record and claims."""
