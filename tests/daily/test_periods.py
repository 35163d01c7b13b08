"""Periods: their names, their addresses and their days, as Python's own calendar has them."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offprint.daily.periods import Kind, Period

KINDS: tuple[Kind, ...] = ("day", "week", "month", "year")
WRITTEN = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m", "year": "%Y"}


@settings(deadline=None)
@given(st.dates(datetime.date(1000, 1, 1)), st.sampled_from(KINDS))
def test_a_period_holds_the_days_that_share_its_name(date: datetime.date, kind: Kind) -> None:
    period = Period.holding(kind, date)
    assert period.name == date.strftime(WRITTEN[kind])
    assert Period.parse(kind, period.name) == period
    assert period.first <= date <= period.last
    day = datetime.timedelta(days=1)
    assert {period.first.strftime(WRITTEN[kind]), period.last.strftime(WRITTEN[kind])} == {period.name}
    assert (period.first - day).strftime(WRITTEN[kind]) != period.name
    if period.last < datetime.date.max:
        assert (period.last + day).strftime(WRITTEN[kind]) != period.name


@settings(deadline=None)
@given(st.text(alphabet="0123456789-W٣ ", max_size=11), st.sampled_from(KINDS))
def test_no_other_spelling_is_read(name: str, kind: Kind) -> None:
    period = Period.parse(kind, name)
    assert period is None or period.name == name


@pytest.mark.parametrize(
    ("kind", "name", "title", "short"),
    [
        ("day", "2025-08-20", "Wednesday, 20 August 2025", "20 Aug 2025"),
        ("week", "2025-W34", "18 to 24 August 2025", "Week 34, 2025"),
        ("week", "2025-W40", "29 September to 5 October 2025", "Week 40, 2025"),
        ("week", "2026-W01", "29 December 2025 to 4 January 2026", "Week 1, 2026"),
        ("month", "2025-08", "August 2025", "Aug 2025"),
        ("year", "2025", "2025", "2025"),
    ],
)
def test_titles(kind: Kind, name: str, title: str, short: str) -> None:
    period = Period.parse(kind, name)
    assert period is not None
    assert (period.title, period.short) == (title, short)
