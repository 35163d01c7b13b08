"""Pages from templates: how numbers, days and authors are written, and where the static files are."""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from offprint.daily.abstracts import plain
from offprint.daily.accounts import current
from offprint.daily.kept import share
from offprint.daily.library import address
from offprint.daily.mail import folder_shown
from offprint.daily.runs import told
from offprint.daily.security import FormGuard

HERE = Path(__file__).parent
STATIC = HERE / "static"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None) -> str:
    """Write a number with three significant digits.

    Examples
    --------
    >>> number(4.5), number(12345.6), number(0.00012), number(None)
    ('4.5', '12,346', '1.2 × 10⁻⁴', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size and not 1e-3 <= size < 1e7:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{float(digits):g} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return f"{value:,.0f}" if size >= 999.5 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Write a time span.

    Examples
    --------
    >>> duration(0.31), duration(42), duration(130)
    ('0.3 s', '42 s', '2 min 10 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def long_date(date: datetime.date) -> str:
    """Write a day with its weekday, for example ``Wednesday, 20 August 2025``."""
    return f"{date:%A}, {date.day} {date:%B %Y}"


def short_date(date: datetime.date) -> str:
    """Write a day, for example ``20 Aug 2025``."""
    return f"{date.day} {date:%b %Y}"


def moment(when: datetime.datetime) -> str:
    """Write a moment, for example ``20 Aug 2025, 14:05 UTC``."""
    when = when.astimezone(datetime.UTC)
    return f"{short_date(when)}, {when:%H:%M} UTC"


def byline(authors: Sequence[str], most: int = 4) -> str:
    """Write authors on one line.

    Examples
    --------
    >>> byline(["Ada", "Grace"]), byline(["A", "B", "C", "D", "E", "F"])
    ('Ada and Grace', 'A, B, C and 3 others')
    """
    if len(authors) > most:
        return f"{', '.join(authors[: most - 1])} and {len(authors) - most + 1} others"
    return " and ".join([", ".join(authors[:-1]), authors[-1]]) if len(authors) > 1 else "".join(authors)


@cache
def asset(name: str) -> str:
    """Return the address of a static file, with a version that changes with its content."""
    version = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{quote(name)}?v={version}"


@cache
def templates() -> jinja2.Environment:
    """Return the templates. Everything put into them is escaped, and a name that is missing is an error."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # A look at every file of a page, and of each paper on it, would cost more than rendering it.
        auto_reload=False,
    )
    found.filters |= {
        "number": number,
        "duration": duration,
        "long_date": long_date,
        "short_date": short_date,
        "moment": moment,
        "byline": byline,
        "plain": plain,
    }
    found.globals |= {"asset": asset, "address": address, "told": told, "mail_folder": folder_shown}
    return found


def fragment(name: str, **context: Any) -> str:
    """Render a template."""
    return templates().get_template(name).render(**context)


def page(request: Request, name: str, *, status: int = 200, shared: bool = False, **context: Any) -> Response:
    """Render a page for whoever is signed in, remembering the visitor where it holds a form of theirs.

    Templates find the account (or ``None``) as ``account``, and the token for a form by calling ``form_token()``. With
    ``shared``, it is the same for all who are not signed in and get no form.
    """
    guard: FormGuard = request.app.state.guard
    account, form_token = current(request), cache(lambda: guard.token(request))
    known = {"request": request, "account": account, "form_token": form_token}
    response = HTMLResponse(fragment(name, **known, **context), status)
    if shared and account is None and not form_token.cache_info().currsize:
        share(request)
    guard.remember(request, response)
    # A page is of whoever asked for it: nobody else's cache may keep it.
    response.headers["Cache-Control"] = "private, no-cache"
    return response
