"""The full-text index with what papers claim, on SQLite and on PostgreSQL, and when each vector was stored.

Both keep a table ``papers_search`` in step with ``papers`` by triggers: an FTS5 table on SQLite; on PostgreSQL one with
two ``tsvector`` columns, ``words`` of all text by weight and ``heading`` of the fields that can be asked for by name.
A later migration that rebuilds the table ``papers`` (Alembic's batch mode does) must create the triggers again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

COLUMNS = "title, authors, summary, claims, abstract, arxiv, slug"
SOURCES = COLUMNS.replace("claims", "claims_text")
HASH_SIZE = 32 << 20
FORMER = "title, authors, summary, abstract, arxiv, slug"


def upgrade() -> None:
    """Apply."""
    if op.get_bind().dialect.name == "postgresql":
        for statement in POSTGRESQL:
            op.execute(statement)
    else:
        _drop_sqlite()
        _create_sqlite(COLUMNS, SOURCES)
    for name, condition in (("papers_with_claims", "n_claims > 0"), ("papers_with_code", "code IS NOT NULL")):
        where = sa.text(condition)
        op.create_index(name, "papers", ["id"], sqlite_where=where, postgresql_where=where)
    op.create_index("papers_by_year", "papers", ["year", "id"])


def downgrade() -> None:
    """Undo."""
    for name in ("papers_by_year", "papers_with_code", "papers_with_claims"):
        op.drop_index(name, "papers")
    if op.get_bind().dialect.name == "postgresql":
        for statement in UNDO_POSTGRESQL:
            op.execute(statement)
    else:
        _drop_sqlite()
        _create_sqlite(FORMER, FORMER)


def _create_sqlite(columns: str, sources: str) -> None:
    op.execute(
        f"CREATE VIRTUAL TABLE papers_search USING fts5({columns}, tokenize = 'porter unicode61 remove_diacritics 2')"
    )
    # What an import adds is sorted in memory first, up to so many bytes: with the usual 1 MB it takes a fifth longer.
    op.execute(f"INSERT INTO papers_search (papers_search, rank) VALUES ('hashsize', {HASH_SIZE})")
    insert = f"INSERT INTO papers_search (rowid, {columns})"
    op.execute(f"{insert} SELECT papers.id, {_values(sources, 'papers')} FROM papers")
    op.execute(
        f"CREATE TRIGGER papers_search_insert AFTER INSERT ON papers BEGIN "
        f"{insert} SELECT new.id, {_values(sources, 'new')}; END"
    )
    delete = "DELETE FROM papers_search WHERE rowid = old.id;"
    op.execute(f"CREATE TRIGGER papers_search_delete AFTER DELETE ON papers BEGIN {delete} END")
    op.execute(
        f"CREATE TRIGGER papers_search_update AFTER UPDATE OF id, {sources} ON papers BEGIN "
        f"{delete} {insert} SELECT new.id, {_values(sources, 'new')}; END"
    )


def _drop_sqlite() -> None:
    for name in ("insert", "delete", "update"):
        op.execute(f"DROP TRIGGER papers_search_{name}")
    op.execute("DROP TABLE papers_search")


def _values(sources: str, row: str) -> str:
    """Return a row's text; authors are a JSON list, read out so that accents are found."""
    authors = f"(SELECT group_concat(value, ', ') FROM json_each({row}.authors))"
    return ", ".join(authors if source == "authors" else f"{row}.{source}" for source in sources.split(", "))


# Letters without accents and everything between words as spaces, so that the parser of PostgreSQL, which knows of
# addresses, paths and compounds, sees what FTS5 sees: words. offprint.daily.search.words.plain does it to queries.
# Plain ASCII, the usual case, takes the short way. What is longer than any abstract is cut: a tsvector has its limits.
PLAIN = r"""
CREATE FUNCTION offprint_plain(content text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN octet_length(content) = length(content)
        THEN regexp_replace(left(content, 100000), '[!-/:-@\[-`{-~]+', ' ', 'g')
        ELSE regexp_replace(
            regexp_replace(normalize(left(coalesce(content, ''), 100000), NFKD), '[\u0300-\u036f]', '', 'g'),
            '[\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00bf\u00d7\u00f7\u2000-\u206f\u3000-\u303f]+', ' ', 'g')
    END
$$
"""

VECTORS = """
CREATE FUNCTION offprint_vectors(paper papers, OUT heading tsvector, OUT words tsvector) LANGUAGE plpgsql STABLE AS $$
DECLARE
    title tsvector := to_tsvector('offprint', offprint_plain(paper.title));
    names tsvector := to_tsvector('offprint', offprint_plain((
        SELECT string_agg(name, ', ') FROM json_array_elements_text(paper.authors) AS name)));
    arxiv tsvector := to_tsvector('offprint', offprint_plain(paper.arxiv));
    slug tsvector := to_tsvector('offprint', offprint_plain(paper.slug));
    ours tsvector := to_tsvector('offprint', offprint_plain(concat_ws(' ', paper.summary, paper.claims_text)));
    abstract tsvector := to_tsvector('offprint', offprint_plain(paper.abstract));
BEGIN
    heading := setweight(title, 'A') || setweight(names, 'B') || setweight(arxiv, 'C') || setweight(slug, 'D');
    words := setweight(title || arxiv || slug, 'A') || setweight(names, 'B')
        || setweight(ours, 'C') || setweight(abstract, 'D');
END
$$
"""

FOLLOW = """
CREATE FUNCTION papers_search_follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO papers_search (paper_id, heading, words)
        SELECT NEW.id, vectors.heading, vectors.words FROM offprint_vectors(NEW) AS vectors
        ON CONFLICT (paper_id) DO UPDATE SET heading = excluded.heading, words = excluded.words;
    RETURN NULL;
END
$$
"""

POSTGRESQL = (
    # The English stemmer, but every word counts, as in FTS5: a phrase may hold "of", and a title be "The Who".
    "CREATE TEXT SEARCH DICTIONARY offprint_english (TEMPLATE = snowball, LANGUAGE = english)",
    "CREATE TEXT SEARCH CONFIGURATION offprint (PARSER = default)",
    "ALTER TEXT SEARCH CONFIGURATION offprint ADD MAPPING FOR asciiword, word WITH offprint_english",
    "ALTER TEXT SEARCH CONFIGURATION offprint ADD MAPPING FOR numword, int, uint, float, sfloat, version WITH simple",
    PLAIN,
    VECTORS,
    FOLLOW,
    """
    CREATE TABLE papers_search (
        paper_id integer PRIMARY KEY REFERENCES papers (id) ON DELETE CASCADE,
        heading tsvector NOT NULL,
        words tsvector NOT NULL
    )
    """,
    # In the row itself: every search reads them, and from a place of their own that takes many times as long.
    "ALTER TABLE papers_search ALTER COLUMN heading SET STORAGE MAIN, ALTER COLUMN words SET STORAGE MAIN",
    """
    INSERT INTO papers_search (paper_id, heading, words)
        SELECT papers.id, vectors.heading, vectors.words FROM papers, offprint_vectors(papers) AS vectors
    """,
    # Every search reads through the list of what waits to be sorted in, so it is kept short (in kB); without one,
    # papers come in several times more slowly.
    "CREATE INDEX papers_search_heading ON papers_search USING gin (heading) WITH (gin_pending_list_limit = 512)",
    "CREATE INDEX papers_search_words ON papers_search USING gin (words) WITH (gin_pending_list_limit = 512)",
    """
    CREATE TRIGGER papers_search_follows
        AFTER INSERT OR UPDATE OF title, authors, summary, claims_text, abstract, arxiv, slug ON papers
        FOR EACH ROW EXECUTE FUNCTION papers_search_follow()
    """,
)

UNDO_POSTGRESQL = (
    "DROP TRIGGER papers_search_follows ON papers",
    "DROP FUNCTION papers_search_follow",
    "DROP TABLE papers_search",
    "DROP FUNCTION offprint_vectors",
    "DROP FUNCTION offprint_plain",
    "DROP TEXT SEARCH CONFIGURATION offprint",
    "DROP TEXT SEARCH DICTIONARY offprint_english",
)
