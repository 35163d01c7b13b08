"""Papers that are inserted by the thousand have their words indexed by one statement, not row by row.

The trigger on insertion waits while its transaction says so, and whoever said so indexes the words before it commits
(:func:`offprint.daily.search.adding.add_papers`): by a row in ``papers_indexed_together`` on SQLite, where only one
transaction writes and nobody else ever sees that row; by a setting that ends with the transaction on PostgreSQL. There
the vectors of texts that are plain already come from a function of their own, which the trigger uses too.
"""

from alembic import op

revision = "0007"
down_revision = "0006"

COLUMNS = "title, authors, summary, claims, abstract, arxiv, slug"
ALONE = "NOT EXISTS (SELECT 1 FROM papers_indexed_together)"
FOLLOWED = "title, authors, summary, claims_text, abstract, arxiv, slug"
NOT_TOGETHER = "WHEN (coalesce(current_setting('offprint.papers_indexed_together', true), '') <> 'on')"

WEIGHTED = """
CREATE FUNCTION offprint_weighted(
    title_text text, names_text text, arxiv_text text, slug_text text, ours_text text, abstract_text text,
    OUT heading tsvector, OUT words tsvector
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    title tsvector := to_tsvector('offprint', title_text);
    names tsvector := setweight(to_tsvector('offprint', names_text), 'B');
    arxiv tsvector := to_tsvector('offprint', arxiv_text);
    slug tsvector := to_tsvector('offprint', slug_text);
BEGIN
    heading := setweight(title, 'A') || names || setweight(arxiv, 'C') || setweight(slug, 'D');
    words := setweight(title || arxiv || slug, 'A') || names
        || setweight(to_tsvector('offprint', ours_text), 'C')
        || setweight(to_tsvector('offprint', abstract_text), 'D');
END
$$
"""

VECTORS = """
CREATE OR REPLACE FUNCTION offprint_vectors(paper papers, OUT heading tsvector, OUT words tsvector)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT weighted.heading, weighted.words INTO heading, words FROM offprint_weighted(
        offprint_plain(paper.title),
        offprint_plain((SELECT string_agg(name, ', ') FROM json_array_elements_text(paper.authors) AS name)),
        offprint_plain(paper.arxiv),
        offprint_plain(paper.slug),
        offprint_plain(concat_ws(' ', paper.summary, paper.claims_text)),
        offprint_plain(paper.abstract)
    ) AS weighted;
END
$$
"""

FORMER_VECTORS = """
CREATE OR REPLACE FUNCTION offprint_vectors(paper papers, OUT heading tsvector, OUT words tsvector)
LANGUAGE plpgsql STABLE AS $$
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


def upgrade() -> None:
    """Apply."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(WEIGHTED)
        op.execute(VECTORS)
        _follow_postgresql(NOT_TOGETHER)
    else:
        op.execute("CREATE TABLE papers_indexed_together (id INTEGER PRIMARY KEY)")
        _follow_sqlite(f"WHEN {ALONE}")


def downgrade() -> None:
    """Undo."""
    if op.get_bind().dialect.name == "postgresql":
        _follow_postgresql("")
        op.execute(FORMER_VECTORS)
        op.execute("DROP FUNCTION offprint_weighted")
    else:
        _follow_sqlite("")
        op.execute("DROP TABLE papers_indexed_together")


def _follow_sqlite(when: str) -> None:
    op.execute("DROP TRIGGER papers_search_insert")
    authors = "(SELECT group_concat(value, ', ') FROM json_each(new.authors))"
    texts = f"new.title, {authors}, new.summary, new.claims_text, new.abstract, new.arxiv, new.slug"
    op.execute(
        f"CREATE TRIGGER papers_search_insert AFTER INSERT ON papers {when} BEGIN "
        f"INSERT INTO papers_search (rowid, {COLUMNS}) SELECT new.id, {texts}; END"
    )


def _follow_postgresql(when: str) -> None:
    op.execute("DROP TRIGGER papers_search_follows ON papers")
    op.execute(
        f"CREATE TRIGGER papers_search_follows AFTER INSERT OR UPDATE OF {FOLLOWED} ON papers "
        f"FOR EACH ROW {when} EXECUTE FUNCTION papers_search_follow()"
    )
