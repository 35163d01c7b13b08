"""Search: by words, by meaning where a model is set, and papers like a paper."""

from offprint.daily.search.query import LONGEST_QUERY, VERDICTS, Filters, Query, Term
from offprint.daily.search.searching import Found, Hit, matches, papers, search
from offprint.daily.search.semantic import Semantic
from offprint.daily.search.similarity import Holders, similar

__all__ = [
    "LONGEST_QUERY",
    "VERDICTS",
    "Filters",
    "Found",
    "Hit",
    "Holders",
    "Query",
    "Semantic",
    "Term",
    "matches",
    "papers",
    "search",
    "similar",
]
