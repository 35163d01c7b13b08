"""A real SMTP server in this process, with certificates made for the test."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "ada@papers", "p@ss:w/rd?#%"


@dataclass
class Received:
    """A mail that the server has taken."""

    sender: str
    to: list[str]
    content: bytes
    encrypted: bool
    user: str | None
    connection: object

    @property
    def message(self) -> EmailMessage:
        """The mail as Python's own parser reads it."""
        message = message_from_bytes(self.content, policy=default)
        assert isinstance(message, EmailMessage)
        return message


@dataclass
class PostOffice:
    """What the server does with mails: takes them, unless ``replies`` says otherwise for an address."""

    replies: dict[str, str] = field(default_factory=dict)
    """By address, what ``RCPT TO`` is answered."""
    most_per_connection: int = 10**9
    mails: list[Received] = field(default_factory=list)
    taken: dict[object, int] = field(default_factory=dict)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        """Take or refuse a recipient."""
        if address in self.replies:
            return self.replies[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[Any]
    ) -> str:
        """Take a sender, unless this connection has had its share."""
        if self.taken.get(session.peer, 0) >= self.most_per_connection:
            return "421 4.7.0 Enough for this connection"
        envelope.mail_from = address
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Take a mail."""
        self.taken[session.peer] = self.taken.get(session.peer, 0) + 1
        assert isinstance(envelope.content, bytes)
        user = session.auth_data.login.decode() if isinstance(session.auth_data, LoginPassword) else None
        encrypted = session.ssl is not None
        self.mails.append(
            Received(envelope.mail_from or "", envelope.rcpt_tos, envelope.content, encrypted, user, session.peer)
        )
        return "250 Taken"

    def __len__(self) -> int:
        return len(self.mails)


@contextmanager
def serving(
    office: PostOffice, tls: Path | None = None, *, port: int = 0, implicit: bool = False, auth: bool = False
) -> Iterator[int]:
    """Run the server on a port, a free one when left out, which is given; ``tls`` is the folder of a certificate."""
    if not port:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    options: dict[str, Any] = {}
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        options["ssl_context" if implicit else "tls_context"] = context
    if auth:
        options |= {
            "authenticator": _check,
            "auth_required": True,
            "auth_require_tls": tls is not None and not implicit,
        }
    controller = Controller(office, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def certificates(folder: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> Path:
    """Make an authority (``ca.pem``) and a certificate (``server.pem``) that it has signed; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    _openssl(folder, "req", "-x509", *ec, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=An authority for tests")
    _openssl(folder, "req", *ec, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (folder / "names").write_text(f"subjectAltName={names}\n", encoding="ascii")
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    _openssl(folder, "x509", "-req", "-in", "server.csr", *sign, "-out", "server.pem")
    return folder


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def _check(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=right, handled=right, auth_data=data)
