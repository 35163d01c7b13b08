"""The documentation builds without a warning, has a page for every paper, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from offprint.papers import records

ROOT = Path(__file__).parents[1]
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)[^>]*\bsrc=["']?(?:https?:)?//[^"'\s>]*"""
    r"""|<link[^>]*\brel=["']?(?:stylesheet|preconnect|icon)[^>]*\bhref=["']?(?:https?:)?//[^"'\s>]*"""
    r"""|<link[^>]*\bhref=["']?(?:https?:)?//[^>]*\brel=["']?(?:stylesheet|preconnect|icon)[^>]*"""
)


@pytest.mark.slow
def test_the_site_builds_and_stands_alone(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs_gen_files")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    for slug in records():
        assert (tmp_path / "papers" / slug / "index.html").exists(), f"{slug} has no page"
    for page in tmp_path.rglob("*.html"):
        found = LOADED.findall(page.read_text(encoding="utf-8"))
        assert not found, f"{page.relative_to(tmp_path)} loads {found[0]}"


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://elsewhere.org/a.js">',
        "<img alt=x src=//elsewhere.org/a.png>",
        '<link rel="stylesheet" href="https://fonts.elsewhere.org/css">',
        '<link href="https://fonts.elsewhere.org" rel="preconnect" crossorigin>',
    ],
)
def test_what_is_loaded_from_elsewhere_is_noticed(tag: str) -> None:
    assert LOADED.search(tag)
    assert not LOADED.search('<a href="https://arxiv.org"><img src="../a.svg"><link rel="stylesheet" href="../a.css">')
