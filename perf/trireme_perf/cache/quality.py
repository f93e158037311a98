"""What old answers cost in NDCG@10: the list that a user got, beside the one that would have been computed for them then.

What is right for a request is what its user takes next. A list counts as it is: items that the user took after it was made are in
it, and right only if the user takes them again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trireme_export.evaluation import hits, ndcg_at_k
from trireme_perf.cache.events import Events
from trireme_perf.cache.traffic import Traffic
from trireme_runtime.arrays import lookup, ragged_rows

__all__ = ["Lists", "Quality", "histories_at", "next_events"]

PLACES = 10

#: Returns lists for histories, int64 [users, L], the newest item last, −1 is padding: item ids int64 [users, K].
Lists = Callable[[NDArray[np.int64]], NDArray[np.int64]]


def next_events(traffic: Traffic) -> NDArray[np.int64]:
    """Returns which event of its user comes next after each request, int64 [n]; −1 where there is none."""
    events = traffic.events
    of_event = np.arange(events.time.size + traffic.size) < events.time.size
    time, user = np.append(events.time, traffic.time), np.append(events.user_id, traffic.user_id)
    order = np.lexsort((~of_event, time, user))  # at one moment, the event comes first
    before = np.zeros(order.size, dtype=np.int64)
    before[order] = np.cumsum(of_event[order])
    place = before[~of_event]
    there = place < events.time.size
    there[there] = events.user_id[place[there]] == traffic.user_id[there]
    return np.where(there, place, -1)


def histories_at(events: Events, places: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Returns what the users of the events at ``places`` (int [n]) took before these: int64 [n, length], see ``Lists``."""
    start = events.offsets[np.searchsorted(events.user_id, events.user_id[places])]
    position = events.offsets[places][:, None] - np.arange(length, 0, -1)
    valid = position >= start[:, None]
    return np.where(valid, events.items[np.where(valid, position, 0)], -1)


class Quality:
    """NDCG@10 of lists of whatever age, at the requests of traffic that an event of their user follows.

    Args:
        traffic: requests and events.
        lists: of the funnel; computed for all users at all their requests.
        length: of the histories that it reads.
    """

    def __init__(self, traffic: Traffic, lists: Lists, length: int) -> None:
        events = traffic.events
        self._offsets = events.offsets
        catalogue, self._items = np.unique(events.items, return_inverse=True)
        self._next = next_events(traffic)
        asked = self._next[self._next >= 0]
        # Events before which a request came, and what was listed then, as positions in the catalogue; −1 for other items.
        self._places = np.unique(asked)
        found = lists(histories_at(events, self._places, length)) if asked.size else np.zeros((0, PLACES), np.int64)
        self._lists = lookup(catalogue, found[:, :PLACES])
        self._total = float(self._ndcg(asked, asked).sum())

    @property
    def judges(self) -> bool:
        """Whether there is anything to be lost: a list that foresaw an event."""
        return self._total > 0

    def lost(self, made: NDArray[np.int64]) -> float:
        """Returns the share of NDCG@10 that is lost, if there is anything to be lost; below 0 if old lists were better.

        Args:
            made: int64 [n], the request for which the list was computed that each request got.
        """
        old, now = self._next[made], self._next
        aged = np.flatnonzero((now >= 0) & (old != now))
        difference = self._ndcg(now[aged], now[aged]) - self._ndcg(old[aged], now[aged])
        return float(difference.sum()) / self._total

    def _ndcg(self, listed: NDArray[np.int64], judged: NDArray[np.int64]) -> NDArray[np.float64]:
        """The lists right before the events ``listed``, by the items of the events ``judged``: float64 [rows]."""
        user, item = ragged_rows(self._offsets, self._items, judged)
        counts = np.bincount(user, minlength=judged.size)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        ranked = self._lists[np.searchsorted(self._places, listed)]
        return ndcg_at_k(hits(ranked, offsets, item), counts, PLACES)
