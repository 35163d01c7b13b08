"""SQLite's full-text index joins its pieces later: sixteen of a size at once instead of four.

Every word of an import was written again whenever four batches had come together, which took a tenth of the time. A
search then looks into a few pieces more, which cannot be measured.
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Apply."""
    _join_at(16)


def downgrade() -> None:
    """Undo."""
    _join_at(4)


def _join_at(n_pieces: int) -> None:
    if op.get_bind().dialect.name != "postgresql":
        op.execute(f"INSERT INTO papers_search (papers_search, rank) VALUES ('automerge', {n_pieces})")
