"""Every example in a docstring runs and shows what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import offprint

ROOT = Path(offprint.__file__).parent


def modules_with_examples() -> list[str]:
    """Find the modules by their text; nothing is imported."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if ">>>" in path.read_text(encoding="utf-8"):
            parts = path.relative_to(ROOT.parent).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_show_what_they_say(module: str) -> None:
    loaded = importlib.import_module(module)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.DONT_ACCEPT_TRUE_FOR_1
    outcome = doctest.testmod(loaded, optionflags=flags)
    assert outcome.attempted > 0
    assert outcome.failed == 0
