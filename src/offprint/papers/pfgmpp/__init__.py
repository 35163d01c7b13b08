"""PFGM++ generative models: record and claims."""
