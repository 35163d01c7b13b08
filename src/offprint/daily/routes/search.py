"""What a search finds."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from offprint.daily.abstracts import has_math
from offprint.daily.accounts import current
from offprint.daily.measured import views
from offprint.daily.rendering import page
from offprint.daily.search import LONGEST_QUERY, VERDICTS, Filters, Found, search
from offprint.daily.search import Query as SearchQuery
from offprint.daily.votes import voted
from offprint.papers import FAMILIES
from offprint.store import Database

router = APIRouter(include_in_schema=False)
READ = ["GET", "HEAD"]
PAGE = 20
LAST_PAGE = 1000

VERDICT_NAMES = {
    "reproduced": "All claims reproduced",
    "partly": "Some claims reproduced",
    "not-reproduced": "No claim reproduced",
    "unmeasured": "Not yet measured",
}
assert set(VERDICT_NAMES) == set(VERDICTS)

Text = Annotated[str, Query(max_length=10_000)]


@dataclass(frozen=True)
class Chosen:
    """The form beside the results, as it was filled in."""

    since: str
    until: str
    family: str
    code: bool
    runs: bool
    verdict: str

    @property
    def parameters(self) -> dict[str, str]:
        """What was chosen, as parameters of the address."""
        ticked = {"code": "1" if self.code else "", "runs": "1" if self.runs else ""}
        given = {"since": self.since, "until": self.until, "family": self.family, "verdict": self.verdict, **ticked}
        return {name: value for name, value in given.items() if value}

    def filters(self) -> tuple[Filters, str]:
        """Return what can be read of it, and a sentence on what cannot, empty when all can."""
        days: dict[str, datetime.date] = {}
        problems = []
        for name, label, typed in (("since", "first", self.since), ("until", "last", self.until)):
            try:
                days |= {name: datetime.date.fromisoformat(typed)} if typed else {}
            except ValueError:
                problems.append(f"The {label} day is left out: days are written like 2025-08-20.")
        verdict = next((known for known in VERDICTS if known == self.verdict), None)
        if self.verdict and verdict is None:
            problems.append("The verdict is left out: there is none of this name.")
        filters = Filters(
            since=days.get("since"),
            until=days.get("until"),
            families=(self.family,) if self.family else (),
            has_code=self.code or None,
            runs_here=self.runs or None,
            verdict=verdict,
        )
        return filters, " ".join(problems)


@router.api_route("/search", methods=READ)
def results(
    request: Request,
    q: Text = "",
    since: Text = "",
    until: Text = "",
    family: Text = "",
    code: Text = "",
    runs: Text = "",
    verdict: Text = "",
    p: Annotated[int, Query(ge=1, le=LAST_PAGE)] = 1,
) -> Response:
    """Show the papers that hold what was asked for."""
    database: Database = request.app.state.database
    q = q[:LONGEST_QUERY]
    query = SearchQuery.parse(q)
    chosen = Chosen(_line(since, 20), _line(until, 20), _line(family, 40), bool(code), bool(runs), _line(verdict, 20))
    filters, problem = chosen.filters()
    reader = current(request)
    with database.reading() as session:
        semantic = request.app.state.semantic
        found = search(session, query, PAGE, (p - 1) * PAGE, filters, semantic=semantic)
        papers = [hit.paper for hit in found.hits]
        mine = voted(session, reader, papers)
    return page(
        request,
        "search.html",
        shared=True,
        q=q,
        query=query,
        asked=bool(query or filters),
        found=found,
        chosen=chosen,
        problem=problem,
        families=FAMILIES,
        verdicts=VERDICT_NAMES,
        links=_links(q, query, filters, chosen, found, p),
        views=views(request.app.state.measured, papers),
        voted_ids=mine,
        math=has_math(*(paper.title for paper in papers), *(hit.passage for hit in found.hits)),
        number=p,
    )


def _links(
    q: str, query: SearchQuery, filters: Filters, chosen: Chosen, found: Found, number: int
) -> dict[str, str | None]:
    """Return where the pages beside this one are, the feed of the search, and the form to have it mailed.

    Feed and mail are about what is to come: the days that were chosen are no part of them.
    """
    lasting = query.narrowed(filters.undated)
    here = {"q": q, **chosen.parameters}
    last = -(-found.total // PAGE)
    return {
        "before": _address("/search", here | ({"p": str(number - 1)} if number > 2 else {})) if number > 1 else None,
        "after": _address("/search", here | {"p": str(number + 1)}) if number < last else None,
        "feed": _address("/feeds/search.atom", {"q": lasting}) if 0 < len(lasting) <= LONGEST_QUERY else None,
        "mail": _address("/subscribe", {"query": lasting}) if 0 < len(lasting) <= LONGEST_QUERY else None,
    }


def _address(path: str, parameters: dict[str, str]) -> str:
    return f"{path}?{urlencode(parameters, errors='replace')}"


def _line(typed: str, longest: int) -> str:
    """Return what was typed without what no field of the form can hold."""
    return "".join(character for character in typed if character.isprintable())[:longest].strip()
