"""The site served for a browser, with readers who are signed in without mail and a folder that takes the mail."""

from __future__ import annotations

import mailbox
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from mailing import read
from selenium.webdriver import Chrome
from serving import served

from offprint.daily import accounts
from offprint.daily.security import SESSION_COOKIE
from offprint.store import Account, Database


@dataclass(frozen=True)
class Website:
    """A running site: its address, its database, and the folder of its mail."""

    address: str
    database: Database
    maildir: Path

    def open_as(self, browser: Chrome, email: str, **fields: Any) -> None:
        """Sign a browser in, which shows a page of the site, as the reader with an address."""
        browser.add_cookie({"name": SESSION_COOKIE, "value": self.session(email, **fields), "path": "/"})

    def session(self, email: str, **fields: Any) -> str:
        """Begin a session and return its token; the account, made if there is none, gets the fields."""
        with self.database.session() as session:
            redeemed = accounts.redeem(session, accounts.issue_link(session, email, "/"))
            assert redeemed is not None
            account = session.query(Account).filter_by(email=email).one()
            for name, value in fields.items():
                setattr(account, name, value)
        return redeemed.token

    def mails(self) -> list[EmailMessage]:
        """Return the mails in the folder, oldest first."""
        folder = mailbox.Maildir(self.maildir, create=False)
        found = [(float(message.get_date()), read(message.as_bytes())) for message in folder]
        return [mail for _, mail in sorted(found, key=lambda each: each[0])]

    def mailed(self, to: str, pattern: str) -> str:
        """Return what the pattern finds in the newest mail to an address that has it."""
        for mail in reversed([mail for mail in self.mails() if mail["To"] == to]):
            body = mail.get_body(("plain",))
            if body is not None and (found := re.search(pattern, body.get_content())):
                return found[0]
        raise AssertionError(f"no mail to {to} holds {pattern}")


@contextmanager
def website(
    folder: Path, prepare: Callable[[Database], None] | None = None, packages: Path | None = None, **environment: str
) -> Iterator[Website]:
    """Serve the site with a database of its own while the block lasts; ``prepare`` fills it before."""
    database = Database(f"sqlite:///{folder / 'site.db'}")
    if prepare:
        prepare(database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFPRINT_MAILDIR", str(folder / "mail"))
        for name, value in environment.items():
            patch.setenv(name, value)
        with served(database, folder, packages) as site:
            yield Website(site.address, database, folder / "mail")
    database.close()
