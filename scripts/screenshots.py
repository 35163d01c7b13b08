"""Take the screenshots of docs/images from the real site, with what the database holds. Needs the extra ``e2e``.

Usage: python scripts/screenshots.py http://127.0.0.1:8000 [slug of the paper to show] [folder to write to]

The digest is composed from the database that OFFPRINT_DATABASE_URL names, which should be the site's; none is sent.
"""

from __future__ import annotations

import datetime
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from offprint.daily import library
from offprint.daily.mail.digest import Site, digest
from offprint.daily.mail.selection import select_papers
from offprint.daily.measured import Measured
from offprint.daily.settings import Settings
from offprint.store import Database, Subscription

IMAGES = Path(__file__).parents[1] / "docs" / "images"
DESK, PHONE = 1200, 360
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")


class Shot(NamedTuple):
    """A picture: its name, the page, and the window that shows it."""

    name: str
    path: str
    height: int = 1000
    width: int = DESK
    scheme: str = "light"


def shots(slug: str) -> list[Shot]:
    """Return the pictures to take."""
    return [
        Shot("list", "/"),
        Shot("list-dark", "/", scheme="dark"),
        Shot("list-phone", "/", 800, PHONE),
        Shot("paper", f"/papers/{slug}", 1800),
        Shot("paper-dark", f"/papers/{slug}", 1800, scheme="dark"),
        Shot("paper-phone", f"/papers/{slug}", 800, PHONE),
        Shot("search", "/search?q=perturbation"),
        Shot("search-filters", "/search"),
        Shot("trending", "/trending"),
        Shot("calendar", "/calendar", 700),
        Shot("subscribe", "/subscribe"),
    ]


def main(address: str, slug: str = "vr-halpern", folder: str = "") -> None:
    """Write one PNG a picture, and digest.png."""
    images = Path(folder) if folder else IMAGES
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        options = ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={scratch}/profile"):
            options.add_argument(flag)
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        browser = Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            for shot in shots(slug):
                take(browser, address + shot.path, shot, images)
            mail = Path(scratch) / "digest.html"
            mail.write_text(newest_digest(address), encoding="utf-8")
            take(browser, mail.as_uri(), Shot("digest", "", 1000, 700), images)
        finally:
            browser.quit()


def take(browser: Chrome, url: str, shot: Shot, images: Path) -> None:
    """Show a page in its window and save what is seen."""
    size = {"width": shot.width, "height": shot.height, "deviceScaleFactor": 1 if shot.width == DESK else 2}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**size, "mobile": shot.width == PHONE})
    features = {"features": [{"name": "prefers-color-scheme", "value": shot.scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    browser.get(url)
    browser.set_script_timeout(30)
    browser.execute_async_script(
        "const done = arguments[0]; const images = [...document.images];"
        "images.forEach((each) => { each.loading = 'eager'; });"
        "Promise.all([document.fonts.ready, ...images.map((each) => each.decode())]).then(() => done(), () => done());"
    )
    browser.save_screenshot(str(images / f"{shot.name}.png"))


def newest_digest(address: str) -> str:
    """Return the HTML of the daily digest that goes out the morning after the newest day."""
    database = Database()
    with database.session() as session:
        newest = library.newest_day(session) or datetime.date(2025, 8, 20)
        now = datetime.datetime.combine(newest + datetime.timedelta(days=1), datetime.time(6), datetime.UTC)
        before = now - datetime.timedelta(days=2)
        reader = Subscription(id=1, email="you@example.org", frequency="daily", topics=[], query="")
        reader.asked_at = reader.confirmed_at = before
        selected = select_papers(session, reader, now)
        site = Site.of(Settings(secret="for a picture"), address)
        message = digest(site, reader, selected, now, Measured(database))
    database.close()
    body = message.get_body(("html",))
    assert body is not None
    return str(body.get_content())


if __name__ == "__main__":
    main(*sys.argv[1:])
