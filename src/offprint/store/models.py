"""The tables of papers and runs: the days that list papers, measured outcomes, and runs asked for on the site."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UTCDateTime(TypeDecorator[datetime.datetime]):
    """A moment in UTC, aware in Python and stored without a zone, so that every database keeps it alike."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """Store as UTC; a moment without a zone is refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"moments need a time zone; got {value!r}")
        return value.astimezone(datetime.UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """Give the zone back."""
        return None if value is None else value.replace(tzinfo=datetime.UTC)


def now() -> datetime.datetime:
    """Return the present moment, with its zone."""
    return datetime.datetime.now(datetime.UTC)


class Base(DeclarativeBase):
    """What every table derives from."""

    type_annotation_map = {datetime.datetime: UTCDateTime, dict[str, Any]: JSON, list[str]: JSON}  # noqa: RUF012


_ON_RECORD = text("slug IS NOT NULL")
_BY_ACCOUNT = text("account_id IS NOT NULL")


class Paper(Base):
    """A paper that readers can find: from a record of ours, an import, or both (joined by arXiv id or title)."""

    __tablename__ = "papers"
    __table_args__ = (
        Index("papers_by_hotness", "hotness", "id"),
        Index("papers_by_year", "year", "id"),
        # Few have claims, and on most sites few have code: the newest of them are found without a look at the rest.
        *(
            Index(name, "id", sqlite_where=text(condition), postgresql_where=text(condition))
            for name, condition in (("papers_with_claims", "n_claims > 0"), ("papers_with_code", "code IS NOT NULL"))
        ),
        # SQLite takes what most rows share, no slug, for what a slug finds, and would rather read the whole table.
        Index("papers_on_record", "slug", sqlite_where=_ON_RECORD, postgresql_where=_ON_RECORD),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    arxiv: Mapped[str | None] = mapped_column(String(32), unique=True)
    slug: Mapped[str | None] = mapped_column(String(100), unique=True)
    title: Mapped[str] = mapped_column(Text)
    title_key: Mapped[str] = mapped_column(Text, index=True)
    authors: Mapped[list[str]] = mapped_column(default=list)
    abstract: Mapped[str | None] = mapped_column(Text)
    summary: Mapped[str | None] = mapped_column(Text)
    family: Mapped[str | None] = mapped_column(String(32), index=True)
    year: Mapped[int | None]
    venue: Mapped[str | None] = mapped_column(Text)
    code: Mapped[str | None] = mapped_column(Text)
    categories: Mapped[list[str]] = mapped_column(default=list)
    published_at: Mapped[datetime.datetime | None]
    claims_text: Mapped[str | None] = mapped_column(Text)
    """What its claims state, for search."""
    runs_here: Mapped[bool] = mapped_column(default=False, index=True)
    """Whether the code that measures its claims is installed."""
    n_claims: Mapped[int] = mapped_column(default=0)
    n_reproduced: Mapped[int] = mapped_column(default=0)
    n_weaker: Mapped[int] = mapped_column(default=0)
    n_not_reproduced: Mapped[int] = mapped_column(default=0)
    n_votes: Mapped[int] = mapped_column(default=0)
    n_comments: Mapped[int] = mapped_column(default=0)
    """How many comments are shown."""
    hotness: Mapped[float] = mapped_column(Double, default=0.0)
    """What trending sorts by; the moment it is read does not change the order."""
    added_at: Mapped[datetime.datetime] = mapped_column(default=now)
    listings: Mapped[list[Listing]] = relationship(back_populates="paper", cascade="all, delete-orphan")


class Listing(Base):
    """A paper's place on the page of one day."""

    __tablename__ = "listings"
    __table_args__ = (
        UniqueConstraint("day", "paper_id"),
        Index("listings_by_account", "account_id", sqlite_where=_BY_ACCOUNT, postgresql_where=_BY_ACCOUNT),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[datetime.date] = mapped_column(index=True)
    paper_id: Mapped[int] = mapped_column(ForeignKey("papers.id", ondelete="CASCADE"), index=True)
    position: Mapped[int] = mapped_column(default=0)
    submitter: Mapped[str | None] = mapped_column(String(64), index=True)
    """The handle of whoever brought it to the page, here or where it was imported from."""
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id", ondelete="SET NULL"))
    """The account of whoever brought it here. One who did so elsewhere may have the same handle as a reader of ours."""
    submitted_at: Mapped[datetime.datetime | None]
    paper: Mapped[Paper] = relationship(back_populates="listings")


class Outcome(Base):
    """What one task (claim, scale, seed, device) measured with one version of the code it reaches."""

    __tablename__ = "outcomes"
    __table_args__ = (
        UniqueConstraint("paper", "claim", "scale", "seed", "device", "fingerprint", name="one_outcome_per_task"),
        Index("outcomes_by_claim", "paper", "claim", "scale", "finished_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    paper: Mapped[str] = mapped_column(String(100))
    claim: Mapped[str] = mapped_column(String(200))
    scale: Mapped[str] = mapped_column(String(16))
    seed: Mapped[int]
    device: Mapped[str] = mapped_column(String(32))
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    value: Mapped[float | None]
    baseline: Mapped[float | None]
    also: Mapped[dict[str, Any]] = mapped_column(default=dict)
    figure: Mapped[dict[str, Any] | None]
    note: Mapped[str] = mapped_column(Text, default="")
    message: Mapped[str] = mapped_column(Text, default="")
    seconds: Mapped[float]
    peak_memory_mb: Mapped[float]
    versions: Mapped[dict[str, Any]] = mapped_column(default=dict)
    machine: Mapped[dict[str, Any]] = mapped_column(default=dict)
    commit: Mapped[str] = mapped_column(String(64), default="")
    finished_at: Mapped[datetime.datetime] = mapped_column(default=now)


_ACTIVE = text("status IN ('queued', 'running')")


class Job(Base):
    """A run that a reader asked for on the site, and how far it is."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(
            "one_active_job_of_a_paper", "paper", "scale", unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    paper: Mapped[str] = mapped_column(String(100), index=True)
    scale: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), default="queued", index=True)
    progress: Mapped[dict[str, Any]] = mapped_column(default=dict)
    message: Mapped[str] = mapped_column(Text, default="")
    worker: Mapped[str | None] = mapped_column(String(64))
    """The server that performs it; alive while it renews ``heartbeat_at``."""
    heartbeat_at: Mapped[datetime.datetime | None]
    asked_at: Mapped[datetime.datetime] = mapped_column(default=now)
    started_at: Mapped[datetime.datetime | None]
    finished_at: Mapped[datetime.datetime | None]


class Embedding(Base):
    """A paper's text as a vector, made by one model from one version of the text."""

    __tablename__ = "embeddings"
    __table_args__ = (Index("embeddings_by_moment", "model", "embedded_at"),)

    paper_id: Mapped[int] = mapped_column(ForeignKey("papers.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(String(200), primary_key=True)
    text_hash: Mapped[str] = mapped_column(String(64))
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    """Single precision, little-endian, of unit length."""
    embedded_at: Mapped[datetime.datetime] = mapped_column(default=now)


class Import(Base):
    """How far a streamed import of one source came, so that the next one goes on from there."""

    __tablename__ = "imports"

    source: Mapped[str] = mapped_column(String(200), primary_key=True)
    """The kind of source and what identifies its content."""
    position: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes read of a file, or entries of an answer, up to the last that was stored."""
    line: Mapped[int] = mapped_column(default=0)
    finished: Mapped[bool] = mapped_column(default=False)
    changed_at: Mapped[datetime.datetime] = mapped_column(default=now)
