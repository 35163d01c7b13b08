"""Papers, listings, outcomes and jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("paper", sa.String(length=100), nullable=False),
        sa.Column("scale", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=True),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_jobs_paper", "jobs", ["paper"], unique=False)
    op.create_index("ix_jobs_status", "jobs", ["status"], unique=False)

    op.create_table(
        "outcomes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("paper", sa.String(length=100), nullable=False),
        sa.Column("claim", sa.String(length=200), nullable=False),
        sa.Column("scale", sa.String(length=16), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("baseline", sa.Double(), nullable=True),
        sa.Column("also", sa.JSON(), nullable=False),
        sa.Column("figure", sa.JSON(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("peak_memory_mb", sa.Double(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("machine", sa.JSON(), nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=False),
        sa.Column("finished_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("paper", "claim", "scale", "seed", "device", "fingerprint", name="one_outcome_per_task"),
    )
    op.create_index("outcomes_by_claim", "outcomes", ["paper", "claim", "scale", "finished_at"], unique=False)

    op.create_table(
        "papers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("arxiv", sa.String(length=32), nullable=True),
        sa.Column("slug", sa.String(length=100), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("title_key", sa.Text(), nullable=False),
        sa.Column("authors", sa.JSON(), nullable=False),
        sa.Column("abstract", sa.Text(), nullable=True),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.Column("family", sa.String(length=32), nullable=True),
        sa.Column("year", sa.Integer(), nullable=True),
        sa.Column("venue", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("added_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("arxiv"),
        sa.UniqueConstraint("slug"),
    )
    op.create_index("ix_papers_family", "papers", ["family"], unique=False)
    op.create_index("ix_papers_title_key", "papers", ["title_key"], unique=False)

    op.create_table(
        "listings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("paper_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["paper_id"], ["papers.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("day", "paper_id"),
    )
    op.create_index("ix_listings_day", "listings", ["day"], unique=False)
    op.create_index("ix_listings_paper_id", "listings", ["paper_id"], unique=False)


def downgrade() -> None:
    """Undo."""
    op.drop_index("ix_listings_paper_id", "listings")
    op.drop_index("ix_listings_day", "listings")

    op.drop_table("listings")
    op.drop_index("ix_papers_title_key", "papers")
    op.drop_index("ix_papers_family", "papers")

    op.drop_table("papers")
    op.drop_index("outcomes_by_claim", "outcomes")

    op.drop_table("outcomes")
    op.drop_index("ix_jobs_status", "jobs")
    op.drop_index("ix_jobs_paper", "jobs")

    op.drop_table("jobs")
