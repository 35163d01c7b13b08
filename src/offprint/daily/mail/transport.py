"""Handing mail over: to an SMTP server, or to a folder on this machine while there is none."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import smtplib
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import unquote, urlsplit

from starlette.requests import Request

from offprint.daily.mail.messages import one_line, sender
from offprint.daily.origin import is_here, is_loopback
from offprint.daily.settings import Settings

TIMEOUT_SECONDS = 20.0
PORTS = {"smtp": 587, "smtp+starttls": 587, "smtps": 465}


class MailError(Exception):
    """A mail was not taken, for now: it may be tried again. What it says holds no password."""


class RefusedError(MailError):
    """A reader's mail is refused for good."""


class NoServerError(MailError):
    """No mail can be handed over at all."""


@dataclass(frozen=True)
class Envelope:
    """A mail ready to go: whom it is for, what names it, and its bytes."""

    to: str
    message_id: str
    content: bytes


class Outbox(ABC):
    """Where mail is handed over."""

    def send(self, message: EmailMessage) -> None:
        """Hand over a mail made by :func:`offprint.daily.mail.compose`.

        Raises
        ------
        MailError
            If it is not taken.
        """
        self.hand_over(Envelope(message["To"].addresses[0].addr_spec, message["Message-ID"], message.as_bytes()))

    @abstractmethod
    def hand_over(self, mail: Envelope) -> None:
        """Hand over a mail as it is."""

    @contextlib.contextmanager
    def kept_open(self) -> Iterator[Outbox]:
        """Give an outbox that keeps its connection from one mail to the next. For one thread."""
        yield self


class Folder(Outbox):
    """A Maildir folder. A mail's file is named after its ``Message-ID``: the same mail twice is there once.

    Parameters
    ----------
    path : Path
        Made, readable by its owner only, with the first mail.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def hand_over(self, mail: Envelope) -> None:
        """Write a mail, whole or not at all."""
        name = f"{hashlib.sha256(mail.message_id.encode()).hexdigest()[:40]}.offprint"
        draft = self.path / "tmp" / f"{name}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in ("tmp", "new", "cur"):
                (self.path / part).mkdir(mode=0o700, exist_ok=True)
            if any((self.path / "cur").glob(f"{name}*")):  # it was read already
                return
            with draft.open("xb") as file:
                file.write(mail.content.replace(b"\r\n", b"\n"))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path / "new" / name)
        except OSError as error:
            raise NoServerError(f"the mail folder {self.path} cannot be written to: {error.strerror}") from error


@dataclass(frozen=True)
class Server(Outbox):
    """An SMTP server. It is never given a password over a connection that others could read.

    Parameters
    ----------
    host, port : str, int
    security : {"offered", "starttls", "tls"}
        TLS where the server offers it, TLS by STARTTLS or nothing, or TLS from the first byte. Certificates are
        checked against the system's authorities (``SSL_CERT_FILE`` names others).
    sender : str
        The address that replies about delivery go to.
    user, password : str
        No sign-in when empty.
    """

    host: str
    port: int
    security: str
    sender: str
    user: str = ""
    password: str = field(default="", repr=False)

    def hand_over(self, mail: Envelope) -> None:
        """Send a mail over a connection of its own."""
        with self.kept_open() as connection:
            connection.hand_over(mail)

    @contextlib.contextmanager
    def kept_open(self) -> Iterator[Outbox]:
        """Give an outbox that connects with its first mail and then stays connected."""
        connection = _Connection(self)
        try:
            yield connection
        finally:
            connection.close()

    def connect(self) -> smtplib.SMTP:
        """Return a connection on which mails can be sent."""
        where = f"the mail server {self.host}:{self.port}"
        try:
            return self._connect()
        except smtplib.SMTPAuthenticationError as error:
            raise NoServerError(f"{where} does not accept the user and password: {_reply(error)}") from error
        except smtplib.SMTPResponseException as error:
            raise NoServerError(f"{where} refuses the connection: {_reply(error)}") from error
        except smtplib.SMTPNotSupportedError as error:
            raise NoServerError(f"{where} cannot do what is wanted: {error}") from error
        except (OSError, smtplib.SMTPException) as error:  # ssl.SSLError is an OSError
            raise NoServerError(f"{where} cannot be reached: {_reason(error)}") from error

    def _connect(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self.security == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_SECONDS, context=context)
        else:
            client = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_SECONDS)
        try:
            client.ehlo_or_helo_if_needed()
            encrypted = self.security == "tls"
            if self.security == "starttls" or (self.security == "offered" and client.has_extn("starttls")):
                client.starttls(context=context)
                client.ehlo()
                encrypted = True
            if self.user:
                if not encrypted and not is_loopback(self.host):
                    raise NoServerError(
                        f"the mail server {self.host}:{self.port} offers no encryption, so it is not given the password"
                    )
                client.login(self.user, self.password)
        except BaseException:
            client.close()
            raise
        return client


class _ClosingError(MailError):
    """The server ends the connection instead of taking a mail."""


class _Connection(Outbox):
    """A connection to a server, made when it is needed and again when it was lost."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._client: smtplib.SMTP | None = None

    def hand_over(self, mail: Envelope) -> None:
        """Send a mail; over a new connection if the server ends this one, as some do after so many mails."""
        used = self._client is not None
        try:
            self._send(mail)
        except _ClosingError:
            if not used:
                raise
            self._send(mail)

    def _send(self, mail: Envelope) -> None:
        client = self._live()
        try:
            client.sendmail(self.server.sender, [mail.to], mail.content)
        except smtplib.SMTPRecipientsRefused as error:
            [(code, reply)] = error.recipients.values()
            raise self._refused(smtplib.SMTPResponseException(code, reply)) from error
        except smtplib.SMTPResponseException as error:
            raise self._refused(error) from error
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            raise MailError(f"the mail server was lost while it took a mail: {_reason(error)}") from error

    def close(self) -> None:
        """End the connection."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                client.quit()
            client.close()

    def _live(self) -> smtplib.SMTP:
        """Return the connection, after asking the server whether it still is one: a mail must not find out."""
        if self._client is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                if self._client.noop()[0] == 250:
                    return self._client
            self.close()
        self._client = self.server.connect()
        return self._client

    def _refused(self, error: smtplib.SMTPResponseException) -> MailError:
        if error.smtp_code == 421:
            self._client = None  # smtplib has closed it
            return _ClosingError(_reply(error))
        if isinstance(error, smtplib.SMTPSenderRefused) or error.smtp_code in (530, 535):
            return NoServerError(_reply(error))  # it says nothing of the reader's address
        return RefusedError(_reply(error)) if 500 <= error.smtp_code < 600 else MailError(_reply(error))


def outbox(settings: Settings) -> Outbox:
    """Return where mail goes by the settings.

    Raises
    ------
    ValueError
        Naming the variable that cannot be used.

    Examples
    --------
    >>> outbox(Settings(smtp_url="smtps://ada:p%40ss@mail.example.org", base_url="https://papers.example.org"))
    Server(host='mail.example.org', port=465, security='tls', sender='offprint@localhost', user='ada')
    """
    writes = sender(settings).addr_spec
    if not settings.smtp_url:
        return Folder(settings.maildir)
    expected = "OFFPRINT_SMTP_URL must be smtp://, smtp+starttls:// or smtps:// with user:password@host:port"
    parts = urlsplit(settings.smtp_url)
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"{expected}: the port is not a number") from None
    if parts.scheme not in PORTS:
        raise ValueError(f"{expected}: the scheme is {parts.scheme or 'missing'}")
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{expected}: percent-encode / ? # @ and : in the password")
    if not settings.base_url:
        raise ValueError(
            "OFFPRINT_SMTP_URL needs OFFPRINT_BASE_URL: whoever asks must not choose where mailed links go"
        )
    return Server(
        parts.hostname,
        port or PORTS[parts.scheme],
        {"smtp": "offered", "smtp+starttls": "starttls", "smtps": "tls"}[parts.scheme],
        writes,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def folder_shown(request: Request) -> Path | None:
    """Return the folder that mail goes to where whoever asks sits at this machine, and ``None`` for everyone else."""
    box = getattr(request.app.state, "outbox", None)
    return box.path if isinstance(box, Folder) and is_here(request) else None


def _reply(error: smtplib.SMTPResponseException) -> str:
    text = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else str(error.smtp_error)
    return f"{error.smtp_code} {one_line(text, 300)}"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    return str(error) or type(error).__name__
