"""The records of users in Redis, as events change them: read, merged and set again where nobody else was faster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from redis import Redis, RedisCluster

from trireme_ingest.events import Event
from trireme_ingest.merging import APPLIED, DUPLICATE, FORGOTTEN, LATE, OLD, Taken, merge
from trireme_runtime.features.record import CORRUPT, RecordLayout, user_key

__all__ = ["Applied", "Records"]

#: Users per script. One with all of a batch would keep Redis from answering servers for milliseconds.
USERS = 100

#: KEYS: record and mark of each user. ARGV: how long a record lives, in ms; for each user the record and the mark as they were
#: read (empty: none), and the new record. Returns 1 for each user whose record was set, 0 where one of the two has changed.
SET_UNCHANGED = """
local set = {}
for user = 1, #KEYS / 2 do
    local record, mark = KEYS[2 * user - 1], KEYS[2 * user]
    set[user] = 0
    if (redis.call('GET', record) or '') == ARGV[3 * user - 1] and (redis.call('GET', mark) or '') == ARGV[3 * user] then
        redis.call('SET', record, ARGV[3 * user + 1], 'PX', ARGV[1])
        set[user] = 1
    end
end
return set
"""

NAMES = {APPLIED: "applied", LATE: "late", DUPLICATE: "duplicate", OLD: "old", FORGOTTEN: "forgotten"}


class Applied(NamedTuple):
    """What became of events."""

    outcomes: Counter[str]
    """Events by ``metrics.OUTCOMES``."""
    conflicts: int
    """Records that another consumer changed between reading and writing, and that were merged again."""
    corrupt: int
    """Records that could not be read, and that the events replaced."""


class Records:
    """Any number of processes may change records: a record is set only where it is still what was read.

    Args:
        redis: the store.
        layout: of the records, which follows from the bundle's sizes.
        namespace: of the keys.
        retention_ms: how long a record, or the mark of a user who was forgotten, lives after it was written.
    """

    def __init__(self, redis: Redis, layout: RecordLayout, namespace: str, retention_ms: int) -> None:
        self._redis = redis
        self._layout = layout
        self._namespace = namespace
        self._retention_ms = retention_ms

    def apply(self, events: Sequence[Event]) -> Applied:
        """Puts events into the records of their users; what was there before is kept, and what comes again changes nothing.

        Raises:
            connection.FAILURES: the store cannot be used; some of the records may have been set.
        """
        waiting = np.array(events, dtype=np.int64).reshape(-1, len(Event._fields))
        outcomes: Counter[str] = Counter()
        conflicts = corrupt = 0
        while len(waiting):
            batch = _Batch(waiting, self._layout, *self._read(np.unique(waiting[:, 0])))
            lost = self._write(batch)
            again = np.isin(batch.event_row, lost)
            outcomes += batch.outcomes(~again)
            conflicts += lost.size
            corrupt += np.count_nonzero(np.delete(batch.corrupt, lost))
            waiting = waiting[again]
        return Applied(outcomes, conflicts, corrupt)

    def forget(self, user: int, now_ms: int) -> bool:
        """Removes the record of a user, and leaves a mark so that what they did up to ``now_ms`` does not come back.

        Returns:
            Whether there was a record.
        """
        record, mark = self._keys(user)
        pipeline: Any = self._redis.pipeline(transaction=True)
        pipeline.set(mark, now_ms, px=self._retention_ms)
        pipeline.delete(record)
        return bool(pipeline.execute()[1])

    def _keys(self, user: int) -> tuple[str, str]:
        """The record, and the mark of a user who was forgotten: when, in ms since the epoch."""
        record = user_key(self._namespace, user)
        return record, f"{record}:forgotten"

    def _read(self, users: np.ndarray) -> tuple[np.ndarray, list[bytes | None], list[bytes | None]]:
        """Returns ``users``, and of each the record and the mark as they are."""
        pipeline: Any = self._redis.pipeline(transaction=False)
        for user in users.tolist():
            for key in self._keys(user):
                pipeline.get(key)
        values = pipeline.execute()
        return users, values[::2], values[1::2]

    def _write(self, batch: _Batch) -> np.ndarray:
        """Sets the records that have changed; returns the rows of those that are others by now: int64 [n]."""
        changed = batch.changed()
        if not changed.size:
            return changed
        new = batch.records(changed, round(time.time() * 1000))
        pipeline: Any = self._redis.pipeline(transaction=False)
        for chunk in self._chunks(list(zip(changed.tolist(), new, strict=True))):
            keys = [key for row, _ in chunk for key in self._keys(int(batch.users[row]))]
            values = [
                value for row, record in chunk for value in (batch.values[row] or b"", batch.marks[row] or b"", record)
            ]
            pipeline.execute_command("EVAL", SET_UNCHANGED, len(keys), *keys, self._retention_ms, *values)
        was_set = [one for answer in pipeline.execute() for one in answer]
        return changed[np.array(was_set) == 0]

    def _chunks(self, values: list[Any]) -> Iterator[list[Any]]:
        """Parts for one script each; in a cluster, where users are on several nodes, of one user each."""
        users = 1 if isinstance(self._redis, RedisCluster) else USERS
        for start in range(0, len(values), users):
            yield values[start : start + users]


class _Batch:
    """Events, and the records of their users before and after them."""

    def __init__(
        self,
        events: np.ndarray,
        layout: RecordLayout,
        users: np.ndarray,
        values: list[bytes | None],
        marks: list[bytes | None],
    ) -> None:
        self.users, self.values, self.marks = users, values, marks
        self._layout = layout
        self._before, state = layout.decode(values)
        self.corrupt = state == CORRUPT
        self.event_row = np.searchsorted(users, events[:, 0])
        row, place = np.nonzero(self._before["history"] >= 0)
        known = Taken(row, self._before["history"][row, place], self._before["time_ms"][row, place])
        forgotten_ms = np.array([-1 if mark is None else int(mark) for mark in marks])
        self._merged = merge(known, Taken(self.event_row, events[:, 1], events[:, 2]), forgotten_ms, layout.history)

    def outcomes(self, chosen: np.ndarray) -> Counter[str]:
        """Counts what became of the ``chosen`` events (bool [events])."""
        counts = np.bincount(self._merged.outcome[chosen], minlength=len(NAMES))
        return +Counter({name: int(counts[code]) for code, name in NAMES.items()})

    def changed(self) -> np.ndarray:
        """The rows of users with a new record: int64 [n]."""
        return np.unique(self.event_row[self._merged.outcome <= LATE])

    def records(self, rows: np.ndarray, written_ms: int) -> list[bytes]:
        """The new records of ``rows``: with the same features, and another history."""
        after = self._before.copy()
        row, item, time_ms = self._merged.taken
        count = np.bincount(row, minlength=self.users.size)
        place = self._layout.history - np.cumsum(count)[row] + np.arange(row.size)
        for name, values in (("history", item), ("time_ms", time_ms)):
            after[name] = -1
            after[name][row, place] = values
        after["count"] = count
        after["written_ms"] = written_ms
        return [after[row].tobytes() for row in rows.tolist()]
