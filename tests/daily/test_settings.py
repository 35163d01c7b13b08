"""Settings: read from the environment, refused in one line that names the variable, and documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from offprint.daily import settings

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "operating.md"


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("OFFPRINT_DIGEST_HOUR", "24", "less than or equal to 23 (found '24')"),
        ("OFFPRINT_DIGEST_HOUR", "six", "valid integer"),
        ("OFFPRINT_RUNS", "perhaps", "valid boolean"),
        ("OFFPRINT_LOG_FORMAT", "xml", "'text' or 'json'"),
        ("OFFPRINT_BASE_URL", "papers.example.org", "such as https://papers.example.org is wanted"),
        ("OFFPRINT_BASE_URL", "https://a.example/papers", "such as https://papers.example.org is wanted"),
        ("OFFPRINT_MAIL_FROM", "a@example.org\nBcc: b@example.org", "one line is wanted"),
    ],
)
def test_a_bad_variable_is_named(name: str, value: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(settings.SettingsError) as refused:
        settings.load()
    message = str(refused.value)
    assert message.startswith(f"{name}: ")
    assert part in message
    assert "\n" not in message


def test_several_bad_variables_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFPRINT_DIGEST_HOUR", "24")
    monkeypatch.setenv("OFFPRINT_RUNS", "perhaps")
    with pytest.raises(settings.SettingsError, match=r"OFFPRINT_DIGEST_HOUR.*; OFFPRINT_RUNS"):
        settings.load()


def test_what_is_found_in_a_secret_is_not_repeated() -> None:
    problem = {"loc": ("smtp_url",), "msg": "wrong", "input": "smtp://user:password@host"}
    assert settings._complaint(problem) == "OFFPRINT_SMTP_URL: wrong"


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in settings.Settings.model_fields.values())


def test_secrets_are_known_as_such() -> None:
    named = {
        name for name in settings.Settings.model_fields if any(part in name for part in ("secret", "token", "smtp"))
    }
    assert named == set(settings.SECRET)


def test_the_guide_has_the_table() -> None:
    assert settings.table() in GUIDE.read_text(encoding="utf-8"), "python scripts/settings_table.py writes it anew"


def test_defaults_suit_a_machine_without_any_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(f"OFFPRINT_{name.upper()}", raising=False)
    assert settings.load().runs
    assert not settings.load().https
