"""SQLite's full-text index without a copy of every text: it reads what it shows from the papers themselves.

The table ``papers_search`` was half as large as what it indexed again, and an import spent a fifth of its time on
writing it. On PostgreSQL nothing changes: there only vectors are kept.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

COLUMNS = "title, authors, summary, claims, abstract, arxiv, slug"
HASH_SIZE = 32 << 20
TOKENIZE = "tokenize = 'porter unicode61 remove_diacritics 2'"


def upgrade() -> None:
    """Apply."""
    if op.get_bind().dialect.name == "postgresql":
        return
    _drop()
    op.execute(f"CREATE VIEW papers_text AS SELECT papers.id AS id, {_texts('papers')} FROM papers")
    _create(", content = 'papers_text', content_rowid = 'id'")
    # An index without the text has to be told what it is to forget.
    _follow(f"INSERT INTO papers_search (papers_search, rowid, {COLUMNS}) SELECT 'delete', old.id, {_texts('old')};")


def downgrade() -> None:
    """Undo."""
    if op.get_bind().dialect.name == "postgresql":
        return
    _drop()
    op.execute("DROP VIEW papers_text")
    _create("")
    _follow("DELETE FROM papers_search WHERE rowid = old.id;")


def _create(content: str) -> None:
    op.execute(f"CREATE VIRTUAL TABLE papers_search USING fts5({COLUMNS}, {TOKENIZE}{content})")
    op.execute(f"INSERT INTO papers_search (papers_search, rank) VALUES ('hashsize', {HASH_SIZE})")
    op.execute(f"INSERT INTO papers_search (rowid, {COLUMNS}) SELECT papers.id, {_texts('papers')} FROM papers")


def _follow(delete: str) -> None:
    insert = f"INSERT INTO papers_search (rowid, {COLUMNS}) SELECT new.id, {_texts('new')};"
    told = "id, title, authors, summary, claims_text, abstract, arxiv, slug"
    for name, moment, statements in (
        ("insert", "AFTER INSERT", insert),
        ("delete", "AFTER DELETE", delete),
        ("update", f"AFTER UPDATE OF {told}", f"{delete} {insert}"),
    ):
        op.execute(f"CREATE TRIGGER papers_search_{name} {moment} ON papers BEGIN {statements} END")


def _drop() -> None:
    for name in ("insert", "delete", "update"):
        op.execute(f"DROP TRIGGER papers_search_{name}")
    op.execute("DROP TABLE papers_search")


def _texts(row: str) -> str:
    """Return a row's texts; authors are a JSON list, read out so that accents are found."""
    authors = f"(SELECT group_concat(value, ', ') FROM json_each({row}.authors)) AS authors"
    plain = ("summary", f"{row}.claims_text AS claims", "abstract", "arxiv", "slug")
    return ", ".join((f"{row}.title", authors, *(text if " AS " in text else f"{row}.{text}" for text in plain)))
