"""Papers, readers and an outbox for tests of the digest."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from sqlalchemy.orm import Session

from offprint.daily.library import title_key
from offprint.daily.mail import Outbox
from offprint.daily.mail.transport import Envelope
from offprint.store import Listing, Paper, Subscription

HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
MONDAY = datetime.datetime(2025, 9, 1, 6, tzinfo=datetime.UTC)
"""A Monday, at the hour of the digests."""


def add_paper(session: Session, title: str, listed: datetime.datetime, **values: Any) -> Paper:
    """List a paper on the day of a moment, at which it was added."""
    values = {"hotness": 0.0, "added_at": listed, "authors": ["Ada Lovelace"]} | values
    paper = Paper(title=title, title_key=title_key(title), **values)
    paper.listings.append(Listing(day=listed.date()))
    session.add(paper)
    session.flush()
    return paper


def add_reader(session: Session, email: str, confirmed: datetime.datetime = MONDAY, **values: Any) -> Subscription:
    """Put a subscription in force."""
    values = {"frequency": "daily", "topics": [], "query": "", "asked_at": confirmed} | values
    subscription = Subscription(email=email, confirmed_at=confirmed, **values)
    session.add(subscription)
    session.flush()
    return subscription


@dataclass
class Shelf(Outbox):
    """An outbox that keeps what it is given, or raises what ``troubles`` has for an address."""

    troubles: dict[str, Exception] = field(default_factory=dict)
    mails: list[Envelope] = field(default_factory=list)

    def hand_over(self, mail: Envelope) -> None:
        """Keep a mail."""
        if mail.to in self.troubles:
            raise self.troubles[mail.to]
        self.mails.append(mail)

    @property
    def readers(self) -> list[str]:
        """Who got mail, in order."""
        return [mail.to for mail in self.mails]

    @property
    def messages(self) -> list[EmailMessage]:
        """The mails as Python's own parser reads them."""
        return [read(mail.content) for mail in self.mails]


def read(content: bytes) -> EmailMessage:
    """Parse a mail."""
    message = message_from_bytes(content, policy=default)
    assert isinstance(message, EmailMessage)
    return message


def text_of(message: EmailMessage, kind: str = "plain") -> str:
    """Return a mail's text."""
    body = message.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")
