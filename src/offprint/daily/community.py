"""What a paper's page shows of its readers: votes, comments, and which of its authors are among them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from starlette.requests import Request

from offprint.daily import comments
from offprint.daily.accounts import current
from offprint.store import Account, Authorship, Database, Paper


@dataclass(frozen=True)
class CommunityView:
    """What ``_community.html`` shows."""

    paper: Paper
    part: comments.Part
    first: bool
    """Whether the part is the first."""
    authors: tuple[str, ...]
    """Those of the paper's authors who are confirmed to be among the readers."""
    own: Authorship | None
    """The reader's own claim to be an author."""
    claimable: tuple[str, ...]


def view(request: Request, paper: Paper) -> CommunityView:
    """Gather what readers do with a paper, as this one sees it."""
    database: Database = request.app.state.database
    reader: Account | None = current(request)
    asked = request.query_params.get("after", "")
    after = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 10 else 0
    with database.reading() as session:
        claims = session.scalars(select(Authorship).where(Authorship.paper_id == paper.id)).all()
        confirmed = {claim.account_id: claim.author for claim in claims if claim.confirmed_at is not None}
        part = comments.part(session, paper, reader, confirmed, after)
    own = next((claim for claim in claims if reader is not None and claim.account_id == reader.id), None)
    return CommunityView(
        paper=paper,
        part=part,
        first=after == 0,
        authors=tuple(confirmed.values()),
        own=own,
        claimable=tuple(author for author in dict.fromkeys(paper.authors) if author not in confirmed.values()),
    )
