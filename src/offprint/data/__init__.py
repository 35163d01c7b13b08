"""Datasets by name: bundled ones, real ones in their official formats, and how to get them.

Makers of synthetic data live beside this registry, one file each, and are imported from their files.
"""

from offprint.data.dataset import Dataset, MissingDataError
from offprint.data.download import DownloadError
from offprint.data.registry import Description, describe, get, load, names

__all__ = ["Dataset", "Description", "DownloadError", "MissingDataError", "describe", "get", "load", "names"]
