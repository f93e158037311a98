"""What `Tracker` refuses, without a Redis; `e2e/test_tracker.py` has one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from trireme_client import Tracker, ValidationError


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    """One that sends nothing, as nothing is tracked."""
    with Tracker("redis://localhost:1") as tracker:
        yield tracker


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 2), "user_id is -1; allowed: an integer from 0 to 2**63 - 1"),
        (("7", 2), "user_id is '7' (str); allowed: an integer from 0 to 2**63 - 1"),
        ((7, 2.5), "item_id is 2.5 (float); allowed: an integer from 0 to 2**63 - 1"),
        ((7, 2, "now"), "time is 'now'; allowed: seconds since the epoch, as of time.time(), or None for now"),
        ((7, 2, True), "time is True; allowed: seconds since the epoch, as of time.time(), or None for now"),
        (
            (7, 2, 1_700_000_000_000),  # ms
            "time is 1700000000000; allowed: seconds since the epoch, as of time.time(), or None for now",
        ),
        ((7, 2, float("nan")), "time is nan; allowed: seconds since the epoch, as of time.time(), or None for now"),
    ],
)
def test_what_is_no_event_is_refused(tracker: Tracker, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        tracker.track(*arguments)
    assert str(error.value) == message
    assert tracker.pending == 0


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("localhost:6379", {}, "url is not an address of Redis (Redis URL must specify one of the following schemes"),
        ("redis://localhost:6379/0?shop=1", {}, "url is not an address of Redis ("),
        (6379, {}, "url is not an address of Redis ("),
        ("redis://localhost", {"stream": ""}, "stream is ''; allowed: the name of a stream, such as 'trireme:events'"),
        ("redis://localhost", {"max_pending": 0}, "max_pending is 0; allowed: an integer from 1 to 2**63 - 1"),
        ("redis://localhost", {"max_stream": 0}, "max_stream is 0; allowed: an integer from 1 to 2**63 - 1"),
    ],
)
def test_wrong_arguments_are_refused(url: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Tracker(url, **options)
    assert str(error.value).startswith(message)


def test_an_error_shows_no_password() -> None:
    with pytest.raises(ValidationError) as error:
        Tracker("http://user:secret@localhost")
    assert "secret" not in str(error.value)


def test_a_time_limit_of_closing_is_checked(tracker: Tracker) -> None:
    with pytest.raises(ValidationError, match="timeout is -1; allowed: "):
        tracker.close(-1)
    assert not tracker.closed


def test_integers_of_numpy_are_ids(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(tracker, "_send", sent.extend)
    assert tracker.track(np.int64(7), np.int32(12), time=1_700_000_000)
    tracker.close()
    assert sent == [(7, 12, 1_700_000_000_000)]


def test_without_the_package_redis_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'trireme-client\[redis\]'"):
        Tracker()
