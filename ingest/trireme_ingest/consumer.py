"""From the stream into the store, until told to stop.

An entry is acknowledged after the records of its batch were written. What is delivered again, because a process or Redis died in
between, changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from trireme_ingest.connection import FAILURES
from trireme_ingest.errors import EventError
from trireme_ingest.events import Event, parse_event
from trireme_ingest.metrics import Progress
from trireme_ingest.records import Records
from trireme_ingest.stream import DeadLetter, Entry, EventStream

__all__ = ["Consumer", "Schedule"]

#: Seconds before the first and before any later try, while Redis cannot be used.
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0


@dataclass(frozen=True)
class Schedule:
    """How much a consumer takes at a time, and how often it looks around."""

    batch: int = 1_000
    """The most entries per batch: what is read is written before more is read."""
    block_ms: int = 500
    """How long to wait for an entry before looking whether to stop."""
    idle_ms: int = 30_000
    """Entries that another consumer has had for this long without an end are taken over."""
    housekeeping_s: float = 5.0
    """Between two times of taking over, trimming and measuring the lag."""
    keep_ms: int = 3_600_000
    """How long entries stay in the stream after they were added, at least until all groups have done with them."""


class Consumer:
    """One of the consumers of a stream.

    Args:
        stream: where events come from.
        records: where they go.
        progress: what is counted.
        schedule: how much and how often.
        report: is told when Redis cannot be used, and when it can again.
    """

    def __init__(
        self,
        stream: EventStream,
        records: Records,
        progress: Progress,
        schedule: Schedule,
        report: Callable[[str], None],
    ) -> None:
        self._stream = stream
        self._records = records
        self._progress = progress
        self._schedule = schedule
        self._report = report
        self._is_away = False

    def run(self, stop: threading.Event) -> None:
        """Applies events until ``stop`` is set, through any failure of Redis. The batch at hand is finished.

        Raises:
            connection.FAILURES: Redis refuses the first command; later failures are waited out.
        """
        self._stream.prepare()
        wait = SHORTEST_WAIT_S
        while not stop.is_set():
            before = self._progress.events
            try:
                self._consume(stop)
            except FAILURES as error:
                self._progress.failed()
                self._is_away = True
                wait = SHORTEST_WAIT_S if self._progress.events > before else wait
                self._report(f"Redis cannot be used ({error}); trying again in {wait:g} s")
                stop.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)

    def _consume(self, stop: threading.Event) -> None:
        """Raises one of FAILURES; nothing is lost by that."""
        self._stream.prepare()
        if self._is_away:
            self._is_away = False
            self._report("Redis answers again")
        # An answer of Redis that got lost may have held entries: they count as delivered.
        while (entries := self._stream.left(self._schedule.batch)) and not stop.is_set():
            self._apply(entries)
        next_look = 0.0
        while not stop.is_set():
            if time.monotonic() >= next_look:
                self._look_around(stop)
                next_look = time.monotonic() + self._schedule.housekeeping_s
            entries = self._stream.read(self._schedule.batch, self._schedule.block_ms)
            self._apply(entries)

    def _apply(self, entries: list[Entry]) -> None:
        if not entries:
            return
        events, dead, outcomes = _sort(entries)
        applied = self._records.apply(events)
        now = time.time()
        self._stream.done(entries, dead)
        self._progress.add(outcomes + applied.outcomes)
        self._progress.written(applied.conflicts, applied.corrupt)
        # The clock of Redis may be ahead of this one.
        self._progress.delayed([max(0.0, now - entry.added_ms / 1000) for entry in entries])

    def _look_around(self, stop: threading.Event) -> None:
        """Takes over what dead consumers left, trims the stream, and measures the lag."""
        while (entries := self._stream.claim(self._schedule.batch, self._schedule.idle_ms)) and not stop.is_set():
            self._apply(entries)
        now_ms = round(time.time() * 1000)
        self._stream.trim(now_ms - self._schedule.keep_ms)
        lag = self._stream.lag()
        self._progress.behind(0.0 if lag.oldest_ms is None else (now_ms - lag.oldest_ms) / 1000, lag.pending)


def _sort(entries: list[Entry]) -> tuple[list[Event], list[DeadLetter], Counter[str]]:
    """Tells what is an event from what is not; counts the latter."""
    now_ms = round(time.time() * 1000)
    events: list[Event] = []
    dead: list[DeadLetter] = []
    outcomes: Counter[str] = Counter()
    for entry in entries:
        if not entry.fields:
            outcomes["trimmed"] += 1
            continue
        try:
            event = parse_event(entry.fields, now_ms)
        except EventError as error:
            dead.append(DeadLetter(entry, str(error)))
            continue
        if event is None:
            outcomes["negative"] += 1
        else:
            events.append(event)
    outcomes["dead"] += len(dead)
    return events, dead, +outcomes
