"""What readers do, in a browser that runs no scripts, and what is nicer in one that does."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

pytest.importorskip("selenium", reason="pip install 'offprint[e2e]'")

from browsing import browsing, click, fill, text, wait
from furnished import IMPORTED, SLUG, furnish
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from websites import Website, website

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

READER = "reader@example.org"
SIGN_IN = r"http://\S+/sign-in/confirm\S+"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    with website(tmp_path_factory.mktemp("site"), furnish) as site:
        yield site


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser that runs no scripts, shared by the tests of this module."""
    with browsing(tmp_path_factory.mktemp("plain") / "profile", javascript=False) as browser:
        yield browser


def sign_in(browser: Chrome, site: Website, start: str) -> None:
    """Sign in by the mailed link, from a page that asks for it."""
    browser.get(site.address + start)
    browser.find_element(By.LINK_TEXT, "Sign in").click()
    fill(browser, "main #email", READER)
    click(browser, "main form button")
    wait(browser, lambda b: READER in text(b))
    link = site.mailed(READER, SIGN_IN)
    assert urlsplit(link).netloc == urlsplit(site.address).netloc
    browser.get(link)
    click(browser, "main form button")
    wait(browser, lambda b: b.find_elements(By.CSS_SELECTOR, "a.who[href='/account']"))


def test_without_scripts_a_reader_signs_in_votes_comments_edits_and_deletes(site: Website, plain: Chrome) -> None:
    sign_in(plain, site, "/")
    plain.get(site.address + "/trending")
    vote = f"form.vote[action='/papers/{IMPORTED}/vote'] button"
    assert text(plain, vote).endswith("4")
    click(plain, vote)
    wait(plain, lambda b: text(b, vote).endswith("5"))
    assert urlsplit(plain.current_url).path == "/trending"
    assert plain.find_element(By.CSS_SELECTOR, vote).get_attribute("aria-pressed") == "true"
    click(plain, vote)
    wait(plain, lambda b: text(b, vote).endswith("4"))

    plain.get(f"{site.address}/papers/{IMPORTED}")
    fill(plain, "#body", "It is *new* and `fast`.")
    click(plain, ".say button")
    wait(plain, lambda b: "It is new and fast." in text(b, ".comment"))
    assert text(plain, ".comment:target em") == "new"
    plain.find_element(By.LINK_TEXT, "Edit").click()
    fill(plain, "#body", "It is not so new.")
    click(plain, ".say button")
    wait(plain, lambda b: "It is not so new." in text(b, ".comment"))
    assert "edited" in text(plain, ".comment:target .by")
    assert "It is new and fast." not in text(plain)
    click(plain, ".comment details summary")
    click(plain, ".comment details button")
    wait(plain, lambda b: "It is not so new." not in text(b))

    plain.get(site.address + "/account")
    fill(plain, "#name", "Rita Reader")
    click(plain, "form.plain button")
    wait(plain, lambda b: text(b, ".who") == "Rita Reader")
    plain.find_element(By.XPATH, "//button[text()='Sign out']").click()
    wait(plain, lambda b: text(b, ".who") == "Sign in")
    plain.get(site.mailed(READER, SIGN_IN))
    assert "This link no longer works" in text(plain)


def test_without_scripts_a_reader_subscribes_confirms_changes_and_ends(site: Website, plain: Chrome) -> None:
    address = "mail@example.org"
    plain.get(site.address + "/subscribe")
    fill(plain, "main #email", address)
    click(plain, "input[value=query]")
    fill(plain, "main input[name=query]", '"domain generalization"')
    click(plain, ".subscription button")
    wait(plain, lambda b: address in text(b))
    plain.get(site.mailed(address, r"http://\S+/subscribe/confirm/\S+"))
    click(plain, ".subscription button")
    wait(plain, lambda b: "Confirmed" in text(b))
    click(plain, "input[value=weekly]")
    click(plain, "input[value=topics]")
    click(plain, "input[name=topic-stream]")
    click(plain, ".subscription button")
    wait(plain, lambda b: "Saved" in text(b))
    assert "A weekly mail of papers on stream" in text(plain)
    manage = plain.current_url
    plain.find_element(By.XPATH, "//button[text()='Unsubscribe']").click()
    wait(plain, lambda b: "You are unsubscribed" in text(b))
    plain.get(manage)
    assert "has ended" in text(plain)


def test_without_scripts_a_reader_searches_and_runs(site: Website, plain: Chrome) -> None:
    plain.get(site.address + "/")
    fill(plain, ".search input", "title:halpern")
    click(plain, ".search button")
    wait(plain, lambda b: "/search" in b.current_url)
    assert text(plain, "mark") == "Halpern"
    click(plain, ".card .title a")
    wait(plain, lambda b: b.current_url.endswith(SLUG))
    click(plain, ".run button")
    wait(plain, lambda b: b.find_elements(By.CSS_SELECTOR, ".run progress"))
    # That the verdict then appears, by the page loading itself anew, is in test_site.py.
    assert plain.find_elements(By.CSS_SELECTOR, "noscript meta[http-equiv=refresh], meta[http-equiv=refresh]")


def test_with_scripts_a_vote_counts_without_a_reload(site: Website, browser: Chrome) -> None:
    browser.get(site.address + "/sign-in")
    site.open_as(browser, "quick@example.org")
    browser.get(f"{site.address}/papers/{SLUG}")
    browser.execute_script("window.stillTheSamePage = true")
    vote = ".standing .vote button"
    for votes, pressed in (("5", "true"), ("4", "false"), ("5", "true")):
        click(browser, vote)
        wait(browser, lambda b, votes=votes: text(b, vote).endswith(votes))
        assert browser.find_element(By.CSS_SELECTOR, vote).get_attribute("aria-pressed") == pressed
    assert browser.execute_script("return window.stillTheSamePage") is True
    browser.refresh()
    assert text(browser, vote).endswith("5")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_with_scripts_a_vote_on_a_list_counts_without_a_reload(site: Website, browser: Chrome) -> None:
    browser.get(site.address + "/sign-in")
    site.open_as(browser, "glancing@example.org")
    browser.get(site.address + "/trending")
    browser.execute_script("window.stillTheSamePage = true")
    vote = f"form.vote[action='/papers/{IMPORTED}/vote'] button"
    before = int(text(browser, vote).split()[-1])
    for votes, pressed in ((before + 1, "true"), (before, "false")):
        click(browser, vote)
        wait(browser, lambda b, votes=votes: text(b, vote).split()[-1] == str(votes))
        assert browser.find_element(By.CSS_SELECTOR, vote).get_attribute("aria-pressed") == pressed
        assert browser.execute_script("return document.activeElement.id").startswith("vote-")
    assert browser.execute_script("return window.stillTheSamePage") is True
    browser.delete_cookie("offprint_session")
    click(browser, vote)
    wait(browser, lambda b: text(b, "#notice"))
    top = browser.execute_script("return document.querySelector('#notice').getBoundingClientRect().top")
    assert 0 <= top < browser.execute_script("return innerHeight")
    assert browser.execute_script("return window.stillTheSamePage") is True


def test_with_scripts_a_vote_that_is_refused_says_so_in_sight(site: Website, browser: Chrome) -> None:
    browser.get(site.address + "/sign-in")
    site.open_as(browser, "gone@example.org")
    browser.get(f"{site.address}/papers/{IMPORTED}")
    browser.delete_cookie("offprint_session")
    click(browser, ".standing .vote button")
    wait(browser, lambda b: text(b, "#notice"))
    top = browser.execute_script("return document.querySelector('#notice').getBoundingClientRect().top")
    assert 0 <= top < browser.execute_script("return innerHeight")
