"""The stream that events come from: a consumer group of Redis Streams, and what could not be used beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import ResponseError

__all__ = ["DeadLetter", "Entry", "EventStream", "Lag"]

#: The most dead letters that are kept; the oldest go first.
DEAD_LETTERS = 10_000


class Entry(NamedTuple):
    """An entry of the stream; without fields if it was trimmed after it had been delivered."""

    id: bytes
    fields: dict[bytes, bytes]

    @property
    def added_ms(self) -> int:
        """When it was added, in ms since the epoch by the clock of Redis."""
        return _time_ms(self.id)


class DeadLetter(NamedTuple):
    """An entry that is not an event."""

    entry: Entry
    reason: str


class Lag(NamedTuple):
    """How far a group is behind."""

    oldest_ms: int | None
    """When the oldest entry that is not done was added, in ms since the epoch by the clock of Redis; None if all are done."""
    pending: int
    """Entries that a consumer was given, and that are not done."""


class EventStream:
    """One consumer of a stream: every entry is delivered to one of the group, and again until it is done.

    Args:
        redis: a connection whose time-out is longer than any ``block_ms``.
        name: of the stream.
        group: of the consumers that share the stream.
        consumer: distinct within the group; a consumer that comes back under its name gets what it left.
    """

    def __init__(self, redis: Redis, name: str, group: str, consumer: str) -> None:
        self._redis = redis
        self.name = name
        self.group = group
        self.consumer = consumer

    @property
    def dead_name(self) -> str:
        """The stream of dead letters."""
        return f"{self.name}:dead"

    def prepare(self) -> None:
        """Makes stream and group where they are missing; the group begins with the oldest entry."""
        try:
            self._redis.xgroup_create(self.name, self.group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def read(self, count: int, block_ms: int) -> list[Entry]:
        """Returns up to ``count`` new entries; waits up to ``block_ms`` for the first."""
        return self._delivered(">", count, block_ms)

    def left(self, count: int) -> list[Entry]:
        """Returns the oldest entries that were delivered to this consumer, perhaps before it died, and are not done."""
        return self._delivered("0", count, None)

    def claim(self, count: int, idle_ms: int) -> list[Entry]:
        """Takes over entries that were delivered to any consumer at least ``idle_ms`` ago and are not done."""
        _, entries, *_ = self._redis.xautoclaim(
            self.name, self.group, self.consumer, min_idle_time=idle_ms, start_id="0-0", count=count
        )
        return [Entry(*entry) for entry in entries]

    def done(self, entries: Sequence[Entry], dead: Sequence[DeadLetter]) -> None:
        """Keeps those that are ``dead`` with their reasons, and then acknowledges ``entries``."""
        if dead:
            pipeline: Any = self._redis.pipeline(transaction=False)
            for entry, reason in dead:
                fields = {**entry.fields, b"entry": entry.id, b"reason": reason.encode()}
                pipeline.xadd(self.dead_name, fields, maxlen=DEAD_LETTERS, approximate=True)
            pipeline.execute()
        self._redis.xack(self.name, self.group, *(entry.id for entry in entries))

    def lag(self) -> Lag:
        """How far the group is behind. (Redis's own count of what waits is wrong once it has read its append-only file again.)"""
        pending: Any = self._redis.xpending(self.name, self.group)
        if pending["pending"]:
            return Lag(_time_ms(pending["min"]), pending["pending"])
        (group,) = (one for one in self._groups() if one["name"] == self.group.encode())
        waiting: Any = self._redis.xrange(self.name, min=b"(" + group["last-delivered-id"], count=1)
        return Lag(_time_ms(waiting[0][0]) if waiting else None, 0)

    def trim(self, before_ms: int) -> None:
        """Removes entries that were added before that time (ms since the epoch) and that no group needs any more."""
        oldest = [f"{before_ms}-0".encode()]
        for group in self._groups():
            pending: Any = self._redis.xpending(self.name, group["name"])
            oldest.append(pending["min"] or group["last-delivered-id"])
        self._redis.xtrim(self.name, minid=min(oldest, key=_order), approximate=True)

    def _groups(self) -> list[dict[str, Any]]:
        groups: Any = self._redis.xinfo_groups(self.name)
        return groups

    def _delivered(self, since: str, count: int, block_ms: int | None) -> list[Entry]:
        answer: Any = self._redis.xreadgroup(self.group, self.consumer, {self.name: since}, count=count, block=block_ms)
        return [Entry(*entry) for _, entries in answer for entry in entries]


def _time_ms(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)
