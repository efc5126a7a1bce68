"""Days as people write them: a date, a month, a year, or how long ago. Pure functions.

>>> today = date(2026, 11, 30)
>>> first_day("2026-11", today).isoformat(), last_day("2026-11", today).isoformat()
('2026-11-01', '2026-11-30')
>>> first_day("7 days", today).isoformat(), first_day("yesterday", today).isoformat()
('2026-11-23', '2026-11-29')
"""

import re
from calendar import monthrange
from datetime import date, timedelta

from scanonce.storage.errors import QueryError

_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")
_AGO = re.compile(r"(\d{1,5})\s*(d|days?|w|weeks?|m|months?|y|years?)(?:\s+ago)?")
_NAMED = {"today": 0, "yesterday": 1}
ALLOWED = "a day such as 2026-11-30, a month such as 2026-11, a year, today, yesterday, or 7 days"


def first_day(text: str, today: date) -> date:
    """Return the first day of a time.

    Raises:
        QueryError: it is none.
    """
    return _days(text, today)[0]


def last_day(text: str, today: date) -> date:
    """Return the last day of a time.

    Raises:
        QueryError: it is none.
    """
    return _days(text, today)[1]


def _days(text: str, today: date) -> tuple[date, date]:
    """Return the first and the last day of a time."""
    word = " ".join(text.lower().split())
    try:
        if word in _NAMED:
            return (today - timedelta(days=_NAMED[word]),) * 2
        if found := _AGO.fullmatch(word):
            return (_ago(int(found[1]), found[2][0], today),) * 2
        if found := _DATE.fullmatch(word):
            year, month, day = (None if part is None else int(part) for part in found.groups())
            assert year is not None
            if month is None:
                return date(year, 1, 1), date(year, 12, 31)
            if day is None:
                return date(year, month, 1), date(year, month, monthrange(year, month)[1])
            return (date(year, month, day),) * 2
    except (ValueError, OverflowError) as error:
        raise QueryError(f"{text!r} is no day ({error}); allowed is {ALLOWED}") from error
    raise QueryError(f"{text!r} is no day; allowed is {ALLOWED}")


def _ago(count: int, unit: str, today: date) -> date:
    if unit in "dw":
        return today - timedelta(days=count * (7 if unit == "w" else 1))
    months = today.year * 12 + today.month - 1 - count * (12 if unit == "y" else 1)
    year, month = months // 12, months % 12 + 1
    return date(year, month, min(today.day, monthrange(year, month)[1]))
