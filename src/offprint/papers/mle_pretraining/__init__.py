"""Unsupervised pretraining by maximum likelihood: record and claims."""
