"""A real browser: started, waited for, and made to tell what a page did."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1000",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PHONE = {"width": 360, "height": 800, "deviceScaleFactor": 2, "mobile": True}
DESK = {"width": 1200, "height": 1000, "deviceScaleFactor": 1, "mobile": False}


@contextmanager
def browsing(profile: Path, *, javascript: bool = True) -> Iterator[Chrome]:
    """Open a browser with a profile of its own while the block lasts."""
    if not BROWSER or not DRIVER:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    if not javascript:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options=options, service=Service(DRIVER))
    browser.set_page_load_timeout(60)
    browser.set_script_timeout(60)
    try:
        yield browser
    finally:
        browser.quit()


def wait(browser: Chrome, condition: Callable[[Chrome], Any], seconds: float = 60) -> Any:
    """Wait until a condition holds, and return what it gave."""
    replaced = [StaleElementReferenceException]  # events may put in a new part between finding and reading it
    return WebDriverWait(browser, seconds, poll_frequency=0.1, ignored_exceptions=replaced).until(condition)


def text(browser: Chrome, selector: str = "main") -> str:
    """Return what the elements show."""
    return " ".join(element.text for element in browser.find_elements(By.CSS_SELECTOR, selector))


def click(browser: Chrome, selector: str) -> None:
    """Click on the first element."""
    browser.find_element(By.CSS_SELECTOR, selector).click()


def fill(browser: Chrome, selector: str, typed: str) -> None:
    """Type into a field in place of what it holds."""
    field = browser.find_element(By.CSS_SELECTOR, selector)
    field.clear()
    field.send_keys(typed)


def show_as(browser: Chrome, size: dict[str, Any], scheme: str = "light") -> None:
    """Make the window as wide as a device, with its light or dark appearance."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def at_start(browser: Chrome, script: str) -> None:
    """Let a script run in every page before its own; the page's Content-Security-Policy does not hold it back."""
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
