"""The database that the lab and the daily page write to."""

from offprint.store.database import Database, default_url
from offprint.store.models import Base, Embedding, Import, Job, Listing, Outcome, Paper
from offprint.store.readers import (
    Account,
    Authorship,
    Comment,
    Delivery,
    OutgoingMail,
    RateLimit,
    SignInLink,
    Subscription,
    Vote,
    WebSession,
)

__all__ = [
    "Account",
    "Authorship",
    "Base",
    "Comment",
    "Database",
    "Delivery",
    "Embedding",
    "Import",
    "Job",
    "Listing",
    "Outcome",
    "OutgoingMail",
    "Paper",
    "RateLimit",
    "SignInLink",
    "Subscription",
    "Vote",
    "WebSession",
    "default_url",
]
