"""Events for `trireme ingest`: what users took, sent to a stream in Redis without making anybody wait."""

from __future__ import annotations

import logging
import threading
import time as clock
from collections import deque
from itertools import islice
from typing import Any, NamedTuple

from .cache.answers import AnswerCache
from .connections import redis_at
from .errors import ClosedError, ValidationError
from .options import check_seconds
from .requests import check_int

# Events that one round trip carries.
_BATCH = 500
# Seconds before the first and before any later repetition, while Redis cannot be reached.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 2.0
# Of a connection attempt and of one round trip, in seconds.
_TIMEOUT = 2.0
# Times in s since the epoch: 1973, which ms or a wrong clock would miss, to 5138.
_EARLIEST, _LATEST = 1e8, 1e11

_log = logging.getLogger(__name__)


class _Event(NamedTuple):
    user: int
    item: int
    time: int


class Tracker:
    """Tells `trireme ingest` what users take. Use it in a ``with`` block, or call ``close`` at the end.

    ``track`` takes microseconds and needs no connection: a thread sends the events, many at a time. While Redis is away they
    wait, and are sent again where it is not known whether they arrived, which is harmless: equal events count once.

    One tracker serves all threads of a process. Make it after a fork, not before.

    Args:
        url: of Redis, such as "redis://localhost:6379/0" or "rediss://user:password@host:6379".
        stream: the name that `trireme ingest run --stream` has.
        max_pending: the most events that wait to be sent. More are dropped, and counted.
        max_stream: about how many events the stream holds at most, read or not; beyond that, Redis removes the oldest.
        cache: ``client.cache``, whose answers to a user end with each event of theirs; None for none.

    Raises:
        ModuleNotFoundError: the package redis is not installed.
        ValidationError: an argument is wrong.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379",
        *,
        stream: str = "trireme:events",
        max_pending: int = 10_000,
        max_stream: int = 10_000_000,
        cache: AnswerCache | None = None,
    ) -> None:
        self._redis = redis_at(url, _TIMEOUT, "Tracker")
        if cache is not None and not isinstance(cache, AnswerCache):
            raise ValidationError(f"cache is {cache!r}; allowed: client.cache of a client that has one, or None")
        self._cache = cache
        if not isinstance(stream, str) or not stream:
            raise ValidationError(f"stream is {stream!r}; allowed: the name of a stream, such as 'trireme:events'")
        self._stream = stream
        self._max_pending = check_int("max_pending", max_pending, 1)
        self._max_stream = check_int("max_stream", max_stream, 1)
        self._pending: deque[_Event] = deque()
        self._changed = threading.Condition()
        self._stop_at = float("inf")
        self._sent = self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="trireme-tracker", daemon=True)
        self._thread.start()

    def track(self, user_id: int, item_id: int, time: float | None = None) -> bool:
        """Notes that a user took an item; returns False where the event was dropped, because too many wait already.

        Args:
            user_id: int >= 0.
            item_id: int >= 0.
            time: when, in seconds since the epoch as of ``time.time()``; None for now. Two events of equal user, item and
                time, to the millisecond, are one.

        Raises:
            ValidationError: an argument is wrong.
            ClosedError: the tracker was closed.
        """
        event = _Event(check_int("user_id", user_id, 0), check_int("item_id", item_id, 0), _milliseconds(time))
        with self._changed:
            if self.closed:
                raise ClosedError("the tracker is closed")
            if len(self._pending) >= self._max_pending:
                self._dropped += 1
                return False
            self._pending.append(event)
            if len(self._pending) == 1:
                self._changed.notify()
        if self._cache is not None:
            self._cache.forget(event.user)
        return True

    @property
    def pending(self) -> int:
        """Events that wait to be sent, or are on their way."""
        return len(self._pending)

    @property
    def sent(self) -> int:
        """Events that Redis has confirmed."""
        return self._sent

    @property
    def dropped(self) -> int:
        """Events that were given up: too many waited, or the tracker was closed before they could be sent."""
        return self._dropped

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._stop_at != float("inf")

    def close(self, timeout: float | None = 5.0) -> None:
        """Sends what waits, for at most ``timeout`` seconds (None: as long as it takes), and counts the rest as dropped.

        Closing again does nothing.
        """
        seconds = check_seconds("timeout", timeout)
        with self._changed:
            if not self.closed:
                self._stop_at = threading.TIMEOUT_MAX if seconds is None else clock.monotonic() + seconds
                self._changed.notify()
        self._thread.join()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        wait = _SHORTEST_WAIT
        while batch := self._next_batch():
            try:
                self._send(batch)
            except Exception as error:  # whatever it is, the next try may succeed, and nobody waits for this thread
                if wait == _SHORTEST_WAIT:
                    _log.warning("events for the stream %s wait: %s", self._stream, error)
                self._pause(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
                continue
            wait = _SHORTEST_WAIT
            with self._changed:
                self._sent += len(batch)
                for _ in batch:
                    self._pending.popleft()
        self._redis.close()

    def _next_batch(self) -> list[_Event]:
        """Waits for events; returns the oldest, which stay pending. None are returned when it is time to end."""
        with self._changed:
            while not self._pending and not self.closed:
                self._changed.wait()
            if clock.monotonic() >= self._stop_at:
                self._dropped += len(self._pending)
                self._pending.clear()
            return list(islice(self._pending, _BATCH))

    def _send(self, batch: list[_Event]) -> None:
        pipeline: Any = self._redis.pipeline(transaction=False)
        for event in batch:
            pipeline.xadd(self._stream, event._asdict(), maxlen=self._max_stream, approximate=True)
        pipeline.execute()

    def _pause(self, seconds: float) -> None:
        """Waits before a repetition, but not beyond the time of the end; ``close`` cuts it short."""
        with self._changed:
            self._changed.wait(max(0.0, min(seconds, self._stop_at - clock.monotonic())))


def _milliseconds(time: object) -> int:
    if time is None:
        return clock.time_ns() // 1_000_000
    if isinstance(time, (int, float)) and not isinstance(time, bool) and _EARLIEST <= time < _LATEST:
        return round(time * 1000)
    raise ValidationError(f"time is {time!r}; allowed: seconds since the epoch, as of time.time(), or None for now")
