"""Every page in a real browser: checked by axe-core in light and dark, on a phone, by keyboard alone, and weighed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="pip install 'offprint[e2e]'")

from browsing import DESK, PHONE, at_start, show_as, text, wait
from furnished import IMPORTED, SLUG, furnish, subscription_path
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from websites import Website, website

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

AXE = Path(__file__).parents[1] / "support" / "axe" / "axe.min.js"
OPEN = (
    "/",
    "/2025-08-19",
    "/week/2025-W34",
    "/month/2025-08",
    "/month/2025-08?sort=trending&p=2",
    "/month/2025-01",
    "/calendar",
    "/trending",
    "/topics/optimize",
    "/search",
    "/search?q=perturbation",
    "/search?q=perturbation+-nothing&since=never&runs=1",
    "/search?q=xyzzy",
    f"/papers/{SLUG}",
    f"/papers/{IMPORTED}",
    "/sign-in",
    "/subscribe",
    "/api",
    "/nothing/here",
)
SIGNED_IN = ("/", f"/papers/{SLUG}", f"/papers/{IMPORTED}", "/comments/1/edit", "/submit", "/account")
SIGNED_IN += ("/account/delete", "/moderation")
LARGEST_PAGE = 100_000
SERIOUS = """
    const done = arguments[0];
    document.querySelectorAll('details').forEach((each) => { each.open = true; });
    axe.run(document, {resultTypes: ['violations']}).then(
        (found) => done(found.violations.filter((each) => ['serious', 'critical'].includes(each.impact)).map(
            (each) => [each.id, each.nodes.map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`)]
        )),
        (error) => done([['axe', String(error), []]]),
    );
"""
WIDTH = """
    document.querySelectorAll('details').forEach((each) => { each.open = true; });
    return document.scrollingElement.scrollWidth;
"""
FOCUSED = """
    const element = document.activeElement;
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    return [element.outerHTML.slice(0, 160), style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
            box.right > 0 && box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.left < innerWidth];
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    with website(tmp_path_factory.mktemp("site"), furnish) as site:
        yield site


@pytest.fixture(scope="module")
def watched(browser: Chrome) -> Chrome:
    at_start(browser, AXE.read_text(encoding="utf-8"))
    return browser


def pages(browser: Chrome, site: Website) -> Iterator[str]:
    """Open each page, first as a visitor, then as a moderator."""
    browser.get(site.address + "/sign-in")
    browser.delete_all_cookies()
    for path in (*OPEN, subscription_path(site), subscription_path(site) + "/unsubscribe"):
        browser.get(site.address + path)
        yield path
    site.open_as(browser, "reader0@example.org", moderator=True)
    for path in SIGNED_IN:
        browser.get(site.address + path)
        yield f"{path}, signed in"


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)], ids=["light desk", "dark phone"])
def test_axe_finds_nothing_serious(scheme: str, size: dict[str, Any], site: Website, watched: Chrome) -> None:
    show_as(watched, size, scheme)
    found = {path: watched.execute_async_script(SERIOUS) for path in pages(watched, site)}
    assert len(found) == len(OPEN) + 2 + len(SIGNED_IN)
    wrong = {path: violations for path, violations in found.items() if violations}
    assert not wrong, json.dumps(wrong, indent=1)


def test_axe_would_find_something(site: Website, watched: Chrome) -> None:
    watched.get(site.address + "/subscribe")
    watched.execute_script(
        "document.querySelector('label[for=email]').remove();document.querySelector('h1').style.color = 'var(--line)';"
    )
    assert {"label", "color-contrast"} <= {violation[0] for violation in watched.execute_async_script(SERIOUS)}


def test_no_page_is_wider_than_a_phone_or_heavier_than_it_may_be(site: Website, watched: Chrome) -> None:
    show_as(watched, PHONE)
    wide, heavy = {}, {}
    for path in pages(watched, site):
        if (width := watched.execute_script(WIDTH)) > PHONE["width"]:
            wide[path] = width
        [load] = watched.execute_script(
            "return performance.getEntriesByType('navigation').map((each) => each.toJSON())"
        )
        if not 0 < load["decodedBodySize"] < LARGEST_PAGE:
            heavy[path] = load["decodedBodySize"]
    assert not wide
    assert not heavy
    show_as(watched, DESK)


def tab_to(browser: Chrome, selector: str) -> list[str]:
    """Press Tab until the element has the focus, which must be seen on every stop; return the stops."""
    stops: list[str] = []
    for _ in range(150):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        what, outlined, visible = browser.execute_script(FOCUSED)
        assert outlined, f"no outline: {what}"
        assert visible, f"out of sight: {what}"
        stops.append(what)
        if browser.execute_script("return document.activeElement.matches(arguments[0])", selector):
            return stops
    raise AssertionError(f"no way by Tab to {selector}; stops: {stops}")


def press(browser: Chrome, *keys: Any) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def test_a_visitor_needs_no_mouse(site: Website, watched: Chrome) -> None:
    show_as(watched, DESK)
    watched.delete_all_cookies()
    watched.get(site.address + "/")
    [first] = tab_to(watched, ".skip")
    assert "Skip to the content" in first
    press(watched, Keys.ENTER)
    assert watched.current_url.endswith("#content")
    tab_to(watched, "main a")
    watched.get(site.address + "/")
    tab_to(watched, ".search input")
    press(watched, "halpern", Keys.ENTER)
    wait(watched, lambda b: "/search?q=halpern" in b.current_url)
    tab_to(watched, ".filters summary")
    press(watched, Keys.ENTER)
    assert watched.execute_script("return document.querySelector('.filters').open")
    tab_to(watched, "#filter-family")
    tab_to(watched, ".filters input[name=runs]")
    press(watched, Keys.SPACE)
    tab_to(watched, ".filters button")
    press(watched, Keys.ENTER)
    wait(watched, lambda b: "runs=1" in b.current_url)
    tab_to(watched, f".title a[href='/papers/{SLUG}']")
    press(watched, Keys.ENTER)
    wait(watched, lambda b: b.current_url.endswith(SLUG))
    tab_to(watched, ".abstract summary, .provenance summary")
    press(watched, Keys.ENTER)
    assert watched.execute_script("return document.activeElement.parentElement.open")
    watched.get(site.address + "/subscribe")
    tab_to(watched, "main #email")
    press(watched, "keys@example.org")
    tab_to(watched, "input[name=frequency]")
    press(watched, Keys.ARROW_DOWN)
    tab_to(watched, "input[name=scope]")
    press(watched, Keys.ARROW_DOWN)
    tab_to(watched, "input[name=topic-shift]")
    press(watched, Keys.SPACE)
    tab_to(watched, ".subscription button")
    press(watched, Keys.ENTER)
    wait(watched, lambda b: "keys@example.org" in text(b))
    assert "weekly" in site.mailed("keys@example.org", r"(?s).*")


def test_a_reader_needs_no_mouse(site: Website, watched: Chrome) -> None:
    show_as(watched, DESK)
    watched.get(site.address + "/sign-in")
    site.open_as(watched, "keyboard@example.org")
    watched.get(f"{site.address}/papers/{SLUG}")
    tab_to(watched, ".run button")
    tab_to(watched, ".provenance summary")
    press(watched, Keys.SPACE)
    tab_to(watched, ".standing .vote button")
    press(watched, Keys.SPACE)
    wait(watched, lambda b: b.find_elements(By.CSS_SELECTOR, ".standing button[aria-pressed=true]"))
    assert watched.execute_script("return document.activeElement.matches('.standing .vote button')")
    tab_to(watched, ".say textarea")
    press(watched, "Typed by *keys*")
    tab_to(watched, ".say button")
    press(watched, Keys.ENTER)
    wait(watched, lambda b: "Typed by keys" in text(b, ".comment"))
    tab_to(watched, ".comment details summary")
    press(watched, Keys.ENTER)
    tab_to(watched, ".comment details button")
    press(watched, Keys.ENTER)
    wait(watched, lambda b: "Typed by keys" not in text(b))


def test_run_is_pressed_by_key(site: Website, watched: Chrome) -> None:
    show_as(watched, DESK)
    watched.delete_all_cookies()
    watched.get(f"{site.address}/papers/{SLUG}")
    tab_to(watched, ".run button")
    press(watched, Keys.ENTER)
    wait(watched, lambda b: b.find_elements(By.CSS_SELECTOR, ".run progress"))
