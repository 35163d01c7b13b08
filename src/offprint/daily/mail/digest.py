"""The digest: new papers as a mail, plain and HTML, and the mails that lead to it."""

from __future__ import annotations

import datetime
import hashlib
import re
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any
from urllib.parse import quote, urlsplit

from offprint.daily.library import address
from offprint.daily.mail.messages import compose, one_line
from offprint.daily.mail.selection import Selected, period
from offprint.daily.mail.subscriptions import Choice, Links
from offprint.daily.measured import Measured, PaperView, views
from offprint.daily.rendering import fragment, long_date
from offprint.daily.settings import Settings
from offprint.store import Paper, Subscription

LOCAL = "http://127.0.0.1:8000"
"""Where links lead while mail goes to a folder and the operator has set no address."""

LONGEST_LINE = 240
LONGEST_HOST = 100
SENTENCE_END = re.compile(r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bal\.)(?<=[.!?])\s+(?=[^\sa-z])")


@dataclass(frozen=True)
class Entry:
    """A paper in a digest."""

    title: str
    url: str
    line: str
    badge: str
    family: str
    verdicts: tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """What mails say of the site: its address, its settings, and how links to subscriptions are signed."""

    settings: Settings
    links: Links
    base: str

    @classmethod
    def of(cls, settings: Settings, base: str | None = None) -> Site:
        """Return the site of the settings, at an address where they name none."""
        return cls(settings, Links(settings.secret), settings.base_url or base or LOCAL)

    def url(self, subscription: Subscription) -> str:
        """Return the address of a subscription's page."""
        return self.base + self.links.path(subscription)

    @property
    def host(self) -> str:
        """The name that identifies mails and the list."""
        host = urlsplit(self.base).hostname or "localhost"
        return host if len(host) <= LONGEST_HOST and re.fullmatch(r"[a-z0-9.-]+", host) else "localhost"


def first_sentence(text: str) -> str:
    """Return how a text begins, as one line.

    Examples
    --------
    >>> first_sentence("We solve games, e.g. chess. They end.")
    'We solve games, e.g. chess.'
    """
    return one_line(SENTENCE_END.split(one_line(text), maxsplit=1)[0], LONGEST_LINE)


def message_id(site: Site, subscription: Subscription, now: datetime.datetime) -> str:
    """Return what names the one digest of a subscription for its day or week."""
    owner = hashlib.sha256(f"{subscription.email} {subscription.confirmed_at}".encode()).hexdigest()[:12]
    return f"<digest.{period(subscription, now).name}.{subscription.id}.{owner}@{site.host}>"


def digest(
    site: Site, subscription: Subscription, selected: Selected, now: datetime.datetime, measured: Measured
) -> EmailMessage:
    """Return a digest as the mail that goes out."""
    found = views(measured, selected.papers)
    entries = [_entry(site, paper, found.get(paper.slug or "")) for paper in selected.papers]
    choice, span, page = Choice.of(subscription), period(subscription, now), site.url(subscription)
    context: dict[str, Any] = {
        "entries": entries,
        "heading": long_date(now.date()) if span.kind == "day" else f"The week of {span.title}",
        "choice": choice,
        "total": selected.total,
        "rest": selected.total - len(entries),
        "rest_url": site.base + (f"/search?q={quote(choice.query)}" if choice.query else span.path),
        "home": site.base,
        "page": page,
        "email": subscription.email,
    }
    # A title may be long and hold anything; compose makes one line of it.
    papers = "1 new paper" if selected.total == 1 else f"{selected.total} new papers"
    return compose(
        site.settings,
        to=subscription.email,
        subject=f"{papers}: {entries[0].title}",
        text=fragment("mail/digest.txt", **context),
        html=fragment("mail/digest.html", **context),
        headers=_list_headers(site, page),
        message_id=message_id(site, subscription, now),
        when=now,
    )


def confirmation(site: Site, subscription: Subscription, token: str) -> EmailMessage:
    """Return the mail whose link confirms a subscription."""
    context: dict[str, Any] = {
        "link": f"{site.base}/subscribe/confirm/{token}",
        "choice": Choice.of(subscription),
        "home": site.base,
    }
    return compose(
        site.settings,
        to=subscription.email,
        subject="Confirm your subscription",
        text=fragment("mail/confirm.txt", **context),
        html=fragment("mail/confirm.html", **context),
    )


def reminder(site: Site, subscription: Subscription) -> EmailMessage:
    """Return the mail for someone who asks for what they get already."""
    page = site.url(subscription)
    context: dict[str, Any] = {"page": page, "choice": Choice.of(subscription), "home": site.base}
    return compose(
        site.settings,
        to=subscription.email,
        subject="You are subscribed already",
        text=fragment("mail/already.txt", **context),
        html=fragment("mail/already.html", **context),
        headers=_list_headers(site, page),
    )


def _list_headers(site: Site, page: str) -> dict[str, str]:
    """Return the headers of list mail, with which programs offer to unsubscribe by one click (RFC 2919, 2369, 8058)."""
    ways = [f"<{page}/unsubscribe>"]
    if site.settings.unsubscribe_mail:
        ways.append(f"<mailto:{quote(site.settings.unsubscribe_mail, safe='@')}?subject=unsubscribe>")
    return {
        "List-Id": f"New papers <digest.{site.host}>",
        "List-Unsubscribe": ", ".join(ways),
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Precedence": "bulk",
    }


def _entry(site: Site, paper: Paper, view: PaperView | None) -> Entry:
    badge = ""
    if view is not None:
        badge = view.badge + (", quick run" if view.scales == ("quick",) else "")
    return Entry(
        title=one_line(paper.title),
        url=site.base + quote(address(paper), safe="/."),
        line=first_sentence(paper.summary or paper.abstract or ""),
        badge=badge,
        family=paper.family or "",
        verdicts=view.verdicts if view is not None else (),
    )
