"""What a cache shares with other processes through Redis: answers, and whose answers have ended."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from ..breaker import Breaker
from ..connections import redis_at
from ..recommendations import Recommendations
from ..requests import NO_USER
from ..workers import WORKERS, Job
from .address import Address
from .entries import Entries, Key
from .options import Cache
from .rules import is_final, is_negative
from .values import Value, digest_of, read_value, stamp_of, write_value

# Writes in progress; more are left out.
_MOST_WRITES = 32

# Of a record: all before its first event, the time at which it was written among it.
_HEADER_BYTES = 32


class Found(NamedTuple):
    """What Redis holds for a call.

    Attributes:
        answer: None if there is none that may be given.
        age_s: seconds since it was written.
        stamp: what an answer that is asked for from now on is written with.
        corrupt: whether there was a value that could not be read.
    """

    answer: Recommendations | None
    age_s: float
    stamp: bytes
    corrupt: bool = False

    @property
    def outcome(self) -> str:
        """Whether it is an answer: "hit" or "miss"."""
        return "miss" if self.answer is None else "hit"


class Store:
    """Answers in one Redis, by blocking calls.

    An answer is written with a stamp of its user: of the record as it was before the server was asked, and of the last
    ``forget``. It counts only as long as the stamp is the same, so nobody has to delete it.
    """

    def __init__(self, address: Address, options: Cache) -> None:
        self._address, self._options = address, options
        self._redis = redis_at(address.url, address.timeout_s, "Cache", "Cache.store", protocol=2)

    def read(self, key: Key) -> Found:
        """Reads the answer for a key. Raises RedisError."""
        name = self._name(key)
        pipeline: Any = self._redis.pipeline(transaction=False)
        pipeline.get(name)
        pipeline.pttl(name)
        if key.user_id != NO_USER:
            pipeline.getrange(self._record(key.user_id), 0, _HEADER_BYTES - 1)
            pipeline.get(self._mark(key.user_id))
        data, left_ms, *of_user = pipeline.execute()
        stamp = stamp_of(*of_user)
        if data is None or left_ms < 0:
            return Found(None, 0.0, stamp)
        value = read_value(data, key)
        if value is None or not is_final(value.answer):
            return Found(None, 0.0, stamp, corrupt=True)
        age_s = max(0, value.life_ms - left_ms) / 1000
        shortened = 1 - self._options.jitter * random.random()
        fresh = value.stamp == stamp and age_s < self._options.life_s(is_negative(value.answer)) * shortened
        return Found(value.answer if fresh else None, age_s, stamp)

    def write(self, key: Key, answer: Recommendations, stamp: bytes) -> None:
        """Writes an answer for all processes. Raises RedisError."""
        life_ms = max(1, round(1000 * self._options.life_s(is_negative(answer))))
        self._redis.set(self._name(key), write_value(Value(answer, life_ms, stamp)), px=life_ms)

    def forget(self, user_id: int) -> None:
        """Ends all answers to a user that anybody has kept. Raises RedisError."""
        # Longer than any answer, and one that is being asked for.
        life_ms = round(1000 * (self._options.ttl_s + 120))
        self._redis.set(self._mark(user_id), os.urandom(8), px=life_ms)

    def _record(self, user_id: int) -> str:
        return f"{self._address.record_prefix()}{{{user_id}}}"

    def _mark(self, user_id: int) -> str:
        """A key beside the record, so that writing it is heard like that of a record, by all processes."""
        return f"{self._record(user_id)}:answers"

    def _name(self, key: Key) -> str:
        digest = digest_of(key)
        return (
            f"trireme:{self._address.namespace}:answer:{{{digest if key.user_id == NO_USER else key.user_id}}}:{digest}"
        )

    def close(self) -> None:
        self._redis.close()


class Shared:
    """The part of a cache that other processes see. Without addresses, it is nothing, and costs nothing.

    Attributes:
        hears: whether each write to a user's record is heard, so that answers may be kept.
        timeout_s: how long a read may take.
        hits: answers that were found in Redis.
        hits_age_s: their ages, added up.
        failures: reads, writes and ``forget`` that Redis did not answer in time, or not at all.
        corrupt: values that could not be read.
    """

    def __init__(self, options: Cache, entries: Entries) -> None:
        self._entries = entries
        self._store: Store | None = None
        self._listener: Any = None
        self._breaker = Breaker()
        self._writes: set[Job] = set()
        self.hits = self.failures = self.corrupt = 0
        self.hits_age_s = 0.0
        self.timeout_s = 0.0
        address = options.address()
        self.hears = address is None
        if address is None:
            return
        if options.store is not None:
            self._store = Store(address, options)
            self.timeout_s = address.timeout_s
        from .listener import Listener  # needs redis

        self._listener = Listener(address, entries.forget, self._hearing)

    def may_read(self) -> bool:
        """Returns whether there is a Redis that is to be asked now; after failures, only now and then."""
        if self._store is None:
            return False
        if self._breaker.state == "closed":
            return True
        if self._breaker.due():
            self._breaker.probe()
            return True
        return False

    def read(self, key: Key) -> Job:
        """Begins to read in another thread; ``result`` follows."""
        assert self._store is not None
        job, store = Job(), self._store
        WORKERS.start(job, lambda: store.read(key))
        return job

    def result(self, job: Job, in_time: bool) -> Found | None:
        """Returns what was read; None if Redis did not answer in time."""
        if not in_time or job.failed:
            self._failed()
            return None
        self._breaker.answered()
        found: Found = job.result()
        if found.answer is not None:
            self.hits += 1
            self.hits_age_s += found.age_s
        self.corrupt += found.corrupt
        return found

    def write(self, key: Key, answer: Recommendations, stamp: bytes) -> None:
        """Has an answer written in the background, unless Redis has too much to do."""
        store = self._store
        if store is not None and self._breaker.state == "closed" and len(self._writes) < _MOST_WRITES:
            self._start(lambda: store.write(key, answer, stamp))

    def forget(self, user_id: int) -> None:
        """Has the answers to a user ended in the background."""
        store = self._store
        if store is not None:
            self._start(lambda: store.forget(user_id))

    def _start(self, work: Callable[[], None]) -> None:
        job = Job()
        self._writes.add(job)
        job.add_done_callback(self._written)
        WORKERS.start(job, work)

    def _written(self, job: Job) -> None:
        self._writes.discard(job)
        if job.failed:
            self._failed()

    def _failed(self) -> None:
        self.failures += 1
        self._breaker.failed()

    def _hearing(self, hears: bool) -> None:
        """Notes whether writes are heard. What was missed is not known, so nothing that was kept counts any more."""
        self.hears = False
        self._entries.clear()
        self.hears = hears

    def close(self) -> None:
        """Ends the connections."""
        self.hears = False
        if self._listener is not None:
            self._listener.close()
        if self._store is not None:
            self._store.close()
