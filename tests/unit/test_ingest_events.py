"""What is an event, and what is said of what is not."""

from __future__ import annotations

import pytest

from trireme_ingest.errors import EventError
from trireme_ingest.events import EARLIEST_MS, TOLERANCE_MS, Event, parse_event

NOW_MS = 1_800_000_000_000


def fields(**values: str) -> dict[bytes, bytes]:
    given = {"user": "7", "item": "12", "time": str(NOW_MS), **values}
    return {name.encode(): value.encode() for name, value in given.items() if value != "missing"}


def test_an_event_has_user_item_and_time() -> None:
    assert parse_event(fields(), NOW_MS) == Event(7, 12, NOW_MS)


def test_other_fields_are_left_alone() -> None:
    assert parse_event(fields(page="home"), NOW_MS) == Event(7, 12, NOW_MS)


@pytest.mark.parametrize(
    ("values", "event"),
    [
        ({"user": "0", "item": "0"}, Event(0, 0, NOW_MS)),
        ({"user": str(2**63 - 1), "item": str(2**63 - 1)}, Event(2**63 - 1, 2**63 - 1, NOW_MS)),
        ({"time": str(EARLIEST_MS)}, Event(7, 12, EARLIEST_MS)),
        ({"time": str(NOW_MS + TOLERANCE_MS)}, Event(7, 12, NOW_MS + TOLERANCE_MS)),
    ],
)
def test_the_limits_are_allowed(values: dict[str, str], event: Event) -> None:
    assert parse_event(fields(**values), NOW_MS) == event


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"user": "missing"}, "user is missing; an event has user, item and time"),
        ({"item": "missing"}, "item is missing; an event has user, item and time"),
        ({"time": "missing"}, "time is missing; an event has user, item and time"),
        ({"user": "anna"}, f"user is 'anna'; allowed: an id, an integer from 0 to {2**63 - 1}"),
        ({"user": "-1"}, f"user is '-1'; allowed: an id, an integer from 0 to {2**63 - 1}"),
        ({"user": "1_0"}, f"user is '1_0'; allowed: an id, an integer from 0 to {2**63 - 1}"),
        ({"item": str(2**63)}, f"item is '{2**63}'; allowed: an id, an integer from 0 to {2**63 - 1}"),
        ({"item": "9" * 50}, f"item is '{'9' * 40}'; allowed: an id, an integer from 0 to {2**63 - 1}"),
        ({"item": ""}, f"item is ''; allowed: an id, an integer from 0 to {2**63 - 1}"),
        (
            {"time": "1800000000"},  # seconds
            f"time is '1800000000'; allowed: ms since the epoch, at most an hour from now, an integer from 100000000000 to "
            f"{NOW_MS + TOLERANCE_MS}",
        ),
        (
            {"time": str(NOW_MS + TOLERANCE_MS + 1)},
            f"time is '{NOW_MS + TOLERANCE_MS + 1}'; allowed: ms since the epoch, at most an hour from now, an integer from "
            f"100000000000 to {NOW_MS + TOLERANCE_MS}",
        ),
        ({"label": "yes"}, "label is 'yes'; allowed: a number, above 0 if the user took the item"),
    ],
)
def test_what_is_no_event_gets_a_reason(values: dict[str, str], reason: str) -> None:
    with pytest.raises(EventError) as error:
        parse_event(fields(**values), NOW_MS)
    assert str(error.value) == reason


@pytest.mark.parametrize(("label", "taken"), [("1", True), ("0.5", True), ("0", False), ("-1", False), ("nan", False)])
def test_the_label_says_whether_the_user_took_the_item(label: str, taken: bool) -> None:
    assert (parse_event(fields(label=label), NOW_MS) is not None) is taken
