"""Senders that are killed in the middle of a digest: a real process, kill -9, and a real SMTP server that counts."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session
from mailing import HOUR, MONDAY, add_paper, add_reader, read, text_of
from smtp_server import PostOffice, serving

from offprint.daily.mail.sending import HELD
from offprint.store import Database

READERS, PAPERS = 12, 3
EACH_ONCE = {f"reader{number}@example.org": 1 for number in range(READERS)}

SENDER = """
import sys
from datetime import datetime
from offprint.daily.mail import outbox
from offprint.daily.mail.digest import Site
from offprint.daily.mail.sending import Sender
from offprint.daily.settings import Settings
from offprint.store import Database
settings, moment = Settings(), datetime.fromisoformat(sys.argv[2])
print(Sender(Database(sys.argv[1]), outbox(settings), Site.of(settings), lambda: moment).run())
"""


@dataclass
class Killing(PostOffice):
    """A server that kills the sender as it takes its n-th mail: before it has answered, or earlier, at the address."""

    sender: subprocess.Popen[str] | None = None
    at: int = 0
    stage: str = ""
    seen: Counter[str] = field(default_factory=Counter)

    def _kill(self, stage: str) -> None:
        self.seen[stage] += 1
        if self.sender is not None and (self.stage, self.at) == (stage, self.seen[stage]):
            os.kill(self.sender.pid, signal.SIGKILL)
            self.sender.wait()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        self._kill("address")
        return await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = await super().handle_DATA(server, session, envelope)
        self._kill("taken")
        return answer

    async def handle_NOOP(self, server: SMTP, session: Session, envelope: Envelope, argument: str) -> str:
        self._kill("between")
        return "250 OK"


def fill(database: Database) -> None:
    with database.session() as session:
        for number in range(READERS):
            add_reader(session, f"reader{number}@example.org")
        for number in range(PAPERS):
            add_paper(session, f"Paper {number}", MONDAY - HOUR)


def start(url: str, moment: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SENDER, url, str(moment)]
    settings = {"OFFPRINT_BASE_URL": "https://papers.example.org", "OFFPRINT_SECRET": "only for tests", **environment}
    return subprocess.Popen(command, env=os.environ | settings, text=True, stdout=subprocess.PIPE)


def end(sender: subprocess.Popen[str]) -> str:
    """Wait for a sender and return what it said; nothing when it was killed."""
    said, _ = sender.communicate(timeout=120)
    assert sender.returncode in (0, -signal.SIGKILL)
    return said.strip()


def url_of(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


@pytest.mark.slow
def test_killed_at_any_point_everyone_gets_the_digest_once(database: Database) -> None:
    fill(database)
    generator, moment = random.Random(20250901), MONDAY
    office, taken_unnoticed = Killing(), 0
    with serving(office) as port:
        for stage in ("taken", "address", "between", "taken"):
            office.stage, office.at = stage, generator.randint(1, 2)
            office.seen.clear()
            office.sender = start(url_of(database), moment, OFFPRINT_SMTP_URL=f"smtp://127.0.0.1:{port}")
            assert end(office.sender) == ""
            taken_unnoticed += stage == "taken"
            moment += HELD
        office.sender = None
        assert end(start(url_of(database), moment, OFFPRINT_SMTP_URL=f"smtp://127.0.0.1:{port}")).endswith(" sent")
        assert end(start(url_of(database), moment + HELD, OFFPRINT_SMTP_URL=f"smtp://127.0.0.1:{port}")) == "0 sent"
    copies = defaultdict(list)
    for mail in office.mails:
        copies[mail.message["Message-ID"]].append(mail)
    # One mail by Message-ID for everyone; a second copy only where the server had taken it as the sender was killed.
    assert Counter(mails[0].to[0] for mails in copies.values()) == EACH_ONCE
    assert sum(len(mails) - 1 for mails in copies.values()) <= taken_unnoticed
    for mails in copies.values():
        assert {(mail.content, *mail.to) for mail in mails} == {(mails[0].content, *mails[0].to)}
        assert sum(line.startswith("Paper ") for line in text_of(mails[0].message).splitlines()) == PAPERS


@pytest.mark.slow
def test_in_a_folder_a_killed_sender_leaves_no_gap(database: Database, tmp_path: Path) -> None:
    """Killed whenever: the folder holds each mail once and whole."""
    fill(database)
    moment, new = MONDAY, tmp_path / "mail" / "new"
    for wanted in (1, 6):
        sender = start(url_of(database), moment, OFFPRINT_MAILDIR=str(tmp_path / "mail"))
        while sender.poll() is None and (not new.is_dir() or len(list(new.iterdir())) < wanted):
            with suppress(subprocess.TimeoutExpired):
                sender.wait(0.02)
        sender.kill()
        end(sender)
        moment += HELD
    end(start(url_of(database), moment, OFFPRINT_MAILDIR=str(tmp_path / "mail")))
    mails = [read(path.read_bytes()) for path in new.iterdir()]
    assert Counter(mail["To"] for mail in mails) == EACH_ONCE
    assert len({mail["Message-ID"] for mail in mails}) == READERS
    assert all("Unsubscribe: https://" in text_of(mail) for mail in mails)


@pytest.mark.slow
def test_three_processes_at_once_send_each_mail_once(database: Database) -> None:
    fill(database)
    office = PostOffice()
    with serving(office) as port:
        senders = [start(url_of(database), MONDAY, OFFPRINT_SMTP_URL=f"smtp://127.0.0.1:{port}") for _ in range(3)]
        said = [end(sender) for sender in senders]
    assert sum(int(line.split()[0]) for line in said) == READERS
    assert Counter(mail.to[0] for mail in office.mails) == {
        f"reader{number}@example.org": 1 for number in range(READERS)
    }
