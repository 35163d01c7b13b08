"""A site's worth of made-up papers: words as frequent as in real abstracts, days as full as real ones.

``python benchmarks/daily_papers.py sqlite:////tmp/site.db 100000`` fills a database.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

import numpy as np
from sqlalchemy import Table, text

from offprint.daily.library import title_key
from offprint.daily.search.adding import add_papers
from offprint.daily.trending import listed_hotness
from offprint.papers import FAMILIES
from offprint.store import Database, Listing
from offprint.store.inserts import insert_many

LAST_DAY = datetime.date(2025, 8, 20)
N_DAYS = 400
N_WORDS = 40_000
BATCH = 2_000
CATEGORIES = ("cs.LG", "cs.CV", "cs.CL", "stat.ML", "cs.AI", "cs.RO", "eess.IV", "math.OC")

FUNCTION_WORDS = """
the of and a to in we that for is on with our by this as are an from which can be it at have has not more than these
such using while both or their its also into over between show
"""
CONTENT_WORDS = """
learning model models data method methods training performance network networks neural language deep large image tasks
results approach framework task based algorithm features propose experiments problem information representation
optimization generative graph diffusion reinforcement policy transformer attention efficient robust robustness
prediction classification detection segmentation reasoning agents video benchmark domain generalization adversarial
privacy federated gradient stochastic convergence variational inference bayesian sampling estimation regression kernel
causal distribution shift supervised contrastive pretraining embedding retrieval quantization pruning sparse low rank
tensor matrix convex nonconvex minimax bandit regret exploration planning control robot manipulation driving medical
imaging protein molecular climate time series forecasting anomaly streaming online continual transfer adaptation
multimodal alignment preference feedback reward safety explanation interpretability attribution certified bounds
theory theorem complexity approximation equivariant symmetric manifold geometry topology spectral fourier wavelet
operator physics simulation solver finite sum variance reduction momentum adaptive step size monotone inclusion
halpern iteration fixed point
"""
SYLLABLES = """
ba ce di fo gu ka le mi no pu ra se ti vo xu ya ze lor men tar vis gen con pre str al en ix om us
"""
FIRST_NAMES = """
Ada Björn Chen Dana Elif Fatima Gustav Hana Ivan Jelena Kofi Lucía Mehmet Nadia Omar Priya Wei Zoë
"""


def fill(database: Database, n_papers: int, seed: int = 0) -> None:
    """Add papers, each listed on one of the last 400 days, and bring the statistics of the query planner up to date.

    Parameters
    ----------
    database : Database
    n_papers : int
    seed : int
        The same seed, number and starting database give the same rows.
    """
    made = papers(n_papers, seed)
    while batch := list(islice(made, BATCH)):
        with database.session() as session:
            ids = add_papers(session, batch)
            listings = [
                {"day": row["published_at"].date(), "paper_id": number, "position": number % 1000}
                for number, row in zip(ids, batch, strict=True)
            ]
            insert_many(session.connection(), cast(Table, Listing.__table__), listings)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE" if connection.dialect.name == "postgresql" else "ANALYZE"))


def vocabulary(seed: int = 0) -> list[str]:
    """Return the words, the most frequent first: function words, words of the field, then made-up ones."""
    known = (FUNCTION_WORDS + CONTENT_WORDS).split()
    syllables = SYLLABLES.split()
    picked = np.random.default_rng(seed).integers(len(syllables), size=(3 * N_WORDS, 4))
    made = ("".join(syllables[place] for place in row[: 2 + row[0] % 3]) for row in picked.tolist())
    return list(dict.fromkeys([*known, *made]))[:N_WORDS]


def papers(n_papers: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the columns of papers, oldest first."""
    words = np.array(vocabulary(), dtype=object)
    rng = np.random.default_rng(seed)
    in_titles, in_abstracts = _Zipf(words[len(FUNCTION_WORDS.split()) :], 10.0), _Zipf(words, 2.7)
    first_names = FIRST_NAMES.split()
    surnames = np.array([word.capitalize() for word in words[3_000:8_000]], dtype=object)
    for start in range(0, n_papers, BATCH):
        n = min(BATCH, n_papers - start)
        titles = in_titles.pick(rng, rng.integers(5, 12, n))
        abstracts = in_abstracts.pick(rng, np.clip(rng.normal(150, 40, n), 40, 300).astype(int))
        n_authors = np.clip(rng.poisson(4.5, n), 1, 30)
        has_family, has_code = rng.random(n) < 0.5, rng.random(n) < 0.3
        for place, number in enumerate(range(start, start + n)):
            title = " ".join(titles[place]).title()
            first = rng.integers(len(first_names), size=n_authors[place])
            last = surnames[(len(surnames) * rng.random(n_authors[place]) ** 2).astype(int)]
            day = LAST_DAY - datetime.timedelta(days=N_DAYS - 1 - number * N_DAYS // n_papers)
            noon = datetime.datetime.combine(day, datetime.time(12, tzinfo=datetime.UTC))
            yield {
                # 9 in front of the month: a month that no real identifier has.
                "arxiv": f"{day:%y}{90 + number // 100_000 % 10}.{number % 100_000:05d}",
                "title": title,
                "title_key": title_key(title),
                "authors": [f"{first_names[a]} {b}" for a, b in zip(first, last, strict=True)],
                "abstract": _sentences(abstracts[place]),
                "family": FAMILIES[number % len(FAMILIES)] if has_family[place] else None,
                "year": day.year,
                "code": f"https://example.org/code/{number}" if has_code[place] else None,
                "categories": [CATEGORIES[number % len(CATEGORIES)]],
                "published_at": noon,
                "hotness": listed_hotness(day),
                "added_at": noon,
            }


class _Zipf:
    """Words as frequent as their rank says, by Zipf's law with Mandelbrot's shift, which flattens the head."""

    def __init__(self, words: np.ndarray, shift: float) -> None:
        weights = (np.arange(len(words)) + shift) ** -1.1
        self.words, self.cumulated = words, np.cumsum(weights / weights.sum())

    def pick(self, rng: np.random.Generator, lengths: np.ndarray) -> list[list[str]]:
        """Return lists of words, of these lengths."""
        places = np.searchsorted(self.cumulated, rng.random(lengths.sum()))
        picked = self.words[np.minimum(places, len(self.words) - 1)]
        return [part.tolist() for part in np.split(picked, np.cumsum(lengths)[:-1])]


def _sentences(words: list[str], length: int = 20) -> str:
    """Write words as sentences."""
    parts = (" ".join(words[start : start + length]).capitalize() for start in range(0, len(words), length))
    return ". ".join(parts) + "."


if __name__ == "__main__":
    begun = time.perf_counter()
    fill(Database(sys.argv[1]), int(sys.argv[2]))
    print(f"{int(sys.argv[2]):,} papers in {time.perf_counter() - begun:.1f} s")
