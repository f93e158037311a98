"""What supervisors count, for Prometheus; the servers publish their own metrics, and lose them when they die."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from trireme_server.health import Readiness

__all__ = ["SupervisorMetrics"]

SERVER, INSTANCE = "tritonserver", "instance"


class SupervisorMetrics(Collector):
    """Counts restarts, and asks the replicas at each scrape. Safe to share between threads.

    Args:
        replicas: of each server.
        now: seconds since 1970.
    """

    def __init__(self, replicas: Sequence[Readiness], now: Callable[[], float] = time.time) -> None:
        self._replicas = replicas
        self._now = now
        self._lock = threading.Lock()
        self._restarts = Counter({(SERVER, ""): 0})
        self._last_death_s: float | None = None

    def died(self) -> None:
        """Notes that a server or a stub has ended that nobody asked to."""
        with self._lock:
            self._last_death_s = self._now()

    def server_restarted(self) -> None:
        """Notes that a server is ready again."""
        with self._lock:
            self._restarts[SERVER, ""] += 1

    def instances_replaced(self, model: str, count: int) -> None:
        """Notes that instances of a model were made anew; 0 makes the series begin, for Prometheus to see the first one."""
        with self._lock:
            self._restarts[INSTANCE, model] += count

    def collect(self) -> Iterable[Metric]:
        """Yields the metrics of this moment; asks tritonserver whether it is ready."""
        restarts = CounterMetricFamily(
            "trireme_restarts", "Servers started again and instances replaced", labels=["what", "model"]
        )
        with self._lock:
            for labels, count in self._restarts.items():
                restarts.add_metric(labels, count)
            last = self._last_death_s
        yield restarts
        reasons = [replica.why_not() for replica in self._replicas]
        yield GaugeMetricFamily("trireme_replicas", "Servers on the gRPC port", len(reasons))
        yield GaugeMetricFamily("trireme_replicas_ready", "Those that are ready", reasons.count(None))
        down = sum(len(replica.models_down) for replica in self._replicas)
        yield GaugeMetricFamily("trireme_models_down", "Models of which no instance works, over all replicas", down)
        if last is not None:
            yield GaugeMetricFamily("trireme_last_death_timestamp_seconds", "When a process ended by itself", last)

    def page(self) -> bytes:
        """Returns what a scrape gets."""
        return generate_latest(self)
