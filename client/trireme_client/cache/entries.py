"""What a cache keeps: which answers, for how long, and for whom not any more. Does no I/O, and the time is passed in."""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from .options import Cache

# Users whose last ``forget`` is known one by one. For the others it counts as the last of those that are known no more: an answer
# that was asked for before that one is not kept.
_MOST_FORGOTTEN = 10_000

# Answers that are spared, at most, before one is dropped: else, where all were given lately, a call would look at all of them.
_MOST_SPARED = 16


class Key(NamedTuple):
    """What an answer depends on. Answers of two bundles never share a key.

    Attributes:
        bundle: the model, its version, and what identifies it among models of that version.
        user_id: -1 for an anonymous user.
        k: how many items.
        history: int64 item ids as bytes; None for the stored history.
        exclude: "12,15"; empty for nothing.
        context: names and values; empty for nothing.
    """

    bundle: str
    user_id: int
    k: int
    history: bytes | None = None
    exclude: str = ""
    context: tuple[tuple[str, str], ...] = ()


class Hit(NamedTuple):
    """An answer that was kept.

    Attributes:
        answer: as it was put.
        age_s: seconds since then.
        stale: whether its time is over, so that it is to be asked for again.
    """

    answer: Any
    age_s: float
    stale: bool


class CacheCounts(NamedTuple):
    """What became of calls and of answers since the cache was made.

    Attributes:
        hits: calls that were given an answer in its time.
        stale: calls that were given one after its time.
        misses: calls for which there was none.
        shared: those of them that waited for an equal call and took its answer.
        refused: answers that were not kept because they were less than complete.
        invalidated: answers that were dropped, or not kept, because their user was forgotten.
        evicted: answers that were dropped for want of space.
        entries: answers that are kept now, including some whose time is over.
        store_hits: misses that were answered from Redis.
        store_failures: what Redis was asked and did not answer in time, or not at all.
        corrupt: values in Redis that could not be read.
        hits_age_s: the ages of the answers that were given in their time, added up, in s.
        stale_age_s: of those that were given after it.
        store_age_s: of those from Redis.
    """

    hits: int = 0
    stale: int = 0
    misses: int = 0
    shared: int = 0
    refused: int = 0
    invalidated: int = 0
    evicted: int = 0
    entries: int = 0
    store_hits: int = 0
    store_failures: int = 0
    corrupt: int = 0
    hits_age_s: float = 0.0
    stale_age_s: float = 0.0
    store_age_s: float = 0.0


class _Entry:
    __slots__ = ("answer", "dead_at", "made_at", "stale_at", "used")

    def __init__(self, answer: Any, made_at: float, stale_at: float, dead_at: float) -> None:
        self.answer, self.made_at, self.stale_at, self.dead_at = answer, made_at, stale_at, dead_at
        self.used = False


class Entries:
    """Answers by their keys. One instance serves all threads.

    What is dropped for want of space is found by CLOCK: the oldest answer that was not given since it was last looked at.

    Args:
        options: times and sizes.
        clock: seconds on a clock that never goes back.
        rng: random numbers.
    """

    def __init__(
        self, options: Cache, clock: Callable[[], float] = time.monotonic, rng: random.Random | None = None
    ) -> None:
        self._options, self._clock = options, clock
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._of_user: dict[int, set[Key]] = {}
        self._generation = self._floor = 0
        self._forgotten: OrderedDict[int, int] = OrderedDict()
        self._hits = self._stale = self._misses = self._invalidated = self._evicted = 0
        self._hits_age_s = self._stale_age_s = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def counts(self) -> CacheCounts:
        """What is known here: all but what calls share, what is refused, and what Redis does."""
        with self._lock:
            return CacheCounts(
                hits=self._hits,
                stale=self._stale,
                misses=self._misses,
                invalidated=self._invalidated,
                evicted=self._evicted,
                entries=len(self._entries),
                hits_age_s=self._hits_age_s,
                stale_age_s=self._stale_age_s,
            )

    def get(self, key: Key, *, stale: bool = True) -> Hit | None:
        """Returns the answer to a call; None if there is none, or its time is over.

        stale: whether an answer in its stale time is given, too.
        """
        with self._lock:
            entry = self._entries.get(key)
            now = self._clock()
            if entry is None:
                self._misses += 1
                return None
            age_s = now - entry.made_at
            if now < entry.stale_at:
                self._hits += 1
                self._hits_age_s += age_s
                entry.used = True
                return Hit(entry.answer, age_s, False)
            if stale and now < entry.dead_at:
                self._stale += 1
                self._stale_age_s += age_s
                entry.used = True
                return Hit(entry.answer, age_s, True)
            self._misses += 1
            if now >= entry.dead_at:
                self._drop(key)
            return None

    @property
    def generation(self) -> int:
        """What ``put`` needs of the moment at which an answer is asked for: it grows with every ``forget``."""
        return self._generation

    def begin_generation(self) -> int:
        """Returns a new generation: answers asked for from now on are told from those asked for before."""
        with self._lock:
            self._generation += 1
            return self._generation

    def current(self, user_id: int, generation: int) -> bool:
        """Returns whether an answer to a user that was asked for in a generation may still be kept."""
        return self._forgotten.get(user_id, self._floor) <= generation

    def put(self, key: Key, answer: Any, generation: int, *, negative: bool = False, age_s: float = 0.0) -> bool:
        """Keeps an answer, in place of one that was kept; returns whether it did.

        Args:
            key: of the call.
            answer: anything.
            generation: ``generation`` when the answer was asked for. If the user was forgotten since, it is not kept.
            negative: whether the answer says that there is nothing for the user.
            age_s: seconds since it was made; its time is shorter by that.
        """
        with self._lock:
            if not self.current(key.user_id, generation):
                self._invalidated += 1
                return False
            made_at = self._clock() - age_s
            options = self._options
            stale_at = made_at + options.life_s(negative) * (1 - options.jitter * self._rng.random())
            self._entries[key] = _Entry(answer, made_at, stale_at, stale_at + options.stale_s)
            self._entries.move_to_end(key)
            self._of_user.setdefault(key.user_id, set()).add(key)
            while len(self._entries) > options.max_entries:
                self._evict()
            return True

    def forget(self, user_id: int) -> int:
        """Drops the answers to a user, those that are being asked for included; returns how many were dropped."""
        with self._lock:
            self._generation += 1
            self._forgotten[user_id] = self._generation
            self._forgotten.move_to_end(user_id)
            if len(self._forgotten) > _MOST_FORGOTTEN:
                self._floor = self._forgotten.popitem(last=False)[1]
            keys = self._of_user.pop(user_id, ())
            for key in keys:
                del self._entries[key]
            self._invalidated += len(keys)
            return len(keys)

    def clear(self) -> None:
        """Forgets all users."""
        with self._lock:
            self._generation += 1
            self._floor = self._generation
            self._forgotten.clear()
            self._invalidated += len(self._entries)
            self._entries.clear()
            self._of_user.clear()

    def _evict(self) -> None:
        """Drops the oldest answer that was not given since it was last looked at here, which makes others the newest."""
        for _ in range(_MOST_SPARED):
            key, entry = next(iter(self._entries.items()))
            if not entry.used:
                break
            entry.used = False
            self._entries.move_to_end(key)
        self._drop(next(iter(self._entries)))
        self._evicted += 1

    def _drop(self, key: Key) -> None:
        del self._entries[key]
        keys = self._of_user[key.user_id]
        keys.discard(key)
        if not keys:
            del self._of_user[key.user_id]
