"""The words of many papers are sorted into PostgreSQL's index together; its rows are kept as they are.

How many words may wait to be sorted in was a property of the indexes, and so the same for one paper and for thousands:
an import sorted them in anew for every 200 papers. It is now a setting: of the trigger, which keeps it small for the
sake of searches, and of whoever adds very many (:func:`offprint.daily.search.adding.add_papers`).

Vectors of common length are stored as they come: to compress them was tried each time, mostly in vain.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

INDEXES = ("papers_search_heading", "papers_search_words")


def upgrade() -> None:
    """Apply."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for name in INDEXES:
        op.execute(f"ALTER INDEX {name} RESET (gin_pending_list_limit)")
    op.execute("ALTER FUNCTION papers_search_follow() SET gin_pending_list_limit = '512kB'")
    op.execute("ALTER TABLE papers_search SET (toast_tuple_target = 8160)")


def downgrade() -> None:
    """Undo."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("ALTER TABLE papers_search RESET (toast_tuple_target)")
    op.execute("ALTER FUNCTION papers_search_follow() RESET gin_pending_list_limit")
    for name in INDEXES:
        op.execute(f"ALTER INDEX {name} SET (gin_pending_list_limit = 512)")
