"""Mail: how it is made and handed over, who subscribes to it, and the digests of new papers."""

from offprint.daily.mail.messages import compose
from offprint.daily.mail.transport import (
    Folder,
    MailError,
    NoServerError,
    Outbox,
    RefusedError,
    folder_shown,
    outbox,
)

__all__ = [
    "Folder",
    "MailError",
    "NoServerError",
    "Outbox",
    "RefusedError",
    "compose",
    "folder_shown",
    "outbox",
]
