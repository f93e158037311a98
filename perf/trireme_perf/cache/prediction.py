"""What a cache would bring and cost by its TTL and its size, and the TTL to be proposed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trireme_client.cache.options import Cache
from trireme_perf.cache.quality import Quality
from trireme_perf.cache.simulation import Costs, simulate
from trireme_perf.cache.traffic import Traffic

__all__ = ["ATTAINABLE", "MOST_LOST", "TTLS", "Forecast", "Prediction", "propose"]

TTLS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
#: Share of the attainable savings that a proposed TTL has, and of NDCG@10 that it loses at most.
ATTAINABLE, MOST_LOST = 0.95, 0.005
SMALLEST, GROWTH = 10, 4


@dataclass(frozen=True)
class Prediction:
    """What a cache does with these options. Shares from 0 to 1."""

    ttl_s: float
    stale_s: float
    max_entries: int
    invalidates: bool
    """Whether an event drops the answers to its user."""
    hit_rate: float
    """Requests that did not wait for the server: ``stale_rate`` of all got an answer whose time was over."""
    stale_rate: float
    saved: float
    """CPU time of client and server."""
    ndcg_lost: float | None
    """None where there is nothing to judge by."""


@dataclass(frozen=True)
class Forecast:
    """Makes predictions from traffic. negative: see ``simulate``."""

    traffic: Traffic
    costs: Costs
    negative: NDArray[np.bool_]
    quality: Quality

    @property
    def policies(self) -> tuple[bool, ...]:
        """Whether events invalidate: both ways, where there are events."""
        return (True, False) if self.traffic.events.time.size else (False,)

    def predict(self, cache: Cache, invalidates: bool) -> Prediction:
        outcome = simulate(self.traffic, cache, invalidates, self.negative)
        return Prediction(
            cache.ttl_s,
            cache.stale_s,
            cache.max_entries,
            invalidates,
            outcome.hit_rate,
            outcome.stale / self.traffic.size,
            self.costs.saved(outcome),
            self.quality.lost(outcome.made) if self.quality.judges else None,
        )

    def by_ttl(self, ttls: Sequence[float] = TTLS) -> list[Prediction]:
        """Predicts every TTL, without stale answers and with as long a stale time as the TTL; ``ttls`` ascending.

        Of those that are longer than the traffic, only the first is predicted: no answer ends, so all of them do the same.
        """
        ttls = ttls[: bisect_left(ttls, self.traffic.seconds) + 1]
        return [
            self.predict(Cache(ttl_s=ttl, stale_s=stale * ttl), invalidates)
            for invalidates in self.policies
            for stale in (0, 1)
            for ttl in ttls
        ]

    def by_size(self, cache: Cache, invalidates: bool) -> list[Prediction]:
        """Predicts sizes from ten answers to one for each different request of the whole traffic."""
        different = np.unique(self.traffic.kind).size / self.traffic.share
        sizes = [SMALLEST]
        while sizes[-1] < different:
            sizes.append(sizes[-1] * GROWTH)
        options = (Cache(ttl_s=cache.ttl_s, stale_s=cache.stale_s, max_entries=size) for size in sizes)
        return [self.predict(one, invalidates) for one in options]


def propose(predictions: Sequence[Prediction]) -> Prediction | None:
    """Returns the one of the shortest TTL that has 95 % of the savings attainable with at most 0.5 % of NDCG@10 lost.

    Without a figure for NDCG@10, all are taken to lose nothing. None if nothing is saved in these limits.

    Args:
        predictions: for one policy, without stale answers.
    """
    kept = [one for one in predictions if (one.ndcg_lost or 0.0) <= MOST_LOST]
    most = max((one.saved for one in kept), default=0.0)
    good = [one for one in kept if one.saved >= ATTAINABLE * most]
    return min(good, key=lambda one: one.ttl_s) if most > 0 else None
