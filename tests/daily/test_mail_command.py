"""``offprint digest send``, as cron and people run it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from mailing import HOUR, add_paper, add_reader
from sqlalchemy import func, select
from typer.testing import CliRunner

from offprint.cli import app
from offprint.daily.mail import Folder
from offprint.daily.mail.transport import Envelope
from offprint.store import Database, Delivery
from offprint.store.models import now


@pytest.fixture
def folder(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Papers and readers of today, and mail that goes to a folder, which is returned."""
    monkeypatch.setenv("OFFPRINT_DATABASE_URL", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("OFFPRINT_MAILDIR", str(tmp_path / "mail"))
    with database.session() as session:
        add_paper(session, "A paper of today", now())
        for name in "abc":
            add_reader(session, f"{name}@example.org", now() - HOUR)
    return tmp_path / "mail" / "new"


def offprint(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["digest", "send", *arguments])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, ended.output


def test_send(folder: Path) -> None:
    status, said = offprint()
    assert status == 0
    assert "digests: 3 sent" in said
    assert str(folder.parent) in said
    assert len(list(folder.iterdir())) == 3
    assert offprint() == (0, "digests: 0 sent\n")


def test_a_dry_run_shows_and_changes_nothing(folder: Path, database: Database) -> None:
    status, said = offprint("--dry-run")
    assert status == 0
    assert [line for line in said.splitlines() if line.startswith("To: ")] == [
        f"To: {name}@example.org" for name in "abc"
    ]
    assert said.count("\nA paper of today\n") == 3
    assert "3 would be sent" in said
    assert not folder.exists()
    with database.session() as session:
        assert session.scalar(select(func.count()).select_from(Delivery)) == 0
    assert "0 would be sent" in offprint("--dry-run", "--frequency", "weekly")[1]


def test_ctrl_c_ends_it_after_the_mail_at_hand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over, before = Folder.hand_over, signal.getsignal(signal.SIGINT)

    def interrupted(self: Folder, mail: Envelope) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        hand_over(self, mail)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "hand_over", interrupted)
        status, said = offprint()
    assert status == 130
    assert "1 sent" in said
    assert "goes on from there" in said
    assert signal.getsignal(signal.SIGINT) is before
    assert "digests: 2 sent" in offprint()[1]
    assert len(list(folder.iterdir())) == 3


def test_settings_that_cannot_be_used_are_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFPRINT_SMTP_URL", "smtp://user:hunter2@mail.example.org")
    ended = CliRunner().invoke(app, ["digest", "send"])
    assert ended.exit_code == 2
    assert "OFFPRINT_BASE_URL" in ended.output
    assert "hunter2" not in ended.output


def test_a_server_that_is_not_there_is_one_line_and_nothing_is_lost(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("OFFPRINT_SMTP_URL", "smtp://127.0.0.1:1")
        patch.setenv("OFFPRINT_BASE_URL", "https://papers.example.org")
        status, said = offprint()
    assert status == 1
    assert "stopped: the mail server 127.0.0.1:1 cannot be reached" in said
    assert "digests: 3 sent" in offprint()[1]
