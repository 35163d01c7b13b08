"""Submitting a paper by arXiv id: the forms an id has, what is listed, and what happens when arXiv does not help."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Sequence

import pytest
from attacks import dangers
from readers import Browser, send, sign_in
from sqlalchemy import select

from offprint.daily import submissions
from offprint.daily.importing.entries import Entry, entry
from offprint.daily.importing.streaming import SourceError
from offprint.daily.inputs import arxiv_id
from offprint.store import Account, Database, Listing, Paper
from offprint.store.models import now

TITLE = "A <b>New</b> Paper & its $\\alpha$"


class Arxiv:
    """Stands for arXiv, which knows one paper."""

    def __init__(self, known: str = "2310.02987") -> None:
        self.known = known
        self.asked: list[list[str]] = []

    def __call__(self, ids: Sequence[str]) -> list[Entry]:
        self.asked.append(list(ids))
        written = datetime.datetime(2023, 10, 4, tzinfo=datetime.UTC)
        if list(ids) != [self.known]:
            return []
        facts = {"abstract": "It is new.", "authors": ["Ada Lovelace"], "categories": ["cs.LG"]}
        return [entry(1, TITLE, arxiv=self.known, published=written, day=written.date(), **facts)]  # type: ignore[arg-type]


@pytest.fixture
def arxiv(client: Browser) -> Arxiv:
    client.app.state.fetch_papers = fetch = Arxiv()  # type: ignore[attr-defined]
    return fetch


def submit(client: Browser, typed: str):
    return send(client, "/submit", arxiv=typed)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2310.02987", "2310.02987"), (" 2310.02987v12 ", "2310.02987"), ("0704.0001", "0704.0001"),
        ("arXiv:2310.02987v2", "2310.02987"), ("arxiv: 2310.02987", "2310.02987"),
        ("arXiv:2310.02987v2 [cs.LG]", "2310.02987"),
        ("https://arxiv.org/abs/2310.02987", "2310.02987"), ("http://www.arxiv.org/abs/2310.02987v1", "2310.02987"),
        ("https://arxiv.org/pdf/2310.02987v2.pdf", "2310.02987"),
        ("https://arxiv.org/pdf/2310.02987#page=2", "2310.02987"),
        ("https://arxiv.org/html/2310.02987v1/", "2310.02987"), ("export.arxiv.org/abs/2310.02987?x=1", "2310.02987"),
        ("https://huggingface.co/papers/2310.02987", "2310.02987"),
        ("https://doi.org/10.48550/arXiv.2310.02987", "2310.02987"), ("10.48550/arxiv.2310.02987", "2310.02987"),
        ("hep-th/9901001", "hep-th/9901001"), ("math.GT/0309136v2", "math/0309136"),
        ("cond-mat/0001001", "cond-mat/0001001"),
        ("https://arxiv.org/abs/math.GT/0309136v1", "math/0309136"),
        ("https://arxiv.org/pdf/hep-th/9901001", "hep-th/9901001"),
    ],
)  # fmt: skip
def test_the_forms_of_an_id(typed: str, meant: str) -> None:
    assert arxiv_id(typed) == meant


NO_IDS = (
    "", "alpha", "2310", "2310.029", "2310.029871", "2310.02987x", "2310.02987 2310.02988", "23100.2987",
    "https://evil.example/2310.02987", "https://arxiv.org.evil.example/abs/2310.02987", "javascript:2310.02987",
    "hep-th/99010", "../2310.02987", "' OR 1=1 --", "２３１０.０２９８７", "2310.02987\n2310.02988", "<script>",
    "a" * 5000, "2310.02987' UNION SELECT 1", "\u202e2310.02987",
)  # fmt: skip


@pytest.mark.parametrize("typed", NO_IDS)
def test_what_is_none(typed: str) -> None:
    with pytest.raises(ValueError, match="arXiv id looks like"):
        arxiv_id(typed)


def test_what_is_none_comes_back(client: Browser, arxiv: Arxiv, database: Database) -> None:
    sign_in(client, database)
    for typed in NO_IDS:
        response = submit(client, typed)
        assert response.status_code == 422
        assert "arXiv id looks like" in response.text
        assert dangers(response.text) == []
    assert 'value="alpha"' in submit(client, "alpha").text
    assert arxiv.asked == []


def test_a_new_paper_is_listed_today_under_the_handle(client: Browser, arxiv: Arxiv, database: Database) -> None:
    sign_in(client, database, handle="ada-l")
    before = now()
    response = submit(client, "https://arxiv.org/abs/2310.02987v3")
    assert (response.status_code, response.headers["location"]) == (303, "/papers/2310.02987")
    with database.session() as session:
        paper = session.query(Paper).filter_by(arxiv="2310.02987").one()
        [listing] = paper.listings
        assert (paper.title, paper.abstract, paper.authors) == (TITLE, "It is new.", ["Ada Lovelace"])
        assert listing.submitter == "ada-l"
        assert listing.account_id == session.scalars(select(Account.id)).one()
        assert before.date() <= listing.day <= now().date()
        assert listing.submitted_at is not None
        assert listing.submitted_at >= before
    assert "It is new." in client.get("/papers/2310.02987").text
    assert "A &lt;b&gt;New&lt;/b&gt; Paper" in client.get(f"/{listing.day}").text


def test_a_listed_paper_is_gone_to_and_arxiv_not_asked(client: Browser, arxiv: Arxiv, database: Database) -> None:
    sign_in(client, database)
    assert submit(client, "2501.00001v2").headers["location"] == "/papers/alpha-method"
    submit(client, "2310.02987")
    assert submit(client, "2310.02987").headers["location"] == "/papers/2310.02987"
    assert arxiv.asked == [["2310.02987"]]
    with database.session() as session:
        assert len(session.scalars(select(Listing).join(Paper).where(Paper.arxiv == "2310.02987")).all()) == 1


def test_a_known_paper_that_no_day_lists_is_listed(client: Browser, arxiv: Arxiv, database: Database) -> None:
    with database.session() as session:
        session.add(Paper(arxiv="2310.02987", title="As imported", title_key="asimported"))
    sign_in(client, database, handle="ada-l")
    submit(client, "2310.02987")
    with database.session() as session:
        [paper] = session.query(Paper).filter_by(arxiv="2310.02987")
        assert [listing.submitter for listing in paper.listings] == ["ada-l"]


def test_what_arxiv_does_not_have_is_said(client: Browser, arxiv: Arxiv, database: Database) -> None:
    sign_in(client, database)
    response = submit(client, "2310.00001")
    assert response.status_code == 422
    assert "arXiv has no paper 2310.00001" in response.text
    assert 'value="2310.00001"' in response.text


def test_when_arxiv_is_silent_the_form_says_so(client: Browser, database: Database) -> None:
    def silent(ids: Sequence[str]) -> list[Entry]:
        raise SourceError("timed out at https://export.arxiv.example/secret")

    client.app.state.fetch_papers = silent  # type: ignore[attr-defined]
    sign_in(client, database)
    response = submit(client, "2310.02987")
    assert response.status_code == 503
    assert "arXiv does not answer now" in response.text
    assert "export.arxiv.example" not in response.text


def test_two_at_once_make_one_paper(database: Database, client: Browser) -> None:
    account = sign_in(client, database)
    together, found = threading.Barrier(4), []

    class AtOnce(Arxiv):
        def __call__(self, ids: Sequence[str]) -> list[Entry]:
            together.wait(10)
            return super().__call__(ids)

    def act() -> None:
        found.append(submissions.submit(database, account, "2310.02987", AtOnce()).id)

    threads = [threading.Thread(target=act) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    assert len(set(found)) == 1
    with database.session() as session:
        assert len(session.query(Paper).filter_by(arxiv="2310.02987").one().listings) == 1


def test_it_takes_an_account(client: Browser, arxiv: Arxiv) -> None:
    assert client.get("/submit").headers["location"] == "/sign-in?next=/submit"
    response = send(client, "/submit", arxiv="2310.02987")
    assert (response.status_code, response.headers["location"]) == (303, "/sign-in?next=/submit")
    assert arxiv.asked == []
