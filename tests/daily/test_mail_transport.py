"""Handing mail over: to a real SMTP server with TLS and sign-in, and to a folder that Python's own Maildir reads."""

from __future__ import annotations

import mailbox
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import quote

import pytest
import smtp_server
from smtp_server import PASSWORD, USER, PostOffice, serving
from starlette.requests import Request

from offprint.daily.mail import (
    Folder,
    MailError,
    NoServerError,
    Outbox,
    RefusedError,
    compose,
    folder_shown,
    outbox,
    transport,
)
from offprint.daily.mail.transport import Envelope
from offprint.daily.settings import Settings

CREDENTIALS = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smtp_server.certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusted(tls: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls / "ca.pem"))
    return tls


def box(url: str) -> Outbox:
    return outbox(Settings(smtp_url=url, base_url="https://papers.example.org", mail_from="Papers <p@example.org>"))


def mail(to: str = "ada@example.org") -> EmailMessage:
    return compose(Settings(mail_from="Papers <p@example.org>"), to=to, subject="Hello", text="Hello\n")


def test_starttls_with_sign_in(trusted: Path) -> None:
    office = PostOffice()
    with serving(office, trusted, auth=True) as port:
        box(f"smtp+starttls://{CREDENTIALS}@localhost:{port}").send(mail())
    [received] = office.mails
    assert received.encrypted
    assert received.user == USER
    assert received.sender == "p@example.org"
    assert received.to == ["ada@example.org"]
    assert received.message["From"] == "Papers <p@example.org>"
    assert received.message.get_content().split() == ["Hello"]


def test_tls_from_the_first_byte(trusted: Path) -> None:
    office = PostOffice()
    with serving(office, trusted, implicit=True, auth=True) as port:
        box(f"smtps://{CREDENTIALS}@127.0.0.1:{port}").send(mail())
    assert [received.user for received in office.mails] == [USER]


def test_tls_is_used_where_it_is_offered_and_may_be_missing(trusted: Path) -> None:
    office = PostOffice()
    with serving(office, trusted) as port:
        box(f"smtp://localhost:{port}").send(mail())
    with serving(office) as port:
        box(f"smtp://localhost:{port}").send(mail())
    assert [received.encrypted for received in office.mails] == [True, False]


def test_starttls_is_not_given_up(trusted: Path) -> None:
    office = PostOffice()
    with serving(office) as port, pytest.raises(NoServerError, match="STARTTLS"):
        box(f"smtp+starttls://localhost:{port}").send(mail())
    assert not office.mails


@pytest.mark.parametrize("scheme", ["smtp", "smtp+starttls", "smtps"])
def test_a_certificate_nobody_vouches_for_is_refused(tls: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    office = PostOffice()
    with (
        serving(office, tls, implicit=scheme == "smtps") as port,
        pytest.raises(NoServerError, match="certificate is not trusted"),
    ):
        box(f"{scheme}://localhost:{port}").send(mail())
    assert not office.mails


def test_a_certificate_of_another_host_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = smtp_server.certificates(tmp_path, "DNS:mail.example.org")
    monkeypatch.setenv("SSL_CERT_FILE", str(other / "ca.pem"))
    office = PostOffice()
    with serving(office, other) as port, pytest.raises(NoServerError, match="certificate is not trusted"):
        box(f"smtp://localhost:{port}").send(mail())


def test_a_password_is_never_sent_in_the_clear_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "is_loopback", lambda host: False)
    office = PostOffice()
    with serving(office, auth=True) as port, pytest.raises(NoServerError, match="no encryption"):
        box(f"smtp://{CREDENTIALS}@localhost:{port}").send(mail())
    assert not office.mails


def test_a_wrong_password_is_told_without_it(trusted: Path) -> None:
    with serving(PostOffice(), trusted, auth=True) as port, pytest.raises(NoServerError) as told:
        box(f"smtp://ada:hunter2@localhost:{port}").send(mail())
    assert "does not accept the user and password" in str(told.value)
    assert "hunter2" not in str(told.value) + repr(box(f"smtp://ada:hunter2@localhost:{port}"))


def test_refusals_for_good_and_for_now() -> None:
    office = PostOffice(replies={"gone@example.org": "550 5.1.1 No such user", "full@example.org": "452 4.2.2 Full"})
    with serving(office) as port, box(f"smtp://localhost:{port}").kept_open() as kept:
        with pytest.raises(RefusedError, match=r"550 5\.1\.1 No such user"):
            kept.send(mail("gone@example.org"))
        with pytest.raises(MailError, match="452") as later:
            kept.send(mail("full@example.org"))
        assert type(later.value) is MailError
        kept.send(mail())
    assert [received.to for received in office.mails] == [["ada@example.org"]]


def test_nobody_listens() -> None:
    with serving(PostOffice()) as port:
        pass
    with pytest.raises(NoServerError, match="cannot be reached"):
        box(f"smtp://localhost:{port}").send(mail())


def test_one_connection_takes_many_mails_and_another_takes_over() -> None:
    office = PostOffice(most_per_connection=3)
    with serving(office) as port, box(f"smtp://localhost:{port}").kept_open() as kept:
        for number in range(7):
            kept.send(mail(f"reader{number}@example.org"))
    assert [received.to for received in office.mails] == [[f"reader{number}@example.org"] for number in range(7)]
    assert len({received.connection for received in office.mails}) == 3


def test_a_server_that_was_started_anew_is_found_again() -> None:
    office = PostOffice()
    with serving(office) as port:
        kept_open = box(f"smtp://localhost:{port}").kept_open()
        kept = kept_open.__enter__()
        kept.send(mail())
    with pytest.raises(NoServerError):
        kept.send(mail())
    with serving(office, port=port):
        kept.send(mail("second@example.org"))
    kept_open.__exit__(None, None, None)
    assert [received.to for received in office.mails] == [["ada@example.org"], ["second@example.org"]]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://mail.example.org", "the scheme is http"),
        ("mail.example.org", "the scheme is missing"),
        ("smtp://", "percent-encode"),
        ("smtp://ada:pa/ss@mail.example.org", "port|percent-encode"),
        ("smtp://ada:x@mail.example.org:many", "the port is not a number"),
    ],
)
def test_a_url_that_cannot_be_used_names_the_variable_and_no_password(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        box(url)
    assert "OFFPRINT_SMTP_URL" in str(error.value)
    assert "pa/ss" not in str(error.value)


def test_mail_for_the_world_needs_an_address_that_requests_cannot_choose() -> None:
    with pytest.raises(ValueError, match="OFFPRINT_BASE_URL"):
        outbox(Settings(smtp_url="smtp://mail.example.org"))


@pytest.mark.parametrize("sender", ["nobody", "a@example.org, b@example.org", ""])
def test_the_sender_is_one_address(sender: str) -> None:
    with pytest.raises(ValueError, match="OFFPRINT_MAIL_FROM"):
        outbox(Settings(smtp_url="smtp://m.example.org", base_url="https://p.example.org", mail_from=sender))


def test_the_folder_is_a_maildir(tmp_path: Path) -> None:
    folder = outbox(Settings(maildir=tmp_path / "deep" / "mail"))
    assert isinstance(folder, Folder)
    folder.send(mail())
    [read] = list(mailbox.Maildir(tmp_path / "deep" / "mail", create=False))
    assert read["To"] == "ada@example.org"
    assert read.get_payload(decode=True) == b"Hello\n"


def test_the_same_mail_is_in_the_folder_once_even_when_it_was_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    once = Envelope("ada@example.org", "<1@example.org>", b"To: ada@example.org\r\n\r\nonce\r\n")
    folder.hand_over(once)
    folder.hand_over(once)
    box = mailbox.Maildir(tmp_path, create=False)
    [(key, read)] = box.items()
    read.set_subdir("cur")
    read.add_flag("S")
    box[key] = read
    folder.hand_over(once)
    folder.hand_over(Envelope("ada@example.org", "<2@example.org>", once.content))
    assert len(mailbox.Maildir(tmp_path, create=False)) == 2
    assert not list((tmp_path / "tmp").iterdir())


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NoServerError, match="cannot be written to"):
        Folder(tmp_path / "file").send(mail())


@pytest.mark.parametrize(
    ("client", "headers", "seen"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("192.0.2.7", {}, False),
        ("127.0.0.1", {"x-forwarded-for": "192.0.2.7"}, False),
        ("127.0.0.1", {"forwarded": "for=192.0.2.7"}, False),
    ],
)
def test_only_who_sits_at_the_machine_is_told_of_the_folder(
    tmp_path: Path, client: str, headers: dict[str, str], seen: bool
) -> None:
    class App:
        class state:
            outbox = Folder(tmp_path)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "client": (client, 1), "headers": raw, "app": App})
    assert (folder_shown(request) == tmp_path) is seen
