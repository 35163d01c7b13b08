"""A site as readers find it after some weeks: papers, comments, votes, a subscription, authors to confirm."""

from __future__ import annotations

import datetime

from mailing import add_paper, add_reader
from sqlalchemy.orm import Session
from websites import Website

from offprint.daily import authorship, comments, library, votes
from offprint.daily.library import load_records
from offprint.daily.mail.subscriptions import Links
from offprint.store import Account, Database, Subscription

SLUG = "vr-halpern"
"""A paper on record whose results are recorded."""

IMPORTED = "2508.11111"
"""A paper that was imported, with formulas."""

SUBSCRIBER = "subscriber@example.org"
COMMENT = """The saving is *large*, see [the note](https://example.org/a), and `VRHalpern` runs.

> It costs from $5 to $6.

```
x = averaged_operator_with_a_name_that_is_rather_long(first_argument, second_argument, third_argument)
```

- one
- two
"""
ABSTRACT = (
    r"We show that $\min_x \max_y f(x, y)$ needs $\mathcal{O}(\sqrt{n}/\varepsilon)$ calls: "
    r"$$\|F(x_k)\|^2 \le \frac{4 L^2 \|x_0 - x_*\|^2}{(k+1)^2} + \sum_{i=1}^{n} \frac{\sigma_i^2}{b_i} "
    r"+ \prod_{j=1}^{m} \left(1 - \frac{\mu_j}{L_j}\right)^{k} + \int_0^1 \nabla f(x + t (y - x))^\top (y - x)\,dt.$$ "
    "A long address, https://example.org/" + "very-long-path/" * 12 + ", is here too."
)


def furnish(database: Database) -> None:
    """Bring in papers, readers and what they did."""
    load_records(database)
    with database.session() as session:
        for number in range(150):
            moment = datetime.datetime(2025, 8, 1 + number % 19, 9, tzinfo=datetime.UTC)
            title = f"Imported number {number}: a study of perturbation at scale"
            add_paper(session, title, moment, arxiv=f"2508.{number:05}", abstract="We study perturbations.")
        moment = datetime.datetime(2025, 8, 20, 9, tzinfo=datetime.UTC)
        title = r"An $O(\sqrt{n})$ Bound for Games & <i>their</i> Limits"
        authors = ["Ada Lovelace", "Bo Author", *(f"Writer {number}" for number in range(20))]
        imported = add_paper(session, title, moment, arxiv=IMPORTED, abstract=ABSTRACT, authors=authors)
        recorded = library.find(session, SLUG)
        assert recorded is not None
        for number in range(4):
            reader = _account(session, f"reader{number}@example.org", f"reader-{number}")
            for paper in (imported, recorded):
                votes.vote(session, reader, paper, True)
                comments.add(session, reader, paper, COMMENT)
            authorship.claim(session, reader, imported, imported.authors[number])
        authorship.confirm(session, reader.id, imported.id)
        comments.hide(session, comments.add(session, reader, recorded, "Hidden."), True)
        _account(session, "banned@example.org", "banned-one", banned=True)
        add_reader(session, SUBSCRIBER, query='"domain generalization" -vision')


def subscription_path(site: Website) -> str:
    """Return where the one subscription is managed."""
    with site.database.session() as session:
        return Links("only for tests").path(session.query(Subscription).filter_by(email=SUBSCRIBER).one())


def _account(session: Session, email: str, handle: str, **fields: bool) -> Account:
    account = Account(email=email, handle=handle, name=handle.replace("-", " ").title(), **fields)
    session.add(account)
    session.flush()
    return account
