"""Spans of days that have a page: a day, an ISO week, a month, and the year that the calendar shows."""

from __future__ import annotations

import calendar
import datetime
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["day", "week", "month", "year"]

_SPELLED = {
    "day": re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})"),
    "week": re.compile(r"([0-9]{4})-W([0-9]{2})"),
    "month": re.compile(r"([0-9]{4})-([0-9]{2})"),
    "year": re.compile(r"([0-9]{4})"),
}
_SUCH_AS = {"day": "2025-08-20", "week": "2025-W34", "month": "2025-08", "year": "2025"}
_WITHIN = {"day": "/", "week": "/week/", "month": "/month/", "year": "/calendar/"}


@dataclass(frozen=True)
class Period:
    """A span of days with one name and one address.

    Examples
    --------
    >>> week = Period.read("week", "2025-W34")
    >>> week.path, week.title, week.first.isoformat(), week.last.isoformat()
    ('/week/2025-W34', '18 to 24 August 2025', '2025-08-18', '2025-08-24')
    """

    kind: Kind
    first: datetime.date
    last: datetime.date

    @classmethod
    def holding(cls, kind: Kind, date: datetime.date) -> Period:
        """Return the period of a kind that holds a day."""
        if kind == "day":
            return cls(kind, date, date)
        if kind == "week":
            monday = datetime.date.fromordinal(date.toordinal() - date.weekday())
            # The calendar of Python ends on a Friday.
            return cls(
                kind, monday, datetime.date.fromordinal(min(monday.toordinal() + 6, datetime.date.max.toordinal()))
            )
        if kind == "month":
            return cls(kind, date.replace(day=1), date.replace(day=calendar.monthrange(date.year, date.month)[1]))
        return cls(kind, datetime.date(date.year, 1, 1), datetime.date(date.year, 12, 31))

    @classmethod
    def read(cls, kind: Kind, name: str) -> Period:
        """Return the period of a name.

        Raises
        ------
        ValueError
            If it is spelled in another way, or cannot be.
        """
        match = _SPELLED[kind].fullmatch(name)
        if match is None:
            raise ValueError(f"should be a {kind}, such as {_SUCH_AS[kind]}")
        numbers = [int(number) for number in match.groups()]
        try:
            if kind == "week":
                return cls.holding(kind, datetime.date.fromisocalendar(numbers[0], numbers[1], 1))
            return cls.holding(kind, datetime.date(*numbers, *[1] * (3 - len(numbers))))
        except ValueError:
            if kind == "week" and numbers[0]:
                raise ValueError(f"{numbers[0]} has no week {numbers[1]}") from None
            raise ValueError(f"should be a {kind} that there is, such as {_SUCH_AS[kind]}") from None

    @classmethod
    def parse(cls, kind: Kind, name: str) -> Period | None:
        """Return the period of a name, or ``None`` where :meth:`read` finds none."""
        try:
            return cls.read(kind, name)
        except ValueError:
            return None

    def within(self, kind: Kind) -> Period:
        """Return the larger period that this one belongs to: a week to the month and year of its Thursday (ISO 8601).

        Examples
        --------
        >>> Period.read("week", "2025-W01").within("year").name
        '2025'
        """
        day = self.first + datetime.timedelta(days=3) if self.kind == "week" else self.first
        return Period.holding(kind, day)

    @property
    def name(self) -> str:
        """The name in addresses."""
        if self.kind == "week":
            year, week, _ = self.first.isocalendar()
            return f"{year:04}-W{week:02}"
        return self.first.isoformat()[: {"day": 10, "month": 7, "year": 4}[self.kind]]

    @property
    def path(self) -> str:
        """The path of its page."""
        return _WITHIN[self.kind] + self.name

    @property
    def title(self) -> str:
        """What readers call it."""
        first, last = self.first, self.last
        if self.kind == "day":
            return f"{first:%A}, {first.day} {first:%B} {first.year}"
        if self.kind == "week":
            begin = str(first.day)
            begin += f" {first:%B}" if first.month != last.month else ""
            begin += f" {first.year}" if first.year != last.year else ""
            return f"{begin} to {last.day} {last:%B} {last.year}"
        return f"{first:%B} {first.year}" if self.kind == "month" else f"{first.year}"

    @property
    def short(self) -> str:
        """A title for links."""
        if self.kind == "day":
            return f"{self.first.day} {self.first:%b} {self.first.year}"
        if self.kind == "week":
            year, week, _ = self.first.isocalendar()
            return f"Week {week}, {year}"
        return f"{self.first:%b} {self.first.year}" if self.kind == "month" else f"{self.first.year}"
