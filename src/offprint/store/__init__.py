"""The database that the lab and the daily page write to."""

from offprint.store.database import Database, default_url
from offprint.store.models import Base, Job, Listing, Outcome, Paper

__all__ = ["Base", "Database", "Job", "Listing", "Outcome", "Paper", "default_url"]
