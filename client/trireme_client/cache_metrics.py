"""Metrics of what clients' caches give, how old it is, how long Redis takes to be read, and whether answers are kept at all.

Needs opentelemetry-api, as ``spans``, which makes this.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from .recorder import CacheState, WatchedCache

LOOKUPS, AGE, DROPPED = (f"trireme.client.cache.{name}" for name in ("lookups", "age", "dropped"))
READ, CLIENTS, ENTRIES = (f"trireme.client.cache.{name}" for name in ("read.duration", "clients", "entries"))
MODEL, CACHE, REASON, STATE = "trireme.model", "trireme.cache", "trireme.cache.reason", "trireme.cache.state"

# By the metric and the label that tells its values apart: each value, and how it follows from a cache's counts.
_COUNTED: Mapping[tuple[str, str], Mapping[str, Callable[[Any], float]]] = {
    (LOOKUPS, CACHE): {
        "hit": lambda counts: counts.hits,
        "stale": lambda counts: counts.stale,
        "store": lambda counts: counts.store_hits,
        "shared": lambda counts: counts.shared,
        "miss": lambda counts: max(0, counts.misses - counts.store_hits - counts.shared),
    },
    (AGE, CACHE): {
        "hit": lambda counts: counts.hits_age_s,
        "stale": lambda counts: counts.stale_age_s,
        "store": lambda counts: counts.store_age_s,
    },
    (DROPPED, REASON): {
        "refused": lambda counts: counts.refused,
        "invalidated": lambda counts: counts.invalidated,
        "evicted": lambda counts: counts.evicted,
    },
}
_ABOUT = {
    LOOKUPS: ("{lookup}", "Looks for an answer in caches, by what was there"),
    AGE: ("s", "Ages of all answers that were given out of caches, added up"),
    DROPPED: ("{answer}", "Answers that were not kept, or no longer, though their time was not over"),
}

_READS_S = (0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 1)

Totals = dict[tuple[str, str, str], float]


class CacheMetrics:
    """The instruments of one Telemetry. What caches count is read when metrics are: a hit pays nothing for it.

    Attributes:
        read: how long calls waited for Redis.
    """

    def __init__(self, meter: Meter) -> None:
        self._lock = threading.Lock()
        self._models: WeakKeyDictionary[WatchedCache, str] = WeakKeyDictionary()
        self._seen: WeakKeyDictionary[WatchedCache, Totals] = WeakKeyDictionary()
        self._totals: Totals = {}  # of caches that are gone as well: these never fall
        self.read = meter.create_histogram(
            READ,
            unit="s",
            description="How long a call waited for the answers that processes share",
            explicit_bucket_boundaries_advisory=_READS_S,
        )
        for (metric, label), values in _COUNTED.items():
            unit, about = _ABOUT[metric]
            meter.create_observable_counter(metric, [self._counter(metric, label, values)], unit, about)
        meter.create_observable_gauge(
            CLIENTS, [self._states], "{client}", "Open clients by whether their cache keeps answers"
        )
        meter.create_observable_gauge(ENTRIES, [self._entries], "{answer}", "Answers that open clients keep")

    def watch(self, cache: WatchedCache, model: str) -> None:
        """Reports what a cache does until nobody holds it any more, and what it keeps until its client is closed."""
        with self._lock:
            self._models[cache] = model

    def _counter(
        self, metric: str, label: str, values: Mapping[str, Callable[[Any], float]]
    ) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            with self._lock:
                for cache, model in self._models.items():
                    self._add(cache, {(metric, model, value): of(cache.counts) for value, of in values.items()})
                found = [(key, total) for key, total in self._totals.items() if key[0] == metric]
            for (_, model, value), total in found:
                yield Observation(total, {MODEL: model, label: value})

        return observe

    def _add(self, cache: WatchedCache, now: Totals) -> None:
        """Adds what a cache has counted since it was last looked at."""
        seen = self._seen.setdefault(cache, {})
        for key, count in now.items():
            self._totals[key] = self._totals.get(key, 0) + max(0, count - seen.get(key, 0))
        seen |= now

    def _open(self) -> list[tuple[WatchedCache, str]]:
        with self._lock:
            return [(cache, model) for cache, model in self._models.items() if not cache.closed]

    def _states(self, options: CallbackOptions) -> Iterator[Observation]:
        found = Counter((model, cache.state) for cache, model in self._open())
        for model in dict.fromkeys(model for model, _ in found):
            for state in get_args(CacheState):
                yield Observation(found[model, state], {MODEL: model, STATE: state})

    def _entries(self, options: CallbackOptions) -> Iterator[Observation]:
        kept: Counter[str] = Counter()
        for cache, model in self._open():
            kept[model] += cache.counts.entries
        for model, answers in kept.items():
            yield Observation(answers, {MODEL: model})
