"""What a consumer has done, for people and for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as PrometheusCounter

__all__ = ["OUTCOMES", "Progress"]

#: What can become of an event.
OUTCOMES = {
    "applied": "written to the record of its user",
    "late": "written, though the record held a later one",
    "duplicate": "in the record already",
    "old": "left out: the record is full of later ones",
    "forgotten": "left out: the user was forgotten after it",
    "negative": "left out: by its label, the user did not take the item",
    "dead": "no event; in the stream of dead letters, with the reason",
    "trimmed": "removed from the stream before it could be applied",
}
#: From the moment that an event was added to the stream to the moment that its record was written, in s.
DELAYS_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600)


class Progress:
    """Counts since the start; the same in Prometheus's metrics of ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.outcomes: Counter[str] = Counter()
        self.lag_s = 0.0
        self._events = PrometheusCounter(
            "trireme_ingest_events_total", "Events by what became of them", ["outcome"], registry=registry
        )
        for outcome in OUTCOMES:
            self._events.labels(outcome)
        self._delay = Histogram(
            "trireme_ingest_delay_seconds", "From the stream to the record", buckets=DELAYS_S, registry=registry
        )
        self._lag_gauge = Gauge(
            "trireme_ingest_lag_seconds", "Age of the oldest entry that the group has not done", registry=registry
        )
        self._pending = Gauge(
            "trireme_ingest_pending_events", "Entries that the group was given and has not done", registry=registry
        )
        self._conflicts = PrometheusCounter(
            "trireme_ingest_conflicts_total", "Records that another consumer changed meanwhile", registry=registry
        )
        self._corrupt = PrometheusCounter(
            "trireme_ingest_corrupt_total", "Records that could not be read, and were replaced", registry=registry
        )
        self._failures = PrometheusCounter(
            "trireme_ingest_failures_total", "Times that Redis could not be used", registry=registry
        )

    @property
    def events(self) -> int:
        """All events that something became of."""
        return self.outcomes.total()

    def add(self, outcomes: Mapping[str, int]) -> None:
        """Counts events by what became of them."""
        for outcome, number in outcomes.items():
            self.outcomes[outcome] += number
            self._events.labels(outcome).inc(number)

    def written(self, conflicts: int, corrupt: int) -> None:
        """Counts records that had to be merged again, and those that could not be read."""
        self._conflicts.inc(conflicts)
        self._corrupt.inc(corrupt)

    def delayed(self, seconds: list[float]) -> None:
        """Notes how long the entries of a batch took."""
        for one in seconds:
            self._delay.observe(one)

    def behind(self, lag_s: float, pending: int) -> None:
        """Notes how far the group is behind."""
        self.lag_s = lag_s
        self._lag_gauge.set(lag_s)
        self._pending.set(pending)

    def failed(self) -> None:
        """Notes that Redis could not be used."""
        self._failures.inc()
