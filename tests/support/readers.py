"""Readers of the site in tests: signed in without mail, and an outbox that keeps what it is given."""

from __future__ import annotations

import re
from email.message import EmailMessage
from typing import Any

from httpx2 import Response
from starlette.testclient import TestClient

from offprint.daily import accounts
from offprint.daily.mail import MailError, Outbox
from offprint.daily.security import SESSION_COOKIE
from offprint.store import Account, Database


class Browser(TestClient):
    """A browser of its own on a site that is open."""

    def __init__(self, app: Any, address: str = "http://127.0.0.1") -> None:
        super().__init__(app, base_url=address, follow_redirects=False)


class Kept(Outbox):
    """An outbox that keeps mails, or fails."""

    def __init__(self, *, broken: bool = False) -> None:
        self.messages: list[EmailMessage] = []
        self.broken = broken

    def send(self, message: EmailMessage) -> None:
        if self.broken:
            raise MailError("the server is gone")
        self.messages.append(message)

    def hand_over(self, mail: Any) -> None:
        raise NotImplementedError

    def link(self) -> str:
        """Return the path of the sign-in link in the last mail."""
        [found] = re.findall(r"https?://[^/\s]+(/sign-in/confirm\?token=\S+)", self.messages[-1].get_content())
        return str(found)


def sign_in(client: TestClient, database: Database, email: str = "ada@example.org", **fields: Any) -> Account:
    """Sign a browser in as the reader with an address, whose account is made with the fields given."""
    with database.session() as session:
        redeemed = accounts.redeem(session, accounts.issue_link(session, email, "/"))
        assert redeemed is not None
        account = session.query(Account).filter_by(email=email).one()
        for name, value in fields.items():
            setattr(account, name, value)
    client.cookies.clear()
    client.cookies.set(SESSION_COOKIE, redeemed.token)
    return account


def token(client: TestClient, path: str = "") -> str:
    """Open a page and return the token of its first form; without a path, a small page that has one."""
    signed = any(cookie.name.endswith(SESSION_COOKIE) for cookie in client.cookies.jar)
    _, _, rest = client.get(path or ("/account/delete" if signed else "/sign-in")).text.partition(
        'name="token" value="'
    )
    return rest.partition('"')[0]


def send(client: TestClient, path: str, *, page: str = "", **fields: str) -> Response:
    """Send a form as it is sent from a page."""
    return client.post(path, data={"token": token(client, page), **fields})
