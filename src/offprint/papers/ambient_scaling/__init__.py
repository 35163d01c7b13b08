"""Ambient diffusion scaling: record and claims."""
