"""Readers and what they do; what trending and filters read; embeddings, imports, and who performs a job."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

INDEXES = [
    ("ix_listings_submitter", "listings", ["submitter"]),
    ("ix_papers_runs_here", "papers", ["runs_here"]),
    ("embeddings_by_moment", "embeddings", ["model", "embedded_at"]),
    ("papers_by_hotness", "papers", ["hotness", "id"]),
    ("ix_rate_limits_expires_at", "rate_limits", ["expires_at"]),
    ("ix_sign_in_links_email", "sign_in_links", ["email"]),
    ("ix_sign_in_links_expires_at", "sign_in_links", ["expires_at"]),
    ("ix_subscriptions_confirmed_at", "subscriptions", ["confirmed_at"]),
    ("ix_subscriptions_email", "subscriptions", ["email"]),
    ("ix_authorships_paper_id", "authorships", ["paper_id"]),
    ("comments_by_paper", "comments", ["paper_id", "created_at"]),
    ("ix_comments_account_id", "comments", ["account_id"]),
    ("ix_deliveries_message_id", "deliveries", ["message_id"]),
    ("ix_deliveries_paper_id", "deliveries", ["paper_id"]),
    ("ix_outgoing_mails_not_before", "outgoing_mails", ["not_before"]),
    ("ix_outgoing_mails_subscription_id", "outgoing_mails", ["subscription_id"]),
    ("ix_votes_paper_id", "votes", ["paper_id"]),
    ("ix_web_sessions_account_id", "web_sessions", ["account_id"]),
    ("ix_web_sessions_expires_at", "web_sessions", ["expires_at"]),
]
# In the order in which they can be dropped.
TABLES = (
    "web_sessions",
    "votes",
    "embeddings",
    "outgoing_mails",
    "deliveries",
    "comments",
    "authorships",
    "subscriptions",
    "sign_in_links",
    "rate_limits",
    "imports",
    "accounts",
)


def _added() -> dict[str, list[sa.Column[Any]]]:
    """Return the columns that tables get, one by one: to rebuild a table would drop the full-text index's triggers."""
    counts = ("n_claims", "n_reproduced", "n_weaker", "n_not_reproduced", "n_votes", "n_comments")
    return {
        "jobs": [sa.Column("worker", sa.String(length=64)), sa.Column("heartbeat_at", sa.DateTime())],
        "listings": [sa.Column("submitter", sa.String(length=64)), sa.Column("submitted_at", sa.DateTime())],
        "papers": [
            sa.Column("categories", sa.JSON(), nullable=False, server_default="[]"),
            sa.Column("published_at", sa.DateTime()),
            sa.Column("claims_text", sa.Text()),
            sa.Column("runs_here", sa.Boolean(), nullable=False, server_default=sa.false()),
            *(sa.Column(name, sa.Integer(), nullable=False, server_default="0") for name in counts),
            sa.Column("hotness", sa.Double(), nullable=False, server_default="0"),
        ],
    }


def _of(table: str) -> sa.ForeignKeyConstraint:
    """Return the reference to a row of another table, with which this row goes."""
    return sa.ForeignKeyConstraint([f"{table.removesuffix('s')}_id"], [f"{table}.id"], ondelete="CASCADE")


def _key(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _when(name: str, *, known: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(), nullable=not known)


def upgrade() -> None:
    """Apply."""
    _accounts()
    _what_readers_do()
    _mail()
    op.create_table(
        "imports",
        sa.Column("source", sa.String(length=200), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("finished", sa.Boolean(), nullable=False),
        _when("changed_at"),
        sa.PrimaryKeyConstraint("source"),
    )
    op.create_table(
        "embeddings",
        _key("paper_id"),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("text_hash", sa.String(length=64), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        _when("embedded_at"),
        _of("papers"),
        sa.PrimaryKeyConstraint("paper_id", "model"),
    )
    for table, columns in _added().items():
        for column in columns:
            op.add_column(table, column)
    for name, table, indexed in INDEXES:
        op.create_index(name, table, indexed)
    _one_active_job_of_a_paper()
    known = sa.text("slug IS NOT NULL")
    op.create_index("papers_on_record", "papers", ["slug"], sqlite_where=known, postgresql_where=known)


def _one_active_job_of_a_paper() -> None:
    active = "status IN ('queued', 'running')"
    first = f"SELECT min(id) FROM jobs WHERE {active} GROUP BY paper, scale"
    op.execute(f"UPDATE jobs SET status = 'interrupted' WHERE {active} AND id NOT IN ({first})")
    where = sa.text(active)
    op.create_index(
        "one_active_job_of_a_paper", "jobs", ["paper", "scale"], unique=True, sqlite_where=where, postgresql_where=where
    )


def _accounts() -> None:
    op.create_table(
        "accounts",
        _key("id"),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("handle", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("moderator", sa.Boolean(), nullable=False),
        sa.Column("banned", sa.Boolean(), nullable=False),
        _when("created_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("email"),
        sa.UniqueConstraint("handle"),
    )
    op.create_table(
        "sign_in_links",
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("next_path", sa.Text(), nullable=False),
        _when("expires_at"),
        _when("used_at", known=False),
        sa.PrimaryKeyConstraint("token_hash"),
    )
    op.create_table(
        "web_sessions",
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        _key("account_id"),
        _when("created_at"),
        _when("expires_at"),
        _of("accounts"),
        sa.PrimaryKeyConstraint("token_hash"),
    )
    op.create_table(
        "rate_limits",
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        _when("expires_at"),
        sa.PrimaryKeyConstraint("key"),
    )


def _what_readers_do() -> None:
    op.create_table(
        "votes",
        _key("account_id"),
        _key("paper_id"),
        _when("voted_at"),
        _of("accounts"),
        _of("papers"),
        sa.PrimaryKeyConstraint("account_id", "paper_id"),
    )
    op.create_table(
        "comments",
        _key("id"),
        _key("paper_id"),
        _key("account_id"),
        sa.Column("body", sa.Text(), nullable=False),
        _when("created_at"),
        _when("edited_at", known=False),
        _when("hidden_at", known=False),
        _of("papers"),
        _of("accounts"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "authorships",
        _key("account_id"),
        _key("paper_id"),
        sa.Column("author", sa.Text(), nullable=False),
        _when("claimed_at"),
        _when("confirmed_at", known=False),
        _of("accounts"),
        _of("papers"),
        sa.PrimaryKeyConstraint("account_id", "paper_id"),
    )


def _mail() -> None:
    op.create_table(
        "subscriptions",
        _key("id"),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("frequency", sa.String(length=8), nullable=False),
        sa.Column("topics", sa.JSON(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=True),
        _when("asked_at"),
        _when("confirmed_at", known=False),
        _when("last_digest_at", known=False),
        sa.Column("n_refused", sa.Integer(), nullable=False),
        _when("paused_at", known=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_table(
        "deliveries",
        _key("id"),
        _key("subscription_id"),
        _key("paper_id"),
        sa.Column("message_id", sa.String(length=200), nullable=False),
        _when("claimed_at"),
        _when("sent_at", known=False),
        _of("subscriptions"),
        _of("papers"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("subscription_id", "paper_id"),
    )
    op.create_table(
        "outgoing_mails",
        _key("id"),
        _key("subscription_id"),
        sa.Column("message_id", sa.String(length=200), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _when("not_before"),
        _of("subscriptions"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("message_id"),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_index("papers_on_record", "papers")
    op.drop_index("one_active_job_of_a_paper", "jobs")
    for name, table, _ in reversed(INDEXES):
        op.drop_index(name, table)
    for table in TABLES:
        op.drop_table(table)
    for table, columns in _added().items():
        for column in columns:
            op.drop_column(table, column.name)
