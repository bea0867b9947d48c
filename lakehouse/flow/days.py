"""Days as spans: what is asked for, made and written is told by first and last day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta


def contiguous(days: Iterable[date]) -> list[tuple[date, date]]:
    """Days as contiguous spans, oldest first."""
    spans: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if spans and day - spans[-1][1] == timedelta(days=1):
            spans[-1] = (spans[-1][0], day)
        else:
            spans.append((day, day))
    return spans
