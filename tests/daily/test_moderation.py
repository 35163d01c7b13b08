"""Moderators: what they hide, whom they ban, which authors they confirm, and that nobody else does."""

from __future__ import annotations

import pytest
from readers import Browser, send, sign_in
from sqlalchemy import select

from offprint.daily import comments, moderation
from offprint.store import Account, Authorship, Comment, Database, Paper

PAGE = "/papers/alpha-method"


@pytest.fixture
def eve(client: Browser, database: Database) -> Browser:
    """A reader who has commented once."""
    browser = Browser(client.app)
    sign_in(browser, database, "eve@example.org", name="Eve", handle="eve")
    send(browser, f"{PAGE}/comments", body="Buy my things.")
    return browser


@pytest.fixture
def moderator(client: Browser, database: Database) -> Browser:
    sign_in(client, database, "mod@example.org", name="Mod", handle="the-mod", moderator=True)
    return client


def number(database: Database) -> int:
    with database.session() as session:
        return session.scalars(select(Comment.id)).one()


def counted(database: Database) -> int:
    with database.session() as session:
        return session.query(Paper).filter_by(slug="alpha-method").one().n_comments


def authorships(database: Database) -> list[Authorship]:
    with database.session() as session:
        return list(session.scalars(select(Authorship)))


class TestHiding:
    def test_a_hidden_comment_is_seen_by_moderators_and_its_author_only(
        self, eve: Browser, moderator: Browser, database: Database
    ) -> None:
        nobody, other = Browser(eve.app), Browser(eve.app)
        sign_in(other, database, "other@example.org")
        assert send(moderator, f"/comments/{number(database)}/hide", hidden="yes").headers["location"].startswith(PAGE)
        assert counted(database) == 0
        for browser, seen in ((nobody, False), (other, False), (eve, True), (moderator, True)):
            page = browser.get(PAGE).text
            assert ("Buy my things" in page) is seen
            assert ("Hidden by a moderator" in page) is seen
            assert '<h2 id="comments">No comments</h2>' in page
        send(eve, f"/comments/{number(database)}/edit", body="Edited, buy.")
        assert "Edited" not in nobody.get(PAGE).text
        assert counted(database) == 0
        send(moderator, f"/comments/{number(database)}/hide", hidden="no")
        assert "Edited, buy." in nobody.get(PAGE).text
        assert counted(database) == 1

    def test_nobody_else_hides(self, eve: Browser, client: Browser, database: Database) -> None:
        other = Browser(client.app)
        sign_in(other, database, "other@example.org")
        path = f"/comments/{number(database)}/hide"
        assert "/hide" not in eve.get(PAGE).text
        assert send(eve, path, hidden="yes").status_code == 404
        assert send(other, path, hidden="yes").status_code == 404
        assert send(Browser(client.app), path, hidden="yes").status_code == 303
        sign_in(other, database, "mod2@example.org", moderator=True, banned=True)
        assert send(other, path, hidden="yes").status_code == 403
        assert counted(database) == 1

    def test_a_moderator_who_is_banned_sees_what_others_see(
        self, eve: Browser, moderator: Browser, database: Database
    ) -> None:
        send(moderator, f"/comments/{number(database)}/hide", hidden="yes")
        assert "Buy my things" in moderator.get(PAGE).text
        sign_in(moderator, database, "mod@example.org", banned=True)
        assert "Buy my things" not in moderator.get(PAGE).text

    def test_what_cannot_be_hidden_is_refused(self, eve: Browser, moderator: Browser, database: Database) -> None:
        assert send(moderator, f"/comments/{number(database)}/hide", hidden="maybe").status_code == 400
        assert send(moderator, "/comments/999/hide", hidden="yes").status_code == 404
        assert send(moderator, "/comments/99999999999/hide", hidden="yes").status_code == 404


class TestBanning:
    def test_a_banned_reader_reads_but_takes_no_part(
        self, eve: Browser, moderator: Browser, database: Database
    ) -> None:
        assert send(moderator, "/moderation/ban", handle="@Eve", banned="yes").status_code == 303
        for path, fields in (
            (f"{PAGE}/vote", {"vote": "up"}),
            (f"{PAGE}/comments", {"body": "More things."}),
            (f"{PAGE}/authorship", {"author": "Ada Lovelace"}),
            ("/submit", {"arxiv": "2501.00001"}),
        ):
            assert send(eve, path, **fields).status_code == 403, path
        assert eve.get("/submit").status_code == 403
        assert eve.get(PAGE).status_code == 200
        assert "no longer take part" in eve.get("/account").text
        assert "Buy my things" in Browser(eve.app).get(PAGE).text
        assert "@eve is banned" in moderator.get("/moderation").text
        send(moderator, "/moderation/ban", handle="eve", banned="no")
        assert send(eve, f"{PAGE}/vote", vote="up").status_code == 303

    def test_its_comments_can_be_hidden_with_it(self, eve: Browser, moderator: Browser, database: Database) -> None:
        send(moderator, "/moderation/ban", handle="eve", banned="yes", hide="yes")
        assert "Buy my things" not in Browser(eve.app).get(PAGE).text
        assert counted(database) == 0

    def test_moderators_and_strangers_cannot_be_banned(self, moderator: Browser, database: Database) -> None:
        for handle in ("the-mod", "nobody-here", "", "' OR 1=1 --"):
            assert send(moderator, "/moderation/ban", handle=handle, banned="yes").status_code == 422
        assert send(moderator, "/moderation/ban", handle="the-mod").status_code == 400
        with database.session() as session:
            assert not any(session.scalars(select(Account.banned)))


class TestAuthors:
    def claim(self, browser: Browser, author: str = "Björn Åström"):
        return send(browser, f"{PAGE}/authorship", author=author)

    def test_a_confirmed_author_carries_a_mark(self, eve: Browser, moderator: Browser, database: Database) -> None:
        assert self.claim(eve).status_code == 303
        mark = "Author: Björn Åström"
        assert "a moderator will look at it" in eve.get(PAGE).text
        assert mark not in eve.get(PAGE).text
        page = moderator.get("/moderation").text
        assert "says to be" in page
        assert "eve@example.org" in page
        [claim] = authorships(database)
        fields = {"account": str(claim.account_id), "paper": str(claim.paper_id)}
        for wrong in (
            {"decision": "maybe"},
            {"decision": "confirm", "account": "x"},
            {"decision": "confirm", "paper": ""},
        ):
            assert send(moderator, "/moderation/authorship", **fields | wrong).status_code == 400
        missing = {"decision": "confirm", "account": "999999999"}
        assert send(moderator, "/moderation/authorship", **fields | missing).status_code == 409
        send(moderator, "/moderation/authorship", decision="confirm", **fields)
        page = Browser(eve.app).get(PAGE).text
        assert mark in page
        assert "Here and confirmed: Björn Åström" in page
        assert "says to be" not in moderator.get("/moderation").text
        assert "You are confirmed to be Björn Åström" in eve.get(PAGE).text
        # Another reader can no longer be the same author, and this one no other.
        other = Browser(eve.app)
        sign_in(other, database, "other@example.org")
        assert self.claim(other).status_code == 422
        self.claim(eve, "Ada Lovelace")
        assert [claim.author for claim in authorships(database)] == ["Björn Åström"]
        send(eve, f"{PAGE}/authorship", withdraw="yes")
        assert mark not in Browser(eve.app).get(PAGE).text

    def test_two_who_say_the_same_are_not_both_confirmed(
        self, eve: Browser, moderator: Browser, database: Database
    ) -> None:
        other = Browser(eve.app)
        sign_in(other, database, "other@example.org")
        assert self.claim(eve).status_code == self.claim(other).status_code == 303
        claims = authorships(database)
        statuses = [
            send(moderator, "/moderation/authorship", decision="confirm",
                 account=str(claim.account_id), paper=str(claim.paper_id)).status_code
            for claim in claims
        ]  # fmt: skip
        assert statuses == [303, 409]

    def test_a_refused_claim_is_gone(self, eve: Browser, moderator: Browser, database: Database) -> None:
        self.claim(eve)
        [claim] = authorships(database)
        send(moderator, "/moderation/authorship", decision="refuse",
             account=str(claim.account_id), paper=str(claim.paper_id))  # fmt: skip
        assert authorships(database) == []

    def test_only_authors_of_the_paper_can_be_claimed(self, eve: Browser, database: Database) -> None:
        for author in ("", "Eve", "<script>alert(1)</script>", "björn åström"):
            assert self.claim(eve, author).status_code == 422
        assert authorships(database) == []

    def test_a_change_of_mind_is_one_claim(self, eve: Browser, database: Database) -> None:
        self.claim(eve)
        self.claim(eve, "Ada Lovelace")
        assert [claim.author for claim in authorships(database)] == ["Ada Lovelace"]


def test_the_page_is_for_moderators(eve: Browser, client: Browser, database: Database) -> None:
    nobody = Browser(client.app)
    assert nobody.get("/moderation").headers["location"] == "/sign-in?next=/moderation"
    assert eve.get("/moderation").status_code == 404
    for path in ("/moderation/ban", "/moderation/authorship"):
        assert send(eve, path, handle="eve", banned="yes").status_code == 404
        assert send(nobody, path, handle="eve", banned="yes").status_code == 303
    assert '"/moderation"' not in eve.get("/account").text


def test_the_functions_that_operators_use(eve: Browser, database: Database) -> None:
    with database.session() as session:
        assert moderation.ban(session, "EVE", hide_comments=True).banned
        assert [account.handle for account in moderation.banned(session)] == ["eve"]
    assert counted(database) == 0
    with database.session() as session:
        assert not moderation.unban(session, "eve").banned
        comments.hide(session, session.scalars(select(Comment)).one(), False)
    assert counted(database) == 1
