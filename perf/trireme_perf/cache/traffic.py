"""Requests in the order of time: derived from the events of a data set, or made up by Zipf's law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trireme_client import Request
from trireme_perf.cache.events import Events, group_events
from trireme_perf.errors import PerfError

__all__ = ["Traffic", "requests_before_events", "sample_users", "zipf_requests"]

#: Requests before an event, on average, and the longest time before it in which they come.
BEFORE_EVENT, LONGEST_S = 3.0, 1800.0
#: Items that are asked for.
K = 10


@dataclass(frozen=True)
class Traffic:
    """n requests in ascending time, and the events that happen meanwhile."""

    time: NDArray[np.float64]
    """float64 [n], seconds."""
    kind: NDArray[np.int64]
    """int64 [n]: which of ``requests`` is asked."""
    requests: Sequence[Request]
    """Each different one once."""
    events: Events
    share: float = 1.0
    """Of the users of the whole traffic that these are."""

    @property
    def size(self) -> int:
        """n."""
        return int(self.time.size)

    @property
    def seconds(self) -> float:
        """From the first request to the last."""
        return float(self.time[-1] - self.time[0])

    @property
    def user_id(self) -> NDArray[np.int64]:
        """int64 [n], −1 for anonymous users."""
        return np.array(_users(self.requests), dtype=np.int64)[self.kind]

    def users_before(self) -> list[list[int]]:
        """Returns, for each request, the users who had an event since the request before it."""
        before: list[list[int]] = [[] for _ in range(self.size)]
        order = np.argsort(self.events.time, kind="stable")
        places = np.searchsorted(self.time, self.events.time[order], side="left")
        for place, user in zip(places.tolist(), self.events.user_id[order].tolist(), strict=True):
            if place < self.size:
                before[place].append(user)
        return before

    def halves(self) -> tuple[Traffic, Traffic]:
        """Returns what comes before the middle of the time, and what comes after.

        Raises:
            PerfError: there is nothing in one of them.
        """
        middle = float(self.time[0] + self.time[-1]) / 2 if self.size else 0.0
        early = self.time < middle
        if not early.any() or early.all():
            raise PerfError(f"{self.size} requests are too few: both halves of the time need some")
        first = Traffic(self.time[early], self.kind[early], self.requests, self.events.until(middle), self.share)
        second = Traffic(self.time[~early], self.kind[~early], self.requests, self.events.since(middle), self.share)
        return first, second


def requests_before_events(events: Events, rng: np.random.Generator) -> Traffic:
    """Derives requests of known users: before every event Poisson(3) of them, spread evenly over the time since the user's last
    event, or over half an hour if that is longer.

    Raises:
        PerfError: no request was drawn.
    """
    gap = np.where(events.first, LONGEST_S, np.minimum(np.diff(events.time, prepend=0.0), LONGEST_S))
    count = rng.poisson(BEFORE_EVENT, gap.size)
    back = np.repeat(gap, count) * (1.0 - rng.random(int(count.sum())))  # above 0: a request comes before its event
    time, user = np.repeat(events.time, count) - back, np.repeat(events.user_id, count)
    return _of_users(time, user, events)


def zipf_requests(
    user_ids: NDArray[np.int64], exponent: float, rate: float, requests: int, rng: np.random.Generator
) -> Traffic:
    """Makes up requests without events: a Poisson process, in which the n-th of the users, in random order, asks in proportion to
    1 / n^exponent.

    Args:
        user_ids: int64 [users].
        rate: requests per second.
    """
    weight = np.arange(1, user_ids.size + 1, dtype=np.float64) ** -exponent
    user = rng.choice(rng.permutation(user_ids), requests, p=weight / weight.sum())
    nothing = group_events(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
    return _of_users(np.cumsum(rng.exponential(1 / rate, requests)), user, nothing)


def sample_users(traffic: Traffic, most: int, rng: np.random.Generator) -> Traffic:
    """Returns the traffic of some of the users, drawn by chance, so that at most about ``most`` requests are left.

    All requests of a user stay, so that they repeat as they did; a cache of a size that is smaller by the same share then has as
    many hits as that of all (Waldspurger, Park, Garthwaite, Ahmad, Efficient MRC Construction with SHARDS, FAST 2015).
    """
    share = most / max(1, traffic.size)
    if share >= 1:
        return traffic
    # Anonymous users are told apart by what they ask for.
    who = [(-1, place) if user == -1 else (user, 0) for place, user in enumerate(_users(traffic.requests))]
    drawn = {each: rng.random() < share for each in dict.fromkeys(who)}
    kept = np.array([drawn[each] for each in who], dtype=bool)[traffic.kind]
    events = traffic.events
    known = np.array([drawn.get((user, 0), False) for user in events.user_id.tolist()], dtype=bool)
    return Traffic(traffic.time[kept], traffic.kind[kept], traffic.requests, events.take(known), traffic.share * share)


def _users(requests: Sequence[Request]) -> list[int]:
    return [request.user_id if isinstance(request.user_id, int) else -1 for request in requests]


def _of_users(time: NDArray[np.float64], user: NDArray[np.int64], events: Events) -> Traffic:
    order = np.argsort(time, kind="stable")
    distinct, kind = np.unique(user[order], return_inverse=True)
    if not distinct.size:
        raise PerfError("there are no requests: too few events")
    return Traffic(time[order], kind, [Request(one, K) for one in distinct.tolist()], events)
