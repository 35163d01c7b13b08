"""The site in a real browser: a reader opens the list and a paper, presses Run, and sees the verdict."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("selenium", reason="pip install 'offprint[e2e]'")

from browsing import PHONE, text, wait
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from offprint.store import Database, Paper

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

GATED = """
    @measures("opens")
    def opens(run):
        gate = Path(os.environ["GATE"])
        while not gate.exists():
            run.progress(3, 10, "waiting at the gate")
            time.sleep(0.05)
        run.figure(Panel("step", "number", [Series("ours", [1, 2], [1, 2])]))
        return Measurement(2.0)
"""


@pytest.fixture
def gate(tmp_path: Path, make_paper: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that lets the claim of ``own-paper`` go on."""
    gate = tmp_path / "gate"
    monkeypatch.setenv("GATE", str(gate))
    make_paper({"opens": "{ at_least = 1.0 }"}, GATED)
    return gate


def press_run(browser: Chrome) -> None:
    browser.find_element(By.CSS_SELECTOR, ".run button").click()


def test_a_reader_opens_the_list_and_a_paper_and_measures_its_claims(
    server: tuple[str, psutil.Process], browse: Callable[..., Chrome]
) -> None:
    browser = browse()
    browser.get(server[0])
    assert "20 August 2025" in text(browser, "h1")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".card")) == 56
    browser.find_element(By.LINK_TEXT, "Variance Reduced Halpern Iteration for Finite-Sum Monotone Inclusions").click()
    assert "vr_halpern" in text(browser, "pre.code")
    browser.execute_script("window.stillTheSamePage = true")
    press_run(browser)
    wait(browser, lambda b: b.find_elements(By.CSS_SELECTOR, ".run progress"))
    wait(browser, lambda b: "measured here" in text(b, ".where"), 400)  # the first claim, while the others go on
    wait(browser, lambda b: "Run again" in text(b, ".run"), 800)
    verdicts = [element.text for element in browser.find_elements(By.CSS_SELECTOR, ".verdict")]
    assert len(verdicts) == 4
    assert set(verdicts) <= {"reproduced", "weaker", "not reproduced"}
    assert f"{verdicts.count('reproduced')} of 4 claims reproduced" in text(browser, ".badge")
    assert "--scale quick" in browser.find_element(By.CSS_SELECTOR, ".provenance code").get_attribute("textContent")
    assert browser.execute_script("return window.stillTheSamePage") is True


def test_progress_and_verdict_appear_without_reload_for_every_viewer(
    gate: Path, server: tuple[str, psutil.Process], browse: Callable[..., Chrome]
) -> None:
    browser = browse()
    browser.get(f"{server[0]}/papers/own-paper")
    other = browse()
    browser.execute_script("window.stillTheSamePage = true")
    press_run(browser)
    wait(browser, lambda b: "now at step 3 of 10 (waiting at the gate)" in text(b, ".run"))
    other.get(f"{server[0]}/papers/own-paper")
    assert "waiting at the gate" in text(other, ".run")
    assert text(browser, ".verdict") == "not yet measured"
    gate.touch()
    for viewer in (browser, other):
        wait(viewer, lambda b: text(b, ".verdict") == "reproduced")
        wait(viewer, lambda b: "Run again" in text(b, ".run"))
        assert "1 of 1 claims reproduced" in text(viewer, ".badge")
        wait(viewer, lambda b: b.execute_script("return document.querySelector('.figure img').naturalWidth") > 0)
    assert browser.execute_script("return window.stillTheSamePage") is True
    press_run(browser)  # the form that came with the events works as the first one did
    wait(browser, lambda b: "/runs/2/events" in b.page_source)


def test_it_works_without_javascript(
    gate: Path, server: tuple[str, psutil.Process], browse: Callable[..., Chrome]
) -> None:
    browser = browse(javascript=False)
    browser.get(f"{server[0]}/search?q=called+own-paper")
    browser.find_element(By.LINK_TEXT, "A paper called own-paper").click()
    press_run(browser)
    wait(browser, lambda b: "waiting at the gate" in b.find_element(By.TAG_NAME, "main").text)
    gate.touch()
    wait(browser, lambda b: "Run again" in b.find_element(By.TAG_NAME, "main").text)
    assert text(browser, ".verdict") == "reproduced"


def test_nothing_sticks_out_on_a_phone(
    gate: Path, server: tuple[str, psutil.Process], browse: Callable[..., Chrome]
) -> None:
    gate.touch()
    browser = browse()
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    browser.get(f"{server[0]}/papers/own-paper")
    press_run(browser)
    wait(browser, lambda b: "Run again" in text(b, ".run"))
    for path in ("/", "/papers/own-paper", "/papers/vr-halpern", "/search?q=perturbation", "/search"):
        browser.get(server[0] + path)
        browser.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE["width"], path


def test_the_server_ends_while_it_is_followed(
    gate: Path, server: tuple[str, psutil.Process], browse: Callable[..., Chrome]
) -> None:
    address, process = server
    browser = browse()
    browser.get(f"{address}/papers/own-paper")
    press_run(browser)
    wait(browser, lambda b: "waiting at the gate" in text(b, ".run"))
    children = process.children(recursive=True)
    assert children
    browser.get("about:blank")
    browser.get(f"{address}/papers/own-paper")
    wait(browser, lambda b: b.execute_script("return document.querySelector('[sse-connect]') !== null"))
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert time.monotonic() - begun < 15
    assert psutil.wait_procs(children, timeout=5)[1] == []
    browser.get("about:blank")
    browser.get_log("browser")  # the stream broke off, which the page may say


def test_formulas_are_set_and_those_that_cannot_be_stay_as_they_are(
    server: tuple[str, psutil.Process], browse: Callable[..., Chrome], tmp_path: Path
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'site.db'}")
    with database.session() as session:
        abstract = (
            r"For $p &lt; q$ it costs from $5 to $6, \(a \unknown b\), $$\pmb{x} = \fcolorbox{red}{white}{y}$$ "
            r"and $\href{javascript:alert(1)}{x}$ or $\rule{9999em}{9999em}$."
        )
        paper = Paper(title=r"An $O(\sqrt{n})$ Bound", title_key="bound", arxiv="2508.00001", abstract=abstract)
        session.add(paper)
    database.close()
    browser = browse()
    browser.get(f"{server[0]}/papers/2508.00001")
    wait(browser, lambda b: b.find_elements(By.CSS_SELECTOR, "h1 .katex"))
    assert browser.find_elements(By.CSS_SELECTOR, "h1 math msqrt")
    shown = text(browser, "main")
    assert "it costs from $5 to $6" in shown
    assert r"\(a \unknown b\)" in shown
    assert not browser.find_elements(By.CSS_SELECTOR, "a[href^='javascript']")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1200
    fonts = browser.execute_script("return [...document.fonts].filter(f => f.status == 'loaded').map(f => f.family)")
    assert "KaTeX_Main" in fonts
