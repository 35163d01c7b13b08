"""Adversarial style augmentation: record and claims."""
