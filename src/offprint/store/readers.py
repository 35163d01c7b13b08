"""The tables of readers: accounts and sign-in, votes and comments, subscriptions and what was mailed."""

from __future__ import annotations

import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from offprint.store.models import Base, Paper, now


class Account(Base):
    """A reader who has signed in."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), unique=True)
    """In lower case."""
    handle: Mapped[str] = mapped_column(String(40), unique=True)
    """The name in addresses: letters, digits and dashes."""
    name: Mapped[str] = mapped_column(String(80))
    moderator: Mapped[bool] = mapped_column(default=False)
    banned: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime.datetime] = mapped_column(default=now)


class SignInLink(Base):
    """A link that was mailed for signing in; it works once."""

    __tablename__ = "sign_in_links"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    email: Mapped[str] = mapped_column(String(254), index=True)
    next_path: Mapped[str] = mapped_column(Text, default="/")
    expires_at: Mapped[datetime.datetime] = mapped_column(index=True)
    used_at: Mapped[datetime.datetime | None]


class WebSession(Base):
    """A browser in which a reader is signed in."""

    __tablename__ = "web_sessions"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime.datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime.datetime] = mapped_column(index=True)
    account: Mapped[Account] = relationship()


class Vote(Base):
    """A reader's vote for a paper: one at most."""

    __tablename__ = "votes"

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    paper_id: Mapped[int] = mapped_column(ForeignKey("papers.id", ondelete="CASCADE"), primary_key=True, index=True)
    voted_at: Mapped[datetime.datetime] = mapped_column(default=now)


class Comment(Base):
    """What a reader says about a paper, in a subset of Markdown."""

    __tablename__ = "comments"
    __table_args__ = (Index("comments_by_paper", "paper_id", "created_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    paper_id: Mapped[int] = mapped_column(ForeignKey("papers.id", ondelete="CASCADE"))
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), index=True)
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime.datetime] = mapped_column(default=now)
    edited_at: Mapped[datetime.datetime | None]
    hidden_at: Mapped[datetime.datetime | None]
    """When a moderator hid it; it is then shown to moderators and its author only."""
    account: Mapped[Account] = relationship()
    paper: Mapped[Paper] = relationship()


class Authorship(Base):
    """A reader's claim to be an author of a paper, until a moderator has confirmed it and after."""

    __tablename__ = "authorships"

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    paper_id: Mapped[int] = mapped_column(ForeignKey("papers.id", ondelete="CASCADE"), primary_key=True, index=True)
    author: Mapped[str] = mapped_column(Text)
    """Which of the paper's authors."""
    claimed_at: Mapped[datetime.datetime] = mapped_column(default=now)
    confirmed_at: Mapped[datetime.datetime | None]
    account: Mapped[Account] = relationship()
    paper: Mapped[Paper] = relationship()


class RateLimit(Base):
    """How often something was done within a window of time, by what it is and who does it."""

    __tablename__ = "rate_limits"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    count: Mapped[int] = mapped_column(default=0)
    expires_at: Mapped[datetime.datetime] = mapped_column(index=True)


class Subscription(Base):
    """An address that wants mail: how often, and of which papers. It gets none before it is confirmed."""

    __tablename__ = "subscriptions"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(254), index=True)
    frequency: Mapped[str] = mapped_column(String(8))
    """``daily`` or ``weekly``."""
    topics: Mapped[list[str]] = mapped_column(default=list)
    """Families; all papers when empty."""
    query: Mapped[str] = mapped_column(Text, default="")
    """A saved search; none when empty."""
    token_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    """Of the link that confirms it."""
    asked_at: Mapped[datetime.datetime] = mapped_column(default=now)
    confirmed_at: Mapped[datetime.datetime | None] = mapped_column(index=True)
    last_digest_at: Mapped[datetime.datetime | None]
    """The moment up to which papers were looked at for its mails."""
    n_refused: Mapped[int] = mapped_column(default=0)
    """Mails in a row that the address's server refused for good."""
    paused_at: Mapped[datetime.datetime | None]
    """When they were too many; it gets no mail until its reader confirms it anew."""


class Delivery(Base):
    """A paper that was mailed to a subscriber, or is about to be."""

    __tablename__ = "deliveries"
    __table_args__ = (UniqueConstraint("subscription_id", "paper_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    subscription_id: Mapped[int] = mapped_column(ForeignKey("subscriptions.id", ondelete="CASCADE"))
    paper_id: Mapped[int] = mapped_column(ForeignKey("papers.id", ondelete="CASCADE"), index=True)
    message_id: Mapped[str] = mapped_column(String(200), index=True)
    """Of the mail that holds it."""
    claimed_at: Mapped[datetime.datetime] = mapped_column(default=now)
    sent_at: Mapped[datetime.datetime | None]


class OutgoingMail(Base):
    """A digest that is still to be handed over, exactly as it goes out; gone once it has been."""

    __tablename__ = "outgoing_mails"

    id: Mapped[int] = mapped_column(primary_key=True)
    subscription_id: Mapped[int] = mapped_column(ForeignKey("subscriptions.id", ondelete="CASCADE"), index=True)
    message_id: Mapped[str] = mapped_column(String(200), unique=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime.datetime] = mapped_column(index=True)
    """When it may be taken: later while a sender holds it, and after a failure that may pass."""
    subscription: Mapped[Subscription] = relationship()
