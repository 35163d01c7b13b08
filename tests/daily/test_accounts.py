"""Signing in by a mailed link, sessions, names, and a reader's own data."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import threading

import pytest
from readers import Browser, Kept, send, sign_in, token
from sqlalchemy import func, select
from starlette.testclient import TestClient

from offprint.daily import accounts, comments, trending, votes
from offprint.daily.app import create_app
from offprint.daily.inputs import display_name, email_address, handle, local_path
from offprint.daily.security import COOKIE, SESSION_COOKIE
from offprint.daily.settings import Settings
from offprint.store import (
    Account,
    Authorship,
    Base,
    Comment,
    Database,
    Delivery,
    Listing,
    OutgoingMail,
    Paper,
    SignInLink,
    Subscription,
    Vote,
    WebSession,
)
from offprint.store.models import now

MINUTE = datetime.timedelta(minutes=1)


@pytest.fixture
def outbox(client: Browser) -> Kept:
    kept = Kept()
    client.app.state.outbox = kept  # type: ignore[attr-defined]
    return kept


def ask(client: TestClient, email: str = "ada@example.org", **fields: str):
    return send(client, "/sign-in", page="/sign-in", email=email, **fields)


def count(database: Database, table: type[Base]) -> int:
    with database.session() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


class TestTheLink:
    def test_it_signs_in(self, client: Browser, outbox: Kept) -> None:
        response = ask(client, " Ada@Example.ORG ", next="/papers/alpha-method")
        assert response.status_code == 200
        assert "ada@example.org" in response.text
        [mail] = outbox.messages
        assert mail["To"] == "ada@example.org"
        assert client.get("/account").status_code == 303
        page = client.get(outbox.link())
        assert "ada@example.org" in page.text
        link = re.search(r'name="link" value="([^"]+)"', page.text)
        assert link
        response = send(client, "/sign-in/confirm", page=outbox.link(), link=link[1])
        assert (response.status_code, response.headers["location"]) == (303, "/papers/alpha-method")
        assert "ada@example.org" in client.get("/account").text

    def test_programs_that_open_it_do_not_use_it_up(self, client: Browser, outbox: Kept) -> None:
        ask(client)
        scanner = TestClient(client.app)
        for _ in range(3):
            assert scanner.get(outbox.link()).status_code == 200
            assert scanner.head(outbox.link()).status_code == 200
        assert redeem(client, outbox).status_code == 303

    def test_it_works_once(self, client: Browser, outbox: Kept, database: Database) -> None:
        ask(client)
        assert redeem(client, outbox).status_code == 303
        other = Browser(client.app)
        assert other.get(outbox.link()).status_code == 410
        response = send(other, "/sign-in/confirm", link=outbox.link().partition("=")[2])
        assert response.status_code == 410
        assert SESSION_COOKIE not in other.cookies
        assert count(database, WebSession) == 1

    def test_two_at_once_get_one_session(self, database: Database) -> None:
        with database.session() as session:
            link = accounts.issue_link(session, "ada@example.org", "/")
        together = threading.Barrier(4)
        given = []

        def use() -> None:
            together.wait(10)
            with database.session() as session:
                given.append(accounts.redeem(session, link))

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(given) == 4
        assert sum(redeemed is not None for redeemed in given) == 1
        assert (count(database, WebSession), count(database, Account)) == (1, 1)

    def test_two_links_of_one_address_at_once_make_one_account(self, database: Database) -> None:
        with database.session() as session:
            links = [accounts.issue_link(session, "ada@example.org", "/") for _ in range(4)]
        together = threading.Barrier(4)

        def use(link: str) -> None:
            together.wait(10)
            with database.session() as session:
                assert accounts.redeem(session, link)

        threads = [threading.Thread(target=use, args=[link]) for link in links]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert (count(database, WebSession), count(database, Account)) == (4, 1)

    def test_it_ends_after_a_quarter_of_an_hour(self, database: Database) -> None:
        begun = now()
        with database.session() as session:
            link = accounts.issue_link(session, "ada@example.org", "/", now=begun)
            assert accounts.pending_link(session, link, now=begun + 14 * MINUTE)
            assert not accounts.pending_link(session, link, now=begun + 15 * MINUTE)
            assert accounts.redeem(session, link, now=begun + 15 * MINUTE) is None
            assert accounts.redeem(session, link, now=begun + 14 * MINUTE)

    def test_guesses_lead_nowhere(self, client: Browser, outbox: Kept, database: Database) -> None:
        ask(client)
        for guess in ("", "x", "a" * 43, "' OR 1=1 --", "ü", "\ud800", "\0"):
            with database.session() as session:
                assert accounts.redeem(session, guess) is None
            if guess.isprintable():
                assert client.get("/sign-in/confirm", params={"token": guess}).status_code == 410
                assert send(client, "/sign-in/confirm", link=guess).status_code == 410

    def test_only_its_hash_is_kept(self, client: Browser, outbox: Kept, database: Database) -> None:
        ask(client)
        secret = outbox.link().partition("=")[2]
        assert len(secret) >= 43  # 256 bits
        with database.session() as session:
            [kept] = session.scalars(select(SignInLink)).all()
        assert kept.token_hash == hashlib.sha256(secret.encode()).hexdigest()
        redeem(client, outbox)
        cookie = client.cookies[SESSION_COOKIE]
        with database.session() as session:
            [row] = session.scalars(select(WebSession)).all()
        assert len(cookie) >= 43
        assert row.token_hash == hashlib.sha256(cookie.encode()).hexdigest()

    def test_old_ones_are_removed(self, database: Database) -> None:
        with database.session() as session:
            accounts.issue_link(session, "ada@example.org", "/", now=now() - datetime.timedelta(hours=1))
        with database.session() as session:
            accounts.issue_link(session, "ada@example.org", "/")
        assert count(database, SignInLink) == 1

    def test_known_and_unknown_addresses_get_the_same_answer(
        self, client: Browser, outbox: Kept, database: Database
    ) -> None:
        sign_in(Browser(client.app), database, "ada@example.org")
        known, unknown = ask(client, "ada@example.org"), ask(client, "eve@example.org")
        assert known.status_code == unknown.status_code == 200
        assert known.text.replace("ada@", "eve@") == unknown.text
        assert len(outbox.messages) == 2

    def test_a_mail_that_does_not_go_out_is_not_told(self, client: Browser) -> None:
        client.app.state.outbox = Kept(broken=True)  # type: ignore[attr-defined]
        assert ask(client).status_code == 200

    def test_it_leads_to_this_site_whatever_host_was_asked_for(self, client: Browser, outbox: Kept) -> None:
        """Otherwise anyone could have a link mailed that hands its token to them."""
        response = client.post(
            "/sign-in",
            data={"token": token(client, "/sign-in"), "email": "ada@example.org"},
            headers={"Host": "evil.example"},
        )
        assert response.status_code == 503
        assert outbox.messages == []

    def test_it_leads_to_the_address_that_the_operator_set(self, database: Database) -> None:
        client = Browser(
            create_app(database, settings=Settings(base_url="https://papers.example.org")), "https://papers.example.org"
        )
        client.app.state.outbox = kept = Kept()  # type: ignore[attr-defined]
        client.post(
            "/sign-in",
            data={"token": token(client, "/sign-in"), "email": "ada@example.org"},
            headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"},
        )
        assert "https://papers.example.org/sign-in/confirm?token=" in kept.messages[0].get_content()
        assert "evil" not in kept.messages[0].as_string()


def redeem(client: TestClient, outbox: Kept):
    link = outbox.link().partition("=")[2]
    return send(client, "/sign-in/confirm", page=outbox.link(), link=link)


ELSEWHERE = (
    "//evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example", "javascript:alert(1)",
    "///evil.example", "/\t/evil.example", "/\n/evil.example", "\t//evil.example", " //evil.example", "evil.example",
    "http:evil.example", "/%0d%0aSet-Cookie:x\r\nX: y", "", "/a\x00b", "/ü", "/" + "a" * 600,
)  # fmt: skip
NO_ADDRESSES = (
    "", "ada", "@example.org", "ada@", "ada@example", "a b@example.org", "ada@exa mple.org", "ada@@example.org",
    "ada@example.org\nBcc: eve@example.org", "ada@example.org\r\nBcc: eve@example.org", "ada\n@example.org",
    "ada@example.org, eve@example.org", "ada@example.org;eve@example.org", "Ada <ada@example.org>",
    '"ada\\"@x"@example.org', "ada@[127.0.0.1]", "ada@-example.org", "ada@example..org", ".ada@example.org",
    "a" * 65 + "@example.org", "ada@" + "a" * 64 + ".org", "ada@" + "a." * 130 + "org", "äda@example.org",
    "ada@example.org\u2028", "ada%0aBcc:eve@example.org\r", "<script>@example.org",
)  # fmt: skip


class TestWhereItLeads:
    @pytest.mark.parametrize("path", ELSEWHERE)
    def test_only_to_this_site(self, path: str) -> None:
        assert local_path(path) == "/"

    def test_whatever_is_asked_for(self, client: Browser, outbox: Kept) -> None:
        for number, path in enumerate(path for path in ELSEWHERE if "\0" not in path):
            ask(client, f"ada{number}@example.org", next=path)
            response = redeem(client, outbox)
            assert (response.status_code, response.headers["location"]) == (303, "/"), path
            assert client.get("/sign-in", params={"next": path}).headers["location"] == "/", path
            client.cookies.clear()

    @pytest.mark.parametrize(
        "path", ["/", "/papers/a?x=1&y=2#measured", "/%2F%2Fevil.example", "/papers/hep-th/9901001"]
    )
    def test_to_any_page_of_it(self, path: str) -> None:
        assert local_path(path) == path


class TestAddresses:
    @pytest.mark.parametrize("typed", NO_ADDRESSES)
    def test_what_is_none_is_refused(self, typed: str) -> None:
        with pytest.raises(ValueError, match="looks like"):
            email_address(typed)

    def test_the_form_comes_back_as_it_was(self, client: Browser, outbox: Kept) -> None:
        for typed in NO_ADDRESSES:
            response = ask(client, typed, next="/papers/alpha-method")
            assert response.status_code == 422, typed
            assert 'aria-invalid="true"' in response.text
            assert 'value="/papers/alpha-method"' in response.text
        assert outbox.messages == []

    def test_what_is_one_is_mailed(self, client: Browser, outbox: Kept) -> None:
        for typed in ("a@b.co", "o'hara+x@mail.example.co.uk", "ADA@EXAMPLE.ORG", "ada@bücher.example"):
            assert ask(client, typed).status_code == 200
            mail = outbox.messages[-1]
            assert [address.addr_spec for address in mail["To"].addresses] == [email_address(typed)]
            assert mail["Bcc"] is None


class TestSessions:
    def test_the_cookie_is_out_of_reach(self, client: Browser, outbox: Kept) -> None:
        ask(client)
        cookie = next(
            value for name, value in redeem(client, outbox).headers.multi_items()
            if name == "set-cookie" and value.startswith(SESSION_COOKIE)
        ).lower()  # fmt: skip
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "path=/" in cookie
        assert "domain" not in cookie
        assert f"max-age={30 * 86400}" in cookie

    @pytest.mark.parametrize("settings", [Settings(), Settings(base_url="https://papers.example.org")])
    def test_over_tls_no_other_host_can_set_it(self, settings: Settings, database: Database) -> None:
        client = Browser(create_app(database, settings=settings), "https://127.0.0.1")
        client.app.state.outbox = kept = Kept()  # type: ignore[attr-defined]
        ask(client)
        cookies = [value for name, value in redeem(client, kept).headers.multi_items() if name == "set-cookie"]
        assert len(cookies) == 2
        for cookie in cookies:  # what browsers ask of this prefix
            assert cookie.startswith("__Host-offprint_")
            assert "Secure" in cookie
            assert "Path=/" in cookie
            assert "domain" not in cookie.lower()
        assert client.get("/account").status_code == 200
        [value] = [client.cookies[name] for name in client.cookies if name.endswith(SESSION_COOKIE)]
        planted = Browser(client.app, "https://127.0.0.1")
        planted.cookies.set(SESSION_COOKIE, value)
        assert planted.get("/account").status_code == 303

    def test_one_chosen_by_somebody_else_is_not_kept(self, client: Browser, outbox: Kept) -> None:
        planted, visitor = "a" * 43, "e" * 32
        client.cookies.set(SESSION_COOKIE, planted, domain="127.0.0.1")
        client.cookies.set(COOKIE, visitor, domain="127.0.0.1")
        ask(client)
        redeem(client, outbox)
        assert planted != client.cookies[SESSION_COOKIE]
        assert visitor != client.cookies[COOKIE]
        assert client.get("/account").status_code == 200
        thief = Browser(client.app)
        thief.cookies.set(SESSION_COOKIE, planted)
        assert thief.get("/account").status_code == 303

    def test_signing_in_ends_the_session_before(self, client: Browser, outbox: Kept, database: Database) -> None:
        sign_in(client, database, "eve@example.org")
        ask_as_signed_in = token(client, "/account")
        client.post("/sign-in", data={"token": ask_as_signed_in, "email": "ada@example.org"})
        redeem(client, outbox)
        with database.session() as session:
            [row] = session.scalars(select(WebSession)).all()
            assert session.get_one(Account, row.account_id).email == "ada@example.org"

    def test_a_form_from_before_does_not_count_after(self, client: Browser, outbox: Kept) -> None:
        before = token(client, "/sign-in")
        ask(client)
        redeem(client, outbox)
        assert client.post("/account/delete", data={"token": before}).status_code == 403
        assert client.post("/sign-out", data={"token": before}).status_code == 403

    def test_it_ends_after_thirty_days(
        self, client: Browser, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sign_in(client, database)
        assert client.get("/account").status_code == 200
        begun = now()
        monkeypatch.setattr(accounts, "present", lambda: begun + datetime.timedelta(days=29, hours=23))
        assert client.get("/account").status_code == 200
        monkeypatch.setattr(accounts, "present", lambda: begun + datetime.timedelta(days=30, seconds=1))
        assert client.get("/account").status_code == 303

    def test_another_cookie_is_nobody(self, client: Browser, database: Database) -> None:
        sign_in(client, database)
        client.cookies.clear()
        for value in ("", "x", "a" * 43, "a" * 200, "' OR 1=1 --aaaaaaaaaaaaaaaaaaa", "\x7f" * 43):
            response = client.get("/account", headers={"Cookie": f"{SESSION_COOKIE}={value}"})
            assert (response.status_code, response.headers["location"]) == (303, "/sign-in?next=/account")

    def test_signing_out_ends_it_on_the_server(self, client: Browser, database: Database) -> None:
        sign_in(client, database)
        cookie = client.cookies[SESSION_COOKIE]
        assert send(client, "/sign-out").status_code == 303
        assert count(database, WebSession) == 0
        client.cookies.set(SESSION_COOKIE, cookie)
        assert client.get("/account").status_code == 303

    def test_signing_out_everywhere_ends_all_of_ones_own(self, client: Browser, database: Database) -> None:
        others = Browser(client.app), Browser(client.app)
        sign_in(others[0], database)
        sign_in(others[1], database, "eve@example.org")
        sign_in(client, database)
        send(client, "/account/sign-out")
        assert client.get("/account").status_code == others[0].get("/account").status_code == 303
        assert others[1].get("/account").status_code == 200

    def test_a_request_looks_it_up_once(self, client: Browser, database: Database) -> None:
        from sqlalchemy import event

        sign_in(client, database)
        asked: list[str] = []

        def note(_c: object, _cu: object, statement: str, *_: object) -> None:
            asked.append(statement)

        event.listen(database.engine, "before_cursor_execute", note)
        client.get("/papers/alpha-method")
        assert sum("web_sessions" in statement for statement in asked) == 1
        asked.clear()
        client.cookies.clear()
        client.get("/papers/alpha-method")
        assert not any("web_sessions" in statement for statement in asked)

    def test_no_cache_keeps_pages_of_a_reader(self, client: Browser, database: Database) -> None:
        sign_in(client, database)
        assert "private" in client.get("/").headers["cache-control"]
        for path in ("/account", "/account/export", "/account/delete"):
            assert client.get(path).headers["cache-control"] == "no-store"


class TestNames:
    @pytest.mark.parametrize(
        ("typed", "kept"),
        [("  Ada   Lovelace ", "Ada Lovelace"), ("Zoe\u0301", "Zoé"), ("李明", "李明"), ("a" * 80, "a" * 80),
         ("O'Hara <b>", "O'Hara <b>"), ("ประสิทธิ์", "ประสิทธิ์")],
    )  # fmt: skip
    def test_they_are_made_uniform(self, typed: str, kept: str) -> None:
        assert display_name(typed) == kept

    @pytest.mark.parametrize(
        "typed",
        ["", "   ", "a" * 81, "a\nb", "a\tb", "a\x00b", "\u202eevil", "a\u200bb", "a\u2066b", "\ufeffa", "a\u2028b",
         "---", "\u0301", "a" + "\u0301" * 9, "\ud800", "a\ue000", "👍"],
    )  # fmt: skip
    def test_what_cannot_be_seen_or_read_is_refused(self, typed: str) -> None:
        with pytest.raises(ValueError, match="name"):
            display_name(typed)

    @pytest.mark.parametrize(
        "typed",
        ["", "ab", "a" * 41, "-ada", "ada-", "a--b", "ada_l", "ada.l", "адa", "admin", "ada\n", "a/b", "ＡＤＡ"],
    )
    def test_handles_are_plain(self, typed: str) -> None:
        with pytest.raises(ValueError, match="handle"):
            handle(typed)

    def test_a_new_account_gives_nothing_of_the_address_away(self, client: Browser, database: Database) -> None:
        account = sign_in(client, database, "ada.lovelace@example.org")
        assert re.fullmatch(r"reader-[a-z0-9]{6}", account.handle)
        assert account.name == account.handle

    def test_they_can_be_changed(self, client: Browser, database: Database) -> None:
        account = sign_in(client, database)
        response = send(client, "/account", name="Ada L", handle="Ada-L")
        assert (response.status_code, response.headers["location"]) == (303, "/account?saved=yes")
        with database.session() as session:
            own = session.get_one(Account, account.id)
            assert (own.name, own.handle) == ("Ada L", "ada-l")

    def test_a_wrong_one_comes_back_with_what_was_typed(self, client: Browser, database: Database) -> None:
        sign_in(Browser(client.app), database, "eve@example.org", handle="eve")
        account = sign_in(client, database)
        with database.session() as session:
            session.scalars(select(Listing)).first().submitter = "imported"  # type: ignore[union-attr]
        for name, typed, wrong in (
            ("\u202eX", "ada-l", "name"),
            ("Ada", "no spaces", "handle"),
            ("Ada", "eve", "handle"),
            ("Ada", "EVE", "handle"),
            ("Ada", "imported", "handle"),
        ):
            response = send(client, "/account", name=name, handle=typed)
            assert response.status_code == 422
            assert re.search(rf'id="{wrong}"[^>]*aria-invalid="true"', response.text)
            assert f'value="{typed}"' in response.text
            with database.session() as session:
                assert session.get_one(Account, account.id).name == account.name

    def test_papers_follow_a_changed_handle_and_those_of_a_namesake_elsewhere_do_not(
        self, client: Browser, database: Database
    ) -> None:
        account = sign_in(client, database)
        with database.session() as session:
            own, imported, *_ = session.scalars(select(Listing).order_by(Listing.id))
            own.submitter, own.account_id = account.handle, account.id
            imported.submitter = account.handle
        send(client, "/account", name="Ada", handle="ada-l")
        with database.session() as session:
            own, imported, *others = session.scalars(select(Listing).order_by(Listing.id))
        assert (own.submitter, imported.submitter) == ("ada-l", account.handle)
        assert {listing.submitter for listing in others} == {None}


def busy_reader(client: Browser, database: Database, email: str, handle: str) -> Account:
    """Sign in a reader with a row in every table that a reader can have one in."""
    account = sign_in(client, database, email, handle=handle, name=f"Name of {handle}")
    with database.session() as session:
        paper = session.query(Paper).filter_by(slug="alpha-method").one()
        votes.vote(session, account, paper, True)
        comments.add(session, account, paper, f"Comment of {handle}")
        session.add(Authorship(account_id=account.id, paper_id=paper.id, author="Ada Lovelace"))
        subscription = Subscription(email=email, frequency="daily", query=f"query-{handle}", n_refused=0)
        session.add(subscription)
        session.flush()
        session.add(Delivery(subscription_id=subscription.id, paper_id=paper.id, message_id=f"<{handle}@x>"))
        session.add(
            OutgoingMail(subscription_id=subscription.id, message_id=f"<{handle}-2@x>", content=b"x", not_before=now())
        )
        accounts.issue_link(session, email, f"/next-{handle}")
        listing = session.scalars(select(Listing).where(Listing.submitter.is_(None))).first()
        assert listing is not None
        listing.submitter, listing.account_id = handle, account.id
    return account


def personal(database: Database) -> dict[str, int]:
    """Count rows in each table that refers to a reader: found from the tables themselves, not from our code."""
    keys = {"account_id", "subscription_id", "email"}
    with database.session() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
            if table.name != "listings"  # which stay, without the reader
            if keys & {column.name for column in table.columns}
        }


class TestOnesOwnData:
    def test_it_can_be_taken_along_whole(self, client: Browser, database: Database) -> None:
        busy_reader(Browser(client.app), database, "eve@example.org", "eve")
        busy_reader(client, database, "ada@example.org", "ada-l")
        response = client.get("/account/export")
        assert "attachment" in response.headers["content-disposition"]
        assert response.headers["content-type"] == "application/json"
        found = response.json()
        assert found["account"]["email"] == "ada@example.org"
        assert found["account"]["name"] == "Name of ada-l"
        assert found["votes"][0]["paper"]["address"] == "/papers/alpha-method"
        assert found["comments"][0]["body"] == "Comment of ada-l"
        assert found["authorships"][0]["author"] == "Ada Lovelace"
        assert found["subscriptions"][0]["query"] == "query-ada-l"
        assert len(found["subscriptions"][0]["deliveries"]) == 1
        assert {link["next_path"] for link in found["sign_in_links"]} == {"/", "/next-ada-l"}
        assert (len(found["sessions"]), len(found["submissions"])) == (1, 1)
        # Nothing of others, and nothing that could sign in.
        assert "eve" not in response.text
        with database.session() as session:
            hashes = [*session.scalars(select(WebSession.token_hash)), *session.scalars(select(SignInLink.token_hash))]
        assert not any(token_hash in response.text for token_hash in hashes)

    def test_deleting_removes_all_of_it_and_nothing_else(self, client: Browser, database: Database) -> None:
        busy_reader(Browser(client.app), database, "eve@example.org", "eve")
        others = personal(database)
        account = busy_reader(client, database, "ada@example.org", "ada-l")
        assert all(total > others[table] for table, total in personal(database).items())
        response = send(client, "/account/delete", handle="ada-l")
        assert (response.status_code, response.headers["location"]) == (303, "/")
        assert personal(database) == others
        with database.session() as session:
            assert session.get(Account, account.id) is None
            assert set(session.scalars(select(Listing.submitter))) == {None, "eve"}
            assert account.id not in set(session.scalars(select(Listing.account_id)))
            paper = session.query(Paper).filter_by(slug="alpha-method").one()
            kept = paper.n_votes, paper.n_comments, paper.hotness
            trending.refresh(session, paper)
            assert kept == (1, 1, paper.hotness)
        assert client.get("/account").status_code == 303

    def test_deleting_asks_first(self, client: Browser, database: Database) -> None:
        account = busy_reader(client, database, "ada@example.org", "ada-l")
        for typed in ("", "ada", "eve", "ada@example.org"):
            response = send(client, "/account/delete", handle=typed)
            assert response.status_code == 422
        with database.session() as session:
            assert session.get(Account, account.id) is not None
        assert count(database, Comment) == count(database, Vote) == 1

    def test_a_banned_reader_keeps_the_right_to_it(self, client: Browser, database: Database) -> None:
        busy_reader(client, database, "ada@example.org", "ada-l")
        sign_in(client, database, "ada@example.org", banned=True)
        assert json.loads(client.get("/account/export").text)["account"]["banned"] is True
        send(client, "/account/delete", handle="ada-l")
        assert count(database, Account) == 0

    def test_it_is_shown_to_nobody_else(self, client: Browser) -> None:
        for path in ("/account", "/account/export", "/account/delete"):
            response = client.get(path)
            assert response.status_code == 303
            assert response.headers["location"] == "/sign-in?next=/account"


def test_the_header_says_who_is_signed_in(client: Browser, database: Database) -> None:
    assert 'href="/sign-in"' in client.get("/").text
    sign_in(client, database, name="Ada <L>")
    assert "Ada &lt;L&gt;" in client.get("/").text
