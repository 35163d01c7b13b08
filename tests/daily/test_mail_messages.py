"""The mails themselves, as Python's own parser reads them back: headers, texts, and what tries to break them."""

from __future__ import annotations

import datetime
import re
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mailing import HOUR, MONDAY, Shelf, add_paper, add_reader, read, text_of

from offprint.daily.inputs import email_address
from offprint.daily.library import load_records
from offprint.daily.mail import compose
from offprint.daily.mail.digest import Site, first_sentence
from offprint.daily.mail.messages import one_line
from offprint.daily.mail.sending import Sender
from offprint.daily.settings import Settings
from offprint.store import Database

SETTINGS = Settings(base_url="https://papers.example.org", secret="only for tests", mail_from="Zoë <zoe@example.org>")
NASTY = (
    'Gröbner 🎉 日本語 <b>bold</b> & "quotes"\r\nBcc: eve@example.org\r\n\r\n<script>alert(1)</script>\x1b[31m\u202e'
)


class Links(HTMLParser):
    """Collects links, elements and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.elements: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.links += [str(value) for name, value in attrs if name == "href"]


def send(database: Database, site_settings: Settings = SETTINGS, moment: datetime.datetime = MONDAY) -> Shelf:
    shelf = Shelf()
    Sender(database, shelf, Site.of(site_settings), lambda: moment).run()
    return shelf


def test_the_headers_of_a_digest(database: Database) -> None:
    with database.session() as session:
        add_reader(session, "ada@example.org")
        add_paper(session, "Games", MONDAY - HOUR)
    shelf = send(database, SETTINGS.model_copy(update={"unsubscribe_mail": "leave@example.org"}))
    [message] = shelf.messages
    assert message["From"] == "Zoë <zoe@example.org>"
    assert message["To"] == "ada@example.org"
    assert message["Subject"] == "1 new paper: Games"
    assert parsedate_to_datetime(message["Date"]) == MONDAY
    assert re.fullmatch(r"<digest\.2025-09-01\.1\.[0-9a-f]{12}@papers\.example\.org>", message["Message-ID"])
    assert message["List-Id"] == "New papers <digest.papers.example.org>"
    assert message["Precedence"] == "bulk"
    assert message["Auto-Submitted"] == "auto-generated"
    page, mail = message["List-Unsubscribe"].split(", ")
    assert re.fullmatch(r"<https://papers\.example\.org/subscription/[\w.-]+/unsubscribe>", page)
    assert mail == "<mailto:leave@example.org?subject=unsubscribe>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


def test_lines_are_as_short_as_mail_servers_want_them(database: Database) -> None:
    with database.session() as session:
        add_reader(session, "ada@example.org")
        add_paper(session, "Wort" * 400, MONDAY - HOUR, abstract="日本語" * 900)
    [mail] = send(database).mails
    lines = mail.content.split(b"\r\n")
    assert all(b"\n" not in line and b"\r" not in line for line in lines)
    assert all(len(line) <= 998 and line.isascii() for line in lines)
    headers, _, _ = mail.content.partition(b"\r\n\r\n")
    long = [line for line in headers.split(b"\r\n") if len(line) > 78]
    assert all(line.startswith((b"List-Unsubscribe:", b"Message-ID:")) for line in long)
    # On one line as it is: folded, a long address becomes an encoded word, which mail programs do not read here.
    [line] = [line for line in headers.split(b"\r\n") if line.startswith(b"List-Unsubscribe:")]
    assert re.fullmatch(rb"List-Unsubscribe: <https://papers\.example\.org/subscription/[\w.-]+/unsubscribe>", line)


def test_nothing_in_a_paper_adds_a_header_or_an_element(database: Database) -> None:
    with database.session() as session:
        add_reader(session, "ada@example.org", query="", topics=[])
        add_paper(session, NASTY, MONDAY - HOUR, abstract=f"First {NASTY} sentence. Second.", family="learn")
    shelf = send(database)
    [mail], [message] = shelf.mails, shelf.messages
    assert message["Bcc"] is None
    assert mail.to == "ada@example.org"
    assert "Bcc: eve@example.org" in message["Subject"]
    plain, html = text_of(message), text_of(message, "html")
    assert "Gröbner 🎉 日本語" in plain
    assert not set(plain + html) & set("\x1b\u202e")
    assert Links(html).elements.isdisjoint({"script", "b", "img"})
    assert "&lt;script&gt;" in html


def test_what_a_digest_says(package: Path, recorded_alpha: Path, database: Database) -> None:
    load_records(database)
    moment = datetime.datetime(2025, 8, 20, 6, tzinfo=datetime.UTC)
    with database.session() as session:
        add_reader(session, "ada@example.org", moment - datetime.timedelta(days=1))
    [message] = send(database, moment=moment).messages
    plain, html = text_of(message), text_of(message, "html")
    for body in (plain, html):
        assert "Wednesday, 20 August 2025" in body
        assert "2 of 4 claims reproduced" in body
        assert "https://papers.example.org/papers/alpha-method" in body
        assert "Solves small games by averaging." in body
        assert "stays text" not in body  # the second sentence
        assert "/unsubscribe" in body
    links = Links(html).links
    assert all(link.startswith("https://papers.example.org/") for link in links)
    assert "src=" not in html  # nothing is fetched when a mail is opened


@given(st.text(max_size=400))
@example("=?utf-8?q?Bcc=3A_eve=40example=2Eorg?=")
@example("a" * 77 + " ä " + "b" * 77)
@example("\r\n\r\nBody")
@example("é " * 70)
@example(f"{'0' * 6}{'¡' * 8}{'𐀀' * 3} ¡")
@settings(max_examples=60, deadline=None)
def test_any_subject_and_text_come_back(typed: str) -> None:
    text = typed.encode("utf-8", "replace").decode()
    message = compose(
        SETTINGS, to="ada@example.org", subject=f"Paper: {typed}", text=f"{text}\n", html=f"<p>{text}</p>"
    )
    found = read(message.as_bytes())
    assert found.keys() == message.keys()
    assert found["Subject"].split() == one_line(f"Paper: {typed}".replace("=?", "= ?"), 150).split()
    assert text_of(found).split() == text.split()
    assert not found.defects


@given(st.text(max_size=80))
@example("ada@example.org\n")
@example("a\x00@example.org")
@example("a@b@example.org")
@example('"a b"@example.org')
@settings(max_examples=100, deadline=None)
def test_an_address_is_one_or_none(typed: str) -> None:
    try:
        found = email_address(typed)
    except ValueError:
        return
    assert re.fullmatch(r"[!-~]+@[a-z0-9.-]+", found)
    assert not set(found) & set(' ",:;<>()[]\\\r\n\0')
    assert email_address(found) == found
    [parsed] = compose(SETTINGS, to=found, subject="", text="")["To"].addresses
    assert parsed.addr_spec == found


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (" Ada@Example.ORG ", "ada@example.org"),
        ("a.b+tag@sub.example.co.uk", "a.b+tag@sub.example.co.uk"),
        ("root@localhost", "root@localhost"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("a" * 64 + "@example.org", "a" * 64 + "@example.org"),
    ],
)
def test_addresses(typed: str, kept: str) -> None:
    assert email_address(typed) == kept


NO_ADDRESSES = """
@ ada ada@ @example.org a..b@example.org .a@example.org a@b ä@example.org a@-b.org a@b..org a@example.org> a,b@c.org
"""


@pytest.mark.parametrize("typed", ["", *NO_ADDRESSES.split(), f"{'a' * 65}@example.org", f"a@{'b' * 250}.org"])
def test_no_addresses(typed: str) -> None:
    with pytest.raises(ValueError, match="mail address"):
        email_address(typed)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One. Two.", "One."),
        ("We follow Cai et al. (2024) here. Then more.", "We follow Cai et al. (2024) here."),
        ("At 0.5 it works! Always.", "At 0.5 it works!"),
        ("No end", "No end"),
        ("Split\nover lines. Rest", "Split over lines."),
        ("", ""),
    ],
)
def test_the_first_sentence(text: str, first: str) -> None:
    assert first_sentence(text) == first
