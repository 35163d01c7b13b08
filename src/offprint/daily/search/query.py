"""What readers type into the search box, read into words, phrases and filters."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple, get_args

LONGEST_QUERY = 200
MOST_TERMS = 20

Field = Literal["title", "author", "arxiv"]
VerdictName = Literal["reproduced", "partly", "not-reproduced", "unmeasured"]
VERDICTS: Final[tuple[VerdictName, ...]] = get_args(VerdictName)

UNREADABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
ADDRESS = re.compile(r"https?://arxiv\.org/(?:abs|pdf)/([\w./-]+?)(?:\.pdf)?(?=\s|$)", re.ASCII | re.IGNORECASE)
VERSION = re.compile(r"v\d+$")
PART = re.compile(r'(-?)(?:([A-Za-z]+):(?=[^\s:]))?(?:"([^"]*)"?|([^\s"]+))')


@dataclass(frozen=True)
class Filters:
    """What a paper must be, apart from its words; nothing is asked for by default.

    Parameters
    ----------
    since, until : datetime.date, optional
        The first and last day of a span in which a day lists the paper.
    families : tuple of str
        Any of these families.
    has_code, runs_here : bool, optional
        Whether the authors' code is known; whether its claims can be run here.
    verdict : str, optional
        ``reproduced`` (all its claims), ``partly``, ``not-reproduced`` or ``unmeasured``.
    years : tuple of int, optional
        The first and last year of publication.
    """

    since: datetime.date | None = None
    until: datetime.date | None = None
    families: tuple[str, ...] = ()
    has_code: bool | None = None
    runs_here: bool | None = None
    verdict: VerdictName | None = None
    years: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        """Whether anything is asked for."""
        return self != Filters()

    @property
    def undated(self) -> Filters:
        """The same, whatever the day."""
        return replace(self, since=None, until=None)

    @property
    def operators(self) -> tuple[str, ...]:
        """The same, as a reader would type it.

        Examples
        --------
        >>> Filters(families=("bags", "sets"), has_code=True, verdict="partly").operators
        ('family:bags,sets', 'has:code', 'is:partly')
        """
        typed = [
            self.since and f"since:{self.since}",
            self.until and f"until:{self.until}",
            self.families and f"family:{','.join(self.families)}",
            self.years and f"year:{'-'.join(map(str, dict.fromkeys(self.years)))}",
            self.has_code is not None and ("has:code" if self.has_code else "-has:code"),
            self.runs_here is not None and ("is:runnable" if self.runs_here else "-is:runnable"),
            self.verdict and f"is:{self.verdict}",
        ]
        return tuple(operator for operator in typed if operator)


@dataclass(frozen=True)
class Term:
    """A word or phrase to look for, everywhere or in one field."""

    text: str
    field: Field | None = None
    quoted: bool = False

    def __str__(self) -> str:
        """Return it as it can be typed."""
        text = f'"{self.text}"' if self.quoted or " " in self.text else self.text
        return f"{self.field}:{text}" if self.field else text


class Match(NamedTuple):
    """A paper that an index finds: its id, its score, and whether its heading (title, authors, identifiers) says all.

    ``heading`` is ``None`` where that was not looked at.
    """

    id: int
    score: float
    heading: bool | None = None


@dataclass(frozen=True)
class Query:
    """What a reader typed: words and phrases that must occur, those that must not (after a minus), and filters.

    Examples
    --------
    >>> query = Query.parse('halpern "finite sum" author:diakonikolas -privacy family:optimize')
    >>> [str(term) for term in query.wanted]
    ['halpern', '"finite sum"', 'author:diakonikolas']
    >>> [str(term) for term in query.unwanted], query.filters.families
    (['privacy'], ('optimize',))
    """

    wanted: tuple[Term, ...] = ()
    unwanted: tuple[Term, ...] = ()
    filters: Filters = field(default_factory=Filters)
    unless: tuple[Filters, ...] = ()
    """Filters after a minus: papers that any of them lets through are left out."""

    def __bool__(self) -> bool:
        """Whether anything is asked for; leaving out alone is not."""
        return bool(self.wanted or self.filters)

    @property
    def unfiltered(self) -> Query:
        """Its words alone."""
        return replace(self, filters=Filters(), unless=())

    @classmethod
    def parse(cls, typed: str) -> Query:
        """Read a query. Nothing a reader can type is an error; what holds no letter or digit is left out.

        An operator that is not known, or whose value cannot be read, counts as words.
        """
        typed = UNREADABLE.sub(" ", typed[:LONGEST_QUERY])
        typed = ADDRESS.sub(r"arxiv:\1", typed)
        query = cls()
        for minus, name, phrase, word in PART.findall(typed)[:MOST_TERMS]:
            query = query._with(bool(minus), name.lower(), " ".join((phrase or word).split()), bool(phrase))
        return query

    def narrowed(self, filters: Filters) -> str:
        """Return, as it can be typed, this query together with filters chosen beside it."""
        unless = (f"-{operator}" for other in self.unless for operator in other.operators)
        parts = [*map(str, self.wanted), *(f"-{term}" for term in self.unwanted), *self.filters.operators, *unless]
        return " ".join(dict.fromkeys([*parts, *filters.operators]))

    def _with(self, minus: bool, name: str, value: str, quoted: bool) -> Query:
        """Return the query with one more part."""
        if not any(character.isalnum() for character in value):
            return self
        if name in OPERATORS and (chosen := OPERATORS[name](value)):
            if minus:
                return replace(self, unless=(*self.unless, Filters(**chosen)))
            return replace(self, filters=replace(self.filters, **chosen))
        if name in FIELDS:
            term = Term(VERSION.sub("", value) if name == "arxiv" else value, FIELDS[name], quoted)
        else:
            term = Term(f"{name}:{value}" if name else value, None, quoted and not name)
        if minus:
            return replace(self, unwanted=(*self.unwanted, term))
        return replace(self, wanted=(*self.wanted, term))


FIELDS: dict[str, Field] = {"author": "author", "authors": "author", "title": "title", "arxiv": "arxiv"}


def _families(value: str) -> dict[str, Any] | None:
    families = tuple(re.findall(r"[\w.-]+", value.lower()))
    return {"families": families} if families else None


def _years(value: str) -> dict[str, Any] | None:
    found = re.fullmatch(r"(\d{4})(?:-(\d{4}))?", value, re.ASCII)
    return {"years": (int(found[1]), int(found[2] or found[1]))} if found else None


def _has(value: str) -> dict[str, Any] | None:
    return {"has_code": True} if value.lower() == "code" else None


def _is(value: str) -> dict[str, Any] | None:
    value = value.lower()
    if value == "runnable":
        return {"runs_here": True}
    return {"verdict": value} if value in VERDICTS else None


def _day(key: str) -> Callable[[str], dict[str, Any] | None]:
    def read(value: str) -> dict[str, Any] | None:
        try:
            return {key: datetime.date.fromisoformat(value)}
        except ValueError:
            return None

    return read


OPERATORS: dict[str, Callable[[str], dict[str, Any] | None]] = {
    "family": _families,
    "topic": _families,
    "year": _years,
    "has": _has,
    "is": _is,
    "since": _day("since"),
    "until": _day("until"),
}
