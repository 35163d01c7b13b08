"""Votes: one for each reader, counted right whatever happens at once."""

from __future__ import annotations

import random
import re
import threading

import pytest
from readers import Browser, send, sign_in, token
from sqlalchemy import func, select

from offprint.daily import trending, votes
from offprint.store import Account, Database, Paper, Vote


def paper(database: Database, slug: str = "alpha-method") -> Paper:
    with database.session() as session:
        return session.query(Paper).filter_by(slug=slug).one()


def readers(database: Database, many: int) -> list[Account]:
    with database.session() as session:
        found = [Account(email=f"r{i}@example.org", handle=f"reader-{i}", name=f"R{i}") for i in range(many)]
        session.add_all(found)
    return found


def untold(text: str) -> str:
    return re.sub(r'name="token" value="[^"]*"', "", text)


def check(database: Database) -> None:
    """Compare what is kept with papers to a count of the rows, and hotness to the documented formula."""
    with database.session() as session:
        for found in session.scalars(select(Paper)):
            rows = session.scalar(select(func.count()).select_from(Vote).where(Vote.paper_id == found.id))
            kept = found.n_votes, found.hotness
            assert kept[0] == rows
            trending.refresh(session, found)
            assert kept == (found.n_votes, found.hotness)


def test_any_order_of_votes_leaves_one_for_each_reader(database: Database) -> None:
    chance, found = random.Random(0), paper(database)
    accounts, wanted = readers(database, 4), set()
    for _ in range(60):
        account, up = chance.choice(accounts), chance.random() < 0.6
        with database.session() as session:
            counted = votes.vote(session, account, found, up).n_votes
        (wanted.add if up else wanted.discard)(account.id)
        assert counted == len(wanted)
    check(database)


def test_votes_at_once_are_all_counted(database: Database) -> None:
    found, accounts = paper(database), readers(database, 8)
    together, failures = threading.Barrier(len(accounts)), []

    def act(number: int, account: Account) -> None:
        together.wait(10)
        try:
            for up in (True, True, False, True) if number % 2 else (True, False, True, False):
                with database.session() as session:
                    votes.vote(session, account, found, up)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=act, args=pair) for pair in enumerate(accounts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert paper(database).n_votes == 4
    check(database)


def test_a_count_read_before_another_vote_is_not_kept(database: Database) -> None:
    """A vote counted from what was read before it was another's turn would be written over the other's."""
    found, (one, other) = paper(database), readers(database, 2)
    with database.session() as session:
        held = session.get_one(Paper, found.id)
        assert held.n_votes == 0
        with database.session() as second:
            votes.vote(second, other, found, True)
        assert votes.vote(session, one, held, True).n_votes == 2
    check(database)


class TestOnTheSite:
    def test_a_vote_is_shown_and_can_be_taken_back(self, client: Browser, database: Database) -> None:
        sign_in(client, database)
        page = client.get("/papers/alpha-method").text
        assert 'aria-pressed="false" aria-label="Vote for this paper; votes so far: 0"' in page
        for wanted, pressed, count in (
            ("up", "true", 1),
            ("up", "true", 1),
            ("none", "false", 0),
            ("none", "false", 0),
        ):
            response = send(client, "/papers/alpha-method/vote", vote=wanted)
            assert (response.status_code, response.headers["location"]) == (303, "/papers/alpha-method")
            page = client.get("/papers/alpha-method").text
            assert f'aria-pressed="{pressed}" aria-label="Vote for this paper; votes so far: {count}"' in page
        check(database)

    def test_htmx_gets_the_box_and_can_go_on_from_it(self, client: Browser, database: Database) -> None:
        sign_in(client, database)
        fields = {"token": token(client), "vote": "up"}
        response = client.post("/papers/alpha-method/vote", data=fields, headers={"HX-Request": "true"})
        assert response.status_code == 200
        assert response.text.strip().startswith('<form class="vote"')
        assert 'name="vote" value="none"' in response.text
        fields = {"token": response.text.partition('name="token" value="')[2].partition('"')[0], "vote": "none"}
        response = client.post("/papers/alpha-method/vote", data=fields, headers={"HX-Request": "true"})
        assert 'name="vote" value="up"' in response.text
        check(database)

    @pytest.mark.parametrize("path", ["/", "/month/2025-08", "/trending", "/topics/optimize", "/search?q=averaging"])
    def test_on_lists_too(self, path: str, client: Browser, database: Database) -> None:
        sign_in(client, database)
        for wanted, now in (("up", "none"), ("none", "up")):
            page = client.get(path).text
            assert re.search(r'<script src="/static/vendor/htmx.min.js\?v=[0-9a-f]+" defer></script>', page)
            [form] = re.findall(r'<form class="vote"[^>]*action="/papers/alpha-method/vote".*?</form>', page, re.DOTALL)
            assert 'hx-post="/papers/alpha-method/vote" hx-target="this" hx-swap="outerHTML"' in form
            fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
            assert fields["vote"] == wanted
            response = client.post("/papers/alpha-method/vote", data=fields, headers={"HX-Request": "true"})
            assert f'name="vote" value="{now}"' in response.text
            # The page then shows the same box; the token tells when it was made.
            assert untold(response.text.strip()) in untold(client.get(path).text)
        check(database)

    def test_who_cannot_vote_loads_nothing_for_it(self, client: Browser, database: Database) -> None:
        assert "htmx.min.js" not in client.get("/").text
        sign_in(client, database, banned=True)
        assert "htmx.min.js" not in client.get("/").text

    def test_a_plain_form_leads_back_to_where_it_was(self, client: Browser, database: Database) -> None:
        sign_in(client, database)
        fields = {"token": token(client), "vote": "up"}
        for referer, location in (
            ("http://127.0.0.1/2025-08-20?p=1", "/2025-08-20?p=1"),
            ("http://evil.example/", "/papers/alpha-method"),
            ("http://127.0.0.1//evil.example", "/"),
            ("http://[", "/papers/alpha-method"),
            ("", "/papers/alpha-method"),
        ):
            response = client.post("/papers/alpha-method/vote", data=fields, headers={"Referer": referer})
            assert response.headers["location"] == location

    def test_who_is_not_signed_in_is_led_there(self, client: Browser, database: Database) -> None:
        assert 'href="/sign-in?next=/papers/alpha-method"' in client.get("/papers/alpha-method").text
        response = send(client, "/papers/alpha-method/vote", vote="up")
        assert (response.status_code, response.headers["location"]) == (303, "/sign-in?next=/papers/alpha-method")
        fields = {"token": token(client), "vote": "up"}
        response = client.post("/papers/alpha-method/vote", data=fields, headers={"HX-Request": "true"})
        assert response.status_code == 204
        assert response.headers["hx-redirect"] == "/sign-in?next=/papers/alpha-method"
        assert paper(database).n_votes == 0

    def test_who_is_banned_is_refused(self, client: Browser, database: Database) -> None:
        sign_in(client, database, banned=True)
        response = send(client, "/papers/alpha-method/vote", vote="up")
        assert response.status_code == 403
        assert paper(database).n_votes == 0

    def test_what_is_no_vote_is_refused(self, client: Browser, database: Database) -> None:
        sign_in(client, database)
        for wanted in ("", "down", "UP", "2", "up,up"):
            assert send(client, "/papers/alpha-method/vote", vote=wanted).status_code == 400
        for name in ("none", "..%2falpha-method", "' OR 1=1 --", "%00", "0", "99999999999"):
            assert send(client, f"/papers/{name}/vote", vote="up").status_code == 404, name
        assert client.get("/papers/alpha-method/vote").status_code in (404, 405)
        check(database)

    @pytest.mark.parametrize("name", ["2501.00001", "1"])
    def test_every_name_of_a_paper_will_do(self, name: str, client: Browser, database: Database) -> None:
        sign_in(client, database)
        assert send(client, f"/papers/{name}/vote", vote="up").headers["location"] == "/papers/alpha-method"

    def test_old_arxiv_ids_hold_a_slash(self, client: Browser, database: Database) -> None:
        with database.session() as session:
            session.add(Paper(arxiv="hep-th/9901001", title="Old", title_key="old"))
        sign_in(client, database)
        assert send(client, "/papers/hep-th/9901001/vote", vote="up").status_code == 303
        with database.session() as session:
            assert session.query(Paper).filter_by(arxiv="hep-th/9901001").one().n_votes == 1
