"""Take the screenshots of docs/images from the real site, with what the database holds. Needs the extra ``e2e``.

Usage: python scripts/screenshots.py http://127.0.0.1:8000 [slug of the paper to show]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH = 1200
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")


def main(address: str, slug: str = "vr-halpern") -> None:
    """Write list.png, list-dark.png and paper.png."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        options = ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        browser = Chrome(options=options, service=Service(shutil.which("chromedriver")))
        for name, path, height, scheme in (
            ("list", "/", 1000, "light"),
            ("list-dark", "/", 1000, "dark"),
            ("paper", f"/papers/{slug}", 1800, "light"),
        ):
            size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
            browser.get(address + path)
            browser.set_script_timeout(30)
            browser.execute_async_script(
                "const done = arguments[0]; const images = [...document.images];"
                "images.forEach((each) => { each.loading = 'eager'; });"
                "Promise.all(images.map((each) => each.decode())).then(() => done(), () => done());"
            )
            browser.save_screenshot(str(IMAGES / f"{name}.png"))
        browser.quit()


if __name__ == "__main__":
    main(*sys.argv[1:])
