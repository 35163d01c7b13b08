"""From the rows of the database, and what was measured, to what the API tells."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from offprint.daily import library
from offprint.daily.api import hub
from offprint.daily.measured import ClaimView, PaperView
from offprint.daily.measured import Number as MeasuredNumber
from offprint.store import Account, Listing, Paper

AVATAR = "/static/icon.svg"


class Teller:
    """Tells papers and claims, with what was measured of those on record.

    Parameters
    ----------
    base : str
        The address of the site.
    views : mapping
        What was measured, by slug.
    names : mapping
        The names of submitters, by account.
    """

    def __init__(self, base: str, views: Mapping[str, PaperView], names: Mapping[int, str] | None = None) -> None:
        self.base = base
        self.views = views
        self.names = names or {}

    def detail(self, paper: Paper, listing: Listing | None) -> hub.PaperDetail:
        """Tell a paper."""
        return hub.PaperDetail(**dict(self._paper(paper, listing)), offprint=self._offprint(paper))

    def entry(self, paper: Paper, listing: Listing | None) -> hub.PaperEntry:
        """Tell a paper on a list."""
        told = self._paper(paper, listing)
        return hub.PaperEntry(
            paper=told,
            title=told.title,
            summary=told.summary,
            published_at=told.submitted_on_daily_at if told.published_at else None,
            submitted_on_daily_at=told.submitted_on_daily_at,
            submitted_by=told.submitted_on_daily_by,
            upvotes=told.upvotes,
            num_comments=told.num_comments,
            github_repo=told.github_repo,
            project_page=told.project_page,
            offprint=self._offprint(paper),
        )

    def claim(self, paper: Paper, view: PaperView, claim: ClaimView) -> hub.ClaimEntry:
        """Tell a claim on a list."""
        return hub.ClaimEntry(
            paper_id=identifier(paper),
            paper_title=paper.title,
            family=view.record.family,
            page=f"{self.base}{library.address(paper)}#{claim.claim.id}",
            claim=told_claim(claim),
        )

    def _paper(self, paper: Paper, listing: Listing | None) -> hub.Paper:
        code = library.code_address(paper)
        on_github = code is not None and urlsplit(code).hostname == "github.com"
        return hub.Paper(
            id=identifier(paper),
            title=paper.title,
            summary=paper.abstract or paper.summary,
            authors=[hub.Author(name=name) for name in paper.authors],
            published_at=moment(paper.published_at) if paper.published_at else None,
            submitted_on_daily_at=moment(listed_at(listing)) if listing else None,
            submitted_on_daily_by=self._submitter(listing.submitter, listing)
            if listing and listing.submitter
            else None,
            upvotes=paper.n_votes,
            num_comments=paper.n_comments,
            github_repo=code if on_github else None,
            project_page=None if on_github else code,
        )

    def _submitter(self, handle: str, listing: Listing) -> hub.Submitter:
        name = self.names.get(listing.account_id or 0, handle)
        return hub.Submitter(user=handle, name=handle, fullname=name, avatar_url=f"{self.base}{AVATAR}")

    def _offprint(self, paper: Paper) -> hub.Offprint:
        view = self.views.get(paper.slug or "")
        return hub.Offprint(
            page=f"{self.base}{library.address(paper)}",
            slug=paper.slug,
            family=paper.family,
            summary=paper.summary,
            year=paper.year,
            venue=paper.venue,
            code=library.code_address(paper),
            categories=paper.categories,
            runs_here=view.runnable if view else False,
            badge=view.badge if view else None,
            claims=[told_claim(claim) for claim in view.claims] if view else [],
            import_lines=list(view.record.import_lines) if view else [],
        )


def identifier(paper: Paper) -> str:
    """Return what the API calls a paper: its arXiv id, else its slug, else its number here."""
    return paper.arxiv or paper.slug or str(paper.id)


def moment(when: datetime.datetime) -> str:
    """Write a moment as the Hub does.

    Examples
    --------
    >>> moment(datetime.datetime(2025, 8, 20, 14, 5, tzinfo=datetime.UTC))
    '2025-08-20T14:05:00.000Z'
    """
    return when.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def listed_at(listing: Listing) -> datetime.datetime:
    """Return when a paper was listed: always on the day of the list, since clients take the day from it."""
    if listing.submitted_at and listing.submitted_at.date() == listing.day:
        return listing.submitted_at
    return datetime.datetime.combine(listing.day, datetime.time(), datetime.UTC)


def names(session: Session, listings: Iterable[Listing | None]) -> dict[int, str]:
    """Return the names of those submitters who have an account here, by account."""
    accounts = {listing.account_id for listing in listings if listing and listing.account_id}
    if not accounts:
        return {}
    found = session.execute(select(Account.id, Account.name).where(Account.id.in_(accounts)))
    return {number: name for number, name in found if name}


def told_claim(view: ClaimView) -> hub.Claim:
    """Tell a claim, with what was recorded of it or, failing that, measured here."""
    claim, shown = view.claim, view.recorded or view.here
    about = {"id": claim.id, "statement": claim.statement, "source": claim.source, "verdict": view.verdict}
    if shown is None:
        first, *others = claim.criteria("full")
        return hub.Claim.model_validate(
            about
            | {"metric": first.metric, "rule": first.expect.text, "reported": claim.reported}
            | {"also": [hub.Number(metric=item.metric, rule=item.expect.text) for item in others] or None}
        )
    number, *further = shown.numbers
    return hub.Claim.model_validate(
        told_number(number).model_dump(exclude={"verdict"})
        | about
        | {"reported": shown.reported, "seeds": shown.seeds, "scale": shown.provenance.scale}
        | {"measured_at": moment(shown.provenance.when), "commit": shown.provenance.commit or None}
        | {"command": shown.provenance.command, "also": [told_number(item) for item in further] or None}
    )


def told_number(number: MeasuredNumber) -> hub.Number:
    """Tell a number. What is not finite has no place in JSON."""
    return hub.Number(
        metric=number.metric,
        rule=number.expected,
        value=number.value if number.value is not None and math.isfinite(number.value) else None,
        interval=number.interval if number.interval and all(map(math.isfinite, number.interval)) else None,
        verdict=number.verdict,
    )
