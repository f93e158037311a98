"""Events: a user took an item at a time. What is not one gets a reason; nothing is repaired silently."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from trireme_ingest.errors import EventError

__all__ = ["EARLIEST_MS", "TOLERANCE_MS", "Event", "parse_event"]

#: 1973. A time in seconds by mistake is earlier than this until the year 5138.
EARLIEST_MS = 100_000_000_000
#: How far ahead of ours the clock of a producer may be. A later event would stay a user's newest until that time has come.
TOLERANCE_MS = 3_600_000
LARGEST_ID = 2**63 - 1


class Event(NamedTuple):
    """What a user took and when. Two events that are equal are one: that makes it harmless to deliver an event twice."""

    user: int
    """External id, 0 to 2**63 - 1."""
    item: int
    """External id, 0 to 2**63 - 1."""
    time_ms: int
    """Since the epoch, by the producer's clock."""


def parse_event(fields: Mapping[bytes, bytes], now_ms: int) -> Event | None:
    """Reads the fields ``user``, ``item``, ``time`` (ms since the epoch) and, if it is there, ``label``.

    Returns:
        The event; None where the label is 0 or less, or no number: as in training, the user did not take that item.

    Raises:
        EventError: a field is missing, or has a value that is not allowed.
    """
    event = Event(
        _integer(fields, b"user", 0, LARGEST_ID, "an id"),
        _integer(fields, b"item", 0, LARGEST_ID, "an id"),
        _integer(fields, b"time", EARLIEST_MS, now_ms + TOLERANCE_MS, "ms since the epoch, at most an hour from now"),
    )
    label = fields.get(b"label")
    return event if label is None or _label(label) > 0 else None


def _integer(fields: Mapping[bytes, bytes], name: bytes, low: int, high: int, what: str) -> int:
    value = fields.get(name)
    if value is None:
        raise EventError(f"{name.decode()} is missing; an event has user, item and time")
    # `isdigit` keeps out what `int` would read, such as b"1_000".
    if not value.isdigit() or len(value) > 19 or not low <= (number := int(value)) <= high:
        raise EventError(f"{name.decode()} is {_shown(value)}; allowed: {what}, an integer from {low} to {high}")
    return number


def _label(value: bytes) -> float:
    """A label that is missing in the data, NaN, is not a positive, as in training."""
    try:
        number = float(value)
    except ValueError:
        raise EventError(f"label is {_shown(value)}; allowed: a number, above 0 if the user took the item") from None
    return -1.0 if math.isnan(number) else number


def _shown(value: bytes) -> str:
    return repr(value[:40].decode(errors="replace"))
