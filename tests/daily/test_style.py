"""The style sheet: colours that can be read on both grounds, by the contrast formula of WCAG 2."""

from __future__ import annotations

import re

import pytest

from offprint.daily.rendering import STATIC, asset

STYLE = (STATIC / "site.css").read_text(encoding="utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.S)
)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_formula() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)  # the well-known grey just below the bound


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read(colours: dict[str, str]) -> None:
    for ground in ("ground", "raised"):
        for ink in ("ink", "muted", "accent", "good", "fair", "bad"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["none"], colours[ground]) >= 3, ground  # marks, not text
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    assert contrast(colours["ink"], colours["mark"]) >= 4.5


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_fields_can_be_seen(colours: dict[str, str]) -> None:
    """WCAG 1.4.11: what shows that one can type there stands out as marks do."""
    rules = re.findall(r"^([^{}@\n]*\b(?:input|select|textarea)\b[^{}\n]*) \{([^}]*)\}", STYLE, re.M)
    borders = {
        selector: found[1]
        for selector, said in rules
        if (found := re.search(r"border: 1px solid var\(--([\w-]+)", said))
    }
    assert len(borders) >= 4
    for selector, border in borders.items():
        assert min(contrast(colours[border], colours[ground]) for ground in ("ground", "raised")) >= 3, selector


def test_paper_is_white() -> None:
    """Dark colours are for screens alone: printed, the page has those of the light one."""
    schemes = re.findall(r"@media ([^{]*)\{\s*:root", STYLE)
    assert schemes == ["screen and (prefers-color-scheme: dark) "]


def test_the_style_sheet_asks_for_nothing_from_elsewhere() -> None:
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_libraries_come_with_their_licences() -> None:
    for library in ("htmx", "htmx-ext-sse"):
        assert "WARRANTIES" in (STATIC / "vendor" / f"{library}.LICENSE").read_text(encoding="utf-8")
        assert asset(f"vendor/{library}.min.js").startswith("/static/vendor/")
