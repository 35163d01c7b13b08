"""The corpus of attacks.py through every field and every importer, seen in a real browser: nothing of it runs.

Pages are opened with our Content-Security-Policy, which then has nothing to report, and with the policy set aside, so
that what keeps a script from running is that there is none. Packs hold several payloads, because a page that lets one
through can be told by it whatever stands beside it.
"""

from __future__ import annotations

import datetime
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

pytest.importorskip("selenium", reason="pip install 'offprint[e2e]'")

from arxiv_server import Preprint, arxiv_server
from attacks import MARK, PAYLOADS
from browsing import at_start, click, wait
from httpx2 import Client
from mailing import add_paper
from rich.console import Console
from selenium.common.exceptions import UnexpectedAlertPresentException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from websites import Website, website

from offprint.daily.importing.arxiv_api import ArxivApi
from offprint.daily.importing.arxiv_dump import ArxivDump
from offprint.daily.importing.hub_json import HubJson
from offprint.daily.importing.page_text import PageText
from offprint.daily.importing.streaming import Source, perform
from offprint.daily.mail.command import send
from offprint.daily.mail.subscriptions import Links
from offprint.daily.security import SESSION_COOKIE
from offprint.daily.settings import Settings
from offprint.store import Account, Authorship, Comment, Database, Listing, Paper, Subscription

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

DAYS = {"page-text": "2025-09-01", "hub-json": "2025-09-02", "arxiv-dump": "2025-09-03", "arxiv": "2025-09-04"}
TALKED_ABOUT = "2509.99999"
"""The paper with all comments, whose authors are named like payloads."""

WATCH = """
    window.ran = [];
    for (const name of ['alert', 'confirm', 'prompt', 'print', 'open']) {
        window[name] = (...about) => { window.ran.push(`${name}: ${about}`); };
    }
    document.addEventListener('securitypolicyviolation', (event) => {
        window.ran.push(`policy: ${event.effectiveDirective} ${event.blockedURI} ${event.sample}`);
    });
"""
LOOK = """
    const done = arguments[0];
    const look = () => {
        const found = [...window.ran];
        for (const element of document.querySelectorAll('*')) {
            const here = element.outerHTML.slice(0, 200);
            const bad = 'iframe object embed applet base style audio video source marquee portal animate foreignObject';
            if (bad.split(' ').includes(element.localName)) found.push(`element: ${here}`);
            if (element.localName === 'meta' && /refresh/i.test(element.httpEquiv)) found.push(`refresh: ${here}`);
            for (const {name, value} of element.attributes) {
                if (name === 'style' && element.closest('.katex')) continue;  // set by KaTeX, one property at a time
                if (/^(on|hx-on|data-hx-on|style$|srcdoc$)/i.test(name)) found.push(`${name}: ${here}`);
                if (/^(hx-|data-hx-|sse-)/.test(name) && value.includes('MARK')) found.push(`${name}: ${here}`);
            }
            for (const name of ['href', 'src', 'action', 'formAction', 'data', 'poster']) {
                const given = element.hasAttribute?.(name.toLowerCase()) || element.hasAttribute?.('xlink:href');
                const to = given ? (element[name]?.baseVal ?? element[name]) : '';
                if (!to || typeof to !== 'string') continue;
                if (!/^https?:/i.test(to)) found.push(`${name}: ${here}`);
                if (element.localName !== 'a' && !to.startsWith(location.origin)) found.push(`${name}: ${here}`);
            }
        }
        for (const {name} of performance.getEntriesByType('resource')) {
            if (!name.startsWith(location.origin)) found.push(`fetched: ${name}`);
        }
        done(found);
    };
    // What an error of an image, a focus or an animation would start has then begun.
    setTimeout(() => requestAnimationFrame(() => setTimeout(look)), 20);
""".replace("MARK", MARK)


def packs(longest: int, payloads: tuple[str, ...] = PAYLOADS) -> list[str]:
    """Join payloads to texts up to a length; every payload that fits at all is in one."""
    found: list[str] = []
    for payload in (each for each in payloads if len(each) <= longest):
        if found and len(found[-1]) + 1 + len(payload) <= longest:
            found[-1] += f" {payload}"
        else:
            found.append(payload)
    return found


TITLES = [f"{number} {pack}" for number, pack in enumerate(packs(280), start=1)]
ABSTRACT = "\n\n".join(PAYLOADS)
ONE_LINE = " ".join(ABSTRACT.split())


def preprints() -> list[Preprint]:
    """Return what arXiv's API has: payloads in titles, and all of them in summaries, comments and names."""
    when = datetime.datetime(2025, 9, 4, 9, tzinfo=datetime.UTC)
    # Without what XML cannot hold.
    clean = {number: None for number in range(32) if number not in (9, 10, 13)}
    return [
        Preprint(
            f"2509.4{number:04}",
            f"API {title}".translate(clean),
            summary=ABSTRACT.translate(clean),
            authors=tuple(payload.translate(clean) for payload in PAYLOADS),
            published=when,
            comment=ABSTRACT.translate(clean),
        )
        for number, title in enumerate(TITLES)
    ]


def sources(folder: Path, endpoint: str) -> dict[str, Source]:
    """Write the corpus in every format that is imported."""
    page = "\n\n".join(["Daily Papers", "Sep 1", *(line for title in TITLES for line in (f"Page {title}", ONE_LINE))])
    (folder / "page.txt").write_text(page, encoding="utf-8")
    hub = [
        {
            "paper": {
                "id": f"2509.2{number:04}",
                "title": f"Hub {title}",
                "summary": ABSTRACT,
                "authors": [{"name": payload} for payload in PAYLOADS],
                "publishedAt": "2025-09-02T00:00:00.000Z",
                "githubRepo": PAYLOADS[number * 4 % len(PAYLOADS)],
                "ai_summary": ABSTRACT,
                "submittedOnDailyBy": {"name": PAYLOADS[number], "user": PAYLOADS[number]},
            },
            "title": f"Hub {title}",
            "publishedAt": "2025-09-02T00:00:00.000Z",
        }
        for number, title in enumerate(TITLES)
    ]
    hub[0]["paper"] |= {"githubRepo": f"javascript:alert('{MARK}')"}  # type: ignore[operator]
    hub[1]["paper"] |= {"githubRepo": f"https://example.org/\"onmouseover=\"alert('{MARK}')"}  # type: ignore[operator]
    (folder / "hub.json").write_text(json.dumps(hub), encoding="utf-8")
    dump = [
        {
            "id": f"2509.3{number:04}",
            "title": f"Dump {title}",
            "abstract": ABSTRACT,
            "authors": ", ".join(PAYLOADS),
            "authors_parsed": [[payload, "A.", ""] for payload in PAYLOADS],
            "comments": ABSTRACT,
            "journal-ref": ABSTRACT,
            "doi": PAYLOADS[number],
            "license": PAYLOADS[number],
            "categories": f"cs.LG {PAYLOADS[number]}",
            "versions": [{"version": "v1", "created": "Wed, 3 Sep 2025 09:00:00 GMT"}],
            "update_date": "2025-09-03",
        }
        for number, title in enumerate(TITLES)
    ]
    (folder / "dump.jsonl").write_text("\n".join(map(json.dumps, dump)), encoding="utf-8")
    return {
        "page-text": PageText(folder / "page.txt", 2025),
        "hub-json": HubJson(folder / "hub.json"),
        "arxiv-dump": ArxivDump(folder / "dump.jsonl"),
        "arxiv": ArxivApi([paper.id for paper in preprints()], endpoint=endpoint, delay=0),
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    """A site whose papers, readers and mails are attacks: papers imported, the rest sent as forms are."""
    folder = tmp_path_factory.mktemp("site")
    with arxiv_server(preprints()) as arxiv:

        def prepare(database: Database) -> None:
            for kind, source in sources(folder, arxiv.url).items():
                report = perform(source, database)
                assert report.new >= len(TITLES) - 1, f"{kind}: {report}"
            with database.session() as session:
                moment = datetime.datetime(2025, 9, 5, 9, tzinfo=datetime.UTC)
                add_paper(session, f"All of {TITLES[0]}", moment, arxiv=TALKED_ABOUT, authors=list(PAYLOADS))

        with website(folder, prepare, OFFPRINT_ARXIV_URL=arxiv.url) as site:
            take_part(site)
            yield site


def take_part(site: Website) -> None:
    """Send every payload as name, comment and author by the forms, each as a reader of its own."""
    for number, payload in enumerate(PAYLOADS):
        with Client(base_url=site.address, cookies={SESSION_COOKIE: site.session(f"r{number}@example.org")}) as client:
            token = client.get("/account/delete").text.partition('name="token" value="')[2].partition('"')[0]

            def post(path: str, client: Client = client, token: str = token, **fields: str) -> int:
                return client.post(path, data={"token": token, **fields}).status_code

            named = post("/account", name=payload, handle=f"reader-{number}")
            assert named == 303 or len(payload) > 80 or not payload.isprintable(), payload
            assert post(f"/papers/{TALKED_ABOUT}/comments", body=payload) == 303
            assert post(f"/papers/{TALKED_ABOUT}/authorship", author=payload) in (303, 422)
    with site.database.session() as session:
        everyone = session.query(Account).filter(Account.email.like("r%@example.org")).all()
        for account, payload in zip(everyone, PAYLOADS, strict=True):
            account.name = payload[:80]  # also what the form refuses
        claims = session.query(Authorship).all()
        assert len(claims) > 60
        for claim in claims[::2]:
            claim.confirmed_at = datetime.datetime.now(datetime.UTC)
        for number, query in enumerate(packs(200)):
            moment = datetime.datetime(2025, 8, 1, tzinfo=datetime.UTC)
            session.add(
                Subscription(
                    email=f"s{number}@example.org", frequency="daily", query=query, asked_at=moment, confirmed_at=moment
                )
            )
        moment = datetime.datetime(2025, 8, 1, tzinfo=datetime.UTC)
        session.add(Subscription(email="all@example.org", frequency="daily", asked_at=moment, confirmed_at=moment))


@pytest.fixture(scope="module")
def watched(browser: Chrome) -> Chrome:
    at_start(browser, WATCH)
    return browser


def as_moderator(browser: Chrome, site: Website, policy: bool) -> Iterator[Chrome]:
    browser.get(site.address + "/sign-in")
    site.open_as(browser, "r0@example.org", moderator=True)
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": not policy})
    yield browser
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})


@pytest.fixture(params=["with the policy", "without the policy"])
def victim(request: pytest.FixtureRequest, site: Website, watched: Chrome) -> Iterator[Chrome]:
    """A moderator's browser, in which our Content-Security-Policy holds or does not."""
    yield from as_moderator(watched, site, request.param == "with the policy")


@pytest.fixture
def bare(site: Website, watched: Chrome) -> Iterator[Chrome]:
    """A moderator's browser, in which our Content-Security-Policy does not hold."""
    yield from as_moderator(watched, site, False)


def what_ran(browser: Chrome) -> list[str]:
    """Return what the page did, or holds, that none of ours does."""
    try:
        return list(browser.execute_async_script(LOOK))
    except UnexpectedAlertPresentException as alert:
        return [f"alert: {alert.alert_text}"]


def visit(browser: Chrome, site: Website, paths: Iterator[str] | list[str] | tuple[str, ...]) -> None:
    """Open pages, in which nothing may run and from which nothing may lead away by itself."""
    count = 0
    for path in paths:
        browser.get(site.address + path)
        assert what_ran(browser) == [], path
        assert browser.current_url.startswith(site.address), path
        count += 1
    assert count


def test_nothing_runs_on_pages_that_list_papers(site: Website, victim: Chrome) -> None:
    days = [f"/{day}" for day in DAYS.values()]
    for path in days:
        victim.get(site.address + path)
        assert len(victim.find_elements(By.CSS_SELECTOR, ".card")) >= len(TITLES) - 1
    wide = ["/", "/week/2025-W36", "/week/2025-W36?p=2", "/month/2025-09", "/trending", "/trending?p=2", "/calendar"]
    visit(victim, site, [*days, *wide, "/2025-09-05", "/moderation", "/account", "/account/delete", "/api"])


def test_nothing_runs_on_pages_of_papers(site: Website, bare: Chrome) -> None:
    with site.database.session() as session:
        imported = session.query(Paper).filter(Paper.slug.is_(None)).order_by(Paper.id)
        names = [paper.arxiv or paper.id for paper in imported]
    assert len(names) >= len(DAYS) * (len(TITLES) - 1)
    visit(bare, site, [f"/papers/{name}" for name in names])
    bare.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})
    visit(bare, site, [f"/papers/{name}" for name in names[::5]])


def test_nothing_runs_where_readers_speak(site: Website, victim: Chrome) -> None:
    victim.get(f"{site.address}/papers/{TALKED_ABOUT}")
    seen = 0
    while True:
        assert what_ran(victim) == []
        seen += len(victim.find_elements(By.CSS_SELECTOR, ".comment"))
        following = victim.find_elements(By.CSS_SELECTOR, ".community a[rel=next]")
        if not following:
            break
        following[0].click()
    assert seen == len(PAYLOADS)
    with site.database.session() as session:
        owned = session.query(Comment).join(Account).filter(Account.email == "r0@example.org").one()
        owned.body = ABSTRACT
    visit(victim, site, [f"/comments/{owned.id}/edit"])
    links = Links("only for tests")
    with site.database.session() as session:
        paths = [links.path(each) for each in session.query(Subscription).filter(Subscription.query != "")]
    visit(victim, site, [*paths, *(f"{path}/unsubscribe" for path in paths[:5])])


def test_nothing_runs_of_what_an_address_holds(site: Website, bare: Chrome) -> None:
    queries = itertools.cycle(packs(200))
    filters = [
        {"q": next(queries), "since": payload, "until": payload, "family": payload, "verdict": payload}
        for payload in PAYLOADS
    ]
    visit(bare, site, [f"/search?{urlencode(each)}" for each in filters[::6]])
    words = ("alert", "script", "img src", "javascript", f'"{MARK}"', "onerror -evil", "author:alert", "title:svg")
    for word in words:
        bare.get(f"{site.address}/search?{urlencode({'q': word})}")
        assert bare.find_elements(By.TAG_NAME, "mark") or word.startswith(("onerror", "author")), word
        assert what_ran(bare) == [], word
    packed = packs(400)
    visit(bare, site, [f"/subscribe?{urlencode({'query': pack, 'topic': pack})}" for pack in packed])
    visit(bare, site, [f"/{quote(pack, safe='')}" for pack in packed])
    visit(bare, site, [f"/papers/{quote(PAYLOADS[0])}", f"/topics/{quote(PAYLOADS[11])}", "/week/%3Cscript%3E"])
    bare.delete_all_cookies()
    visit(bare, site, [f"/sign-in?{urlencode({'next': payload})}" for payload in PAYLOADS if "cript:" in payload])
    visit(bare, site, [f"/sign-in/confirm?{urlencode({'token': pack})}" for pack in packed[:4]])


FORMS: dict[str, tuple[str, str, bool]] = {
    "/sign-in": ("main #email", "main form button", False),
    "/subscribe": ("main #email", ".subscription button", False),
    "/submit": ("#arxiv", "main form button", True),
    "/account": ("#name", "main form button", True),
}


@pytest.mark.parametrize("path", FORMS)
def test_nothing_runs_in_a_form_that_comes_back(path: str, site: Website, bare: Chrome) -> None:
    field, button, signed_in = FORMS[path]
    if not signed_in:
        bare.delete_all_cookies()
    returned = 0
    bare.get(site.address + path)
    for pack in packs(280):
        if not bare.find_elements(By.CSS_SELECTOR, field):
            bare.get(site.address + path)
        bare.execute_script(
            "const field = document.querySelector(arguments[0]); field.type = 'text';"
            "field.removeAttribute('maxlength'); field.value = arguments[1];"
            "field.form.noValidate = true; window.leaving = true;",
            field,
            pack,
        )
        click(bare, button)
        wait(
            bare,
            lambda b: b.execute_script("return window.leaving === undefined && document.readyState != 'loading'"),
        )
        assert what_ran(bare) == [], pack
        value = bare.execute_script("return document.querySelector(arguments[0])?.value", field)
        returned += value is not None and MARK in value
    assert returned, "no form came back with what was typed"


def test_nothing_runs_of_feeds_and_of_what_programs_read(site: Website, bare: Chrome) -> None:
    feeds = [f"/feeds/day/{day}.atom" for day in DAYS.values()]
    for path in (*feeds, "/feeds/newest.atom", "/feeds/trending.atom", "/feeds/search.atom?q=alert"):
        bare.get(site.address + path)
        assert bare.execute_script("return window.ran ?? []") == []
        scripts = "return document.getElementsByTagNameNS('http://www.w3.org/1999/xhtml', 'script').length"
        assert bare.execute_script(scripts) == 0
    paper = f"/api/papers/2509.2{0:04}"
    for path in (
        "/api/daily_papers?date=2025-09-02",
        "/api/papers/search?q=alert",
        paper,
        f"/api/papers/{TALKED_ABOUT}",
        f"/papers/2509.2{0:04}/bibtex",
        "/api/daily_papers?date=%3Cscript%3Ealert(1)%3C/script%3E",
        "/api/papers/%3Cimg%20src=x%20onerror=alert(1)%3E",
    ):
        bare.get(site.address + path)
        assert bare.execute_script("return document.contentType") != "text/html", path
        assert bare.execute_script("return window.ran ?? []") == [], path


def test_nothing_runs_in_a_digest(site: Website, watched: Chrome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFPRINT_MAILDIR", str(site.maildir))
    with site.database.session() as session:
        today = datetime.datetime.now(datetime.UTC).date()
        for paper in session.query(Paper):
            paper.listings.append(Listing(day=today))
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)
        session.query(Subscription).update({"confirmed_at": since, "last_digest_at": since})
    send(site.database, Settings(secret="only for tests"), None, dry_run=False, console=Console(quiet=True))
    digests = [mail for mail in site.mails() if mail["To"] == "all@example.org"]
    assert digests
    for digest in digests:
        body = digest.get_body(("html",))
        assert body is not None
        with raw_page(body.get_content()) as address:
            watched.get(address)
            found = [each for each in what_ran(watched) if not each.startswith(("style", "element: <style"))]
            assert found == []
            assert MARK in watched.find_element(By.TAG_NAME, "body").text


MATHS = (
    r"\href{javascript:alert(1)}{x}",
    r"\url{javascript:alert(1)}",
    r"\includegraphics[width=1em]{https://evil.example/x.png}",
    r"\htmlData{x=y, onclick=alert(1)}{x}",
    r"\htmlId{content}{x} \htmlClass{skip}{x} \htmlStyle{position: fixed}{x}",
    r"\def\a{\a\a}\a",
    r"\def\a#1{#1#1#1#1}\a{\a{\a{\a{\a{\a{\a{\a{x}}}}}}}}",
    r"\edef\a{xx}\edef\b{\a\a\a\a\a\a\a\a}\edef\c{\b\b\b\b\b\b\b\b}\c\c\c\c\c\c\c\c",
    r"\gdef\text#1{\href{javascript:alert(1)}{#1}} \text{x}",
    r"\text{<img src=x onerror=alert(1)>}",
    r"\unicode{<script>alert(1)</script>}",
    r"\rule{999999em}{999999em}",
    r"\kern999999em x \hspace{-999999em} \raisebox{99999em}{x}",
    r"\color{red;background:url(javascript:alert(1))}{x}",
    r"\textcolor{#fff\"onmouseover=alert(1)}{x}",
    r"\fcolorbox{red}{url(javascript:alert(1))}{x}",
    "{" * 900 + "x" + "}" * 900,
    r"\sqrt{" * 300 + "x" + "}" * 300,
    r"\frac{1}{" * 200 + "x" + "}" * 200,
    r"\left(" * 400 + "x" + r"\right)" * 400,
    r"\begin{matrix}" * 60 + "x" + r"\end{matrix}" * 60,
    "x^{" * 250 + "y" + "}" * 250,
    "x + " * 490 + "y",
    "\\\\" * 400,
)


def test_formulas_neither_run_nor_hang_the_page(site: Website, victim: Chrome) -> None:
    huge = " ".join(f"$x_{{{number}}}$" for number in range(2200)) + " $" + "x" * 5000 + "$" + " $" * 2000
    texts = [
        "\n\n".join(f"An ${each}$ and {each[:300]}" for each in MATHS[at : at + 5]) for at in range(0, len(MATHS), 5)
    ]
    names = [f"2510.{number}" for number in range(70_000, 70_000 + len(texts) + 1)]
    with site.database.session() as session:
        if session.query(Paper).filter_by(arxiv=names[0]).count() == 0:
            for name, formulas in zip(names, [*texts, huge], strict=True):
                moment = datetime.datetime(2025, 10, 1, tzinfo=datetime.UTC)
                add_paper(session, f"{name} {formulas}"[:280], moment, arxiv=name, abstract=formulas)
    for name in names:
        visit(victim, site, [f"/papers/{name}"])
        assert victim.find_elements(By.CSS_SELECTOR, ".tex"), name
        assert victim.execute_script("return document.scrollingElement.scrollWidth - innerWidth") <= 0, name
    assert victim.find_elements(By.CSS_SELECTOR, ".katex"), "the last page sets some of its formulas"
    visit(victim, site, ["/2025-10-01"])


@contextmanager
def raw_page(content: str) -> Iterator[str]:
    """Serve a page as it is, without any protection."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *about: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "page",
    [
        "<p>{}</p>",
        '<input value="{}">',
        '<a href="{}">x</a>',
        "<title>{}</title>",
        "<textarea>{}</textarea>",
    ],
)
def test_an_attack_on_a_page_without_protection_is_seen(page: str, watched: Chrome) -> None:
    """The corpus and the watching are worth something: unescaped, payloads are found out."""
    seen = 0
    for payload in (*PAYLOADS[:60:6], *PAYLOADS[4:8]):
        with raw_page("<!doctype html><body>" + page.replace("{}", payload)) as address:
            watched.get(address)
            seen += bool(what_ran(watched))
    assert seen >= 1
    if page == "<p>{}</p>":
        assert seen >= 10
