"""The full-text index over papers, kept up to date by triggers.

On SQLite only: other databases have full-text search of their own, and until it is used the site scans.
A later migration that rebuilds the table ``papers`` (Alembic's batch mode does) must create the triggers again.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

COLUMNS = "title, authors, summary, abstract, arxiv, slug"


def _values(row: str) -> str:
    """Return a row's text; authors are a JSON list, read out so that accents are found."""
    authors = f"(SELECT group_concat(value, ', ') FROM json_each({row}.authors))"
    return f"{row}.title, {authors}, {row}.summary, {row}.abstract, {row}.arxiv, {row}.slug"


def upgrade() -> None:
    """Apply."""
    if op.get_bind().dialect.name != "sqlite":
        return
    op.execute(
        f"CREATE VIRTUAL TABLE papers_search USING fts5({COLUMNS}, tokenize = 'porter unicode61 remove_diacritics 2')"
    )
    insert = f"INSERT INTO papers_search (rowid, {COLUMNS})"
    op.execute(f"{insert} SELECT papers.id, {_values('papers')} FROM papers")
    op.execute(
        f"CREATE TRIGGER papers_search_insert AFTER INSERT ON papers BEGIN "
        f"{insert} SELECT new.id, {_values('new')}; END"
    )
    delete = "DELETE FROM papers_search WHERE rowid = old.id;"
    op.execute(f"CREATE TRIGGER papers_search_delete AFTER DELETE ON papers BEGIN {delete} END")
    op.execute(
        f"CREATE TRIGGER papers_search_update AFTER UPDATE OF id, {COLUMNS} ON papers BEGIN "
        f"{delete} {insert} SELECT new.id, {_values('new')}; END"
    )


def downgrade() -> None:
    """Undo."""
    if op.get_bind().dialect.name != "sqlite":
        return
    for name in ("insert", "delete", "update"):
        op.execute(f"DROP TRIGGER papers_search_{name}")
    op.execute("DROP TABLE papers_search")
