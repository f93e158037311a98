"""What a cache does with traffic on a virtual clock: the entries of the client's own cache, without client and server."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trireme_client import Request
from trireme_client.cache.entries import Entries, Key
from trireme_client.cache.options import Cache
from trireme_client.cache.rules import key_of
from trireme_client.requests import check_arguments
from trireme_perf.cache.traffic import Traffic

__all__ = ["Costs", "Outcome", "VirtualClock", "scaled", "simulate"]

SEED = 19680709
#: There is one bundle all the time.
BUNDLE = "simulated"


class VirtualClock:
    """A clock that stands still until it is set. ``now``: seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Outcome:
    """What became of n requests."""

    hits: int
    """Requests that got an answer in its time."""
    stale: int
    """Requests that got one after its time, while it was asked for again."""
    misses: int
    evicted: int
    """Answers that were dropped for want of space."""
    made: NDArray[np.int64]
    """int64 [n]: the request for which the answer was computed that a request got; itself for a miss."""

    @property
    def hit_rate(self) -> float:
        """The share of requests that did not wait for the server."""
        return (self.hits + self.stale) / self.made.size


@dataclass(frozen=True)
class Costs:
    """CPU time of client and server together, in µs per request."""

    plain: float
    """Without a cache."""
    hit: float
    miss: float
    """With a cache: it costs a little more than without."""

    def saved(self, outcome: Outcome) -> float:
        """Returns the share of the CPU time that a cache saves. A stale answer costs a hit, and a miss in the background."""
        spent = outcome.hits * self.hit + outcome.misses * self.miss + outcome.stale * (self.hit + self.miss)
        return 1 - spent / (outcome.made.size * self.plain)


def scaled(cache: Cache, share: float) -> Cache:
    """Returns a cache that has as many hits with a share of the users as ``cache`` with all."""
    return replace(cache, max_entries=max(1, round(cache.max_entries * share)))


def simulate(traffic: Traffic, cache: Cache, invalidates: bool, negative: NDArray[np.bool_]) -> Outcome:
    """Puts traffic through a cache that is empty at first.

    Args:
        traffic: if it has but a share of the users, the cache is ``scaled``.
        cache: its options.
        invalidates: whether an event drops the answers to its user.
        negative: bool [kinds]: whether the answer to each of ``traffic.requests`` says that nothing is known of the user.
    """
    clock = VirtualClock()
    entries = Entries(scaled(cache, traffic.share), clock, random.Random(SEED))
    made = np.arange(traffic.size)
    keys, empty = _keys(traffic.requests), negative.tolist()
    forgotten = traffic.users_before() if invalidates else [[]] * traffic.size
    for number, (time, kind) in enumerate(zip(traffic.time.tolist(), traffic.kind.tolist(), strict=True)):
        for user in forgotten[number]:
            entries.forget(user)
        clock.now = time
        found = entries.get(keys[kind])
        if found is not None:
            made[number] = found.answer
        if found is None or found.stale:
            entries.put(keys[kind], number, entries.generation, negative=empty[kind])
    counts = entries.counts
    return Outcome(counts.hits, counts.stale, counts.misses, counts.evicted, made)


def _keys(requests: Sequence[Request]) -> list[Key]:
    return [
        key_of(check_arguments(one.user_id, one.k, one.history, one.exclude, context=one.context), BUNDLE)
        for one in requests
    ]
