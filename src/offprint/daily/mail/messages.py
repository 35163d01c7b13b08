"""Mails that every program reads alike: headers of one line, texts as UTF-8 in short lines."""

from __future__ import annotations

import datetime
import unicodedata
from collections.abc import Mapping
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from email.utils import format_datetime, make_msgid
from typing import Any

from offprint.daily.settings import Settings

LONGEST_SUBJECT = 150
JOINER = "\u200d"
UNFOLDED = frozenset({"to", "message-id", "list-id", "list-unsubscribe", "list-unsubscribe-post"})


class _Policy(EmailPolicy):
    """Python's rules for mail, but for two kinds of header.

    Those that hold addresses would become encoded words where they are folded. And in subjects that are not ASCII, the
    spaces between some of the encoded words would be lost.
    """

    def fold(self, name: str, value: Any) -> str:
        """Return a header as its lines."""
        return self._lines(name, str(value)) or super().fold(name, value)

    def fold_binary(self, name: str, value: Any) -> bytes:
        """Return a header as its lines, encoded."""
        return self._lines(name, str(value)).encode("ascii") or super().fold_binary(name, value)

    def _lines(self, name: str, value: str) -> str:
        if name.lower() in UNFOLDED:
            return f"{name}: {value}{self.linesep}"
        if name.lower() == "subject" and not value.isascii():
            return f"{name}: {Header(value, 'utf-8', header_name=name).encode(linesep=self.linesep)}{self.linesep}"
        return ""


POLICY = _Policy(linesep=SMTP.linesep)


def one_line(text: str, longest: int | None = None) -> str:
    r"""Return a text on one line, without characters that steer a display, cut at a word where it is too long.

    Examples
    --------
    >>> one_line("A title\r\nBcc: someone@example.org")
    'A title Bcc: someone@example.org'
    >>> one_line("one two three", 10)
    'one two…'
    """
    plain = "".join(_shown(character) for character in text)
    plain = " ".join(plain.split())
    if longest is None or len(plain) <= longest:
        return plain
    start, _, _ = plain[:longest].rpartition(" ")
    return (start or plain[: longest - 1]).rstrip(" ,;:.") + "…"


def _shown(character: str) -> str:
    """Return a character, a space for one that controls, nothing for one that formats unseen (but joins emoji)."""
    category = unicodedata.category(character)
    if category in ("Cc", "Cs"):
        return " "
    return "" if category == "Cf" and character != JOINER else character


def compose(
    settings: Settings,
    *,
    to: str,
    subject: str,
    text: str,
    html: str | None = None,
    headers: Mapping[str, str] | None = None,
    message_id: str | None = None,
    when: datetime.datetime | None = None,
) -> EmailMessage:
    """Return a mail from this site to one reader.

    Parameters
    ----------
    settings : Settings
        ``mail_from`` is the sender.
    to : str
        The reader's address, as :func:`offprint.daily.inputs.email_address` returns it.
    subject : str
        Control characters and line ends in it become spaces.
    text, html : str
        The same content twice: plain, and for programs that show HTML.
    headers : mapping, optional
        Further headers.
    message_id : str, optional
        With its angle brackets; a new one when left out.
    when : datetime, optional
        The mail's date; the present moment when left out.
    """
    message = EmailMessage(policy=POLICY)
    message["From"] = settings.mail_from
    message["To"] = Address(addr_spec=to)
    # What looks like an encoded word would be read as one.
    message["Subject"] = one_line(subject.replace("=?", "= ?"), LONGEST_SUBJECT)
    message["Date"] = format_datetime(when or datetime.datetime.now(datetime.UTC))
    message["Message-ID"] = message_id or make_msgid(domain=sender(settings).domain)
    message["Auto-Submitted"] = "auto-generated"
    for name, value in (headers or {}).items():
        message[name] = value
    message.set_content(text, cte="quoted-printable")
    if html is not None:
        message.add_alternative(html, subtype="html", cte="quoted-printable")
    return message


def sender(settings: Settings) -> Address:
    """Return the address that mail comes from.

    Raises
    ------
    ValueError
        If ``OFFPRINT_MAIL_FROM`` is not one address.
    """
    message = EmailMessage()
    message["From"] = settings.mail_from
    found: tuple[Address, ...] = message["From"].addresses
    if len(found) != 1 or not found[0].domain or not found[0].addr_spec.isascii():
        raise ValueError(
            f"OFFPRINT_MAIL_FROM must be one address, such as offprint <papers@example.org>; got {settings.mail_from!r}"
        )
    return found[0]
