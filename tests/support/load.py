"""Callers of a served model that ask at a steady rate and publish what they waited, as a Prometheus target."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Histogram, start_http_server

from trireme_client import Client, TriremeError

BOUNDS_S = (
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    0.75,
    1,
    2,
    5,
)


class Waited:
    """The histogram of the callers, under the names and labels that the client's telemetry gives it."""

    def __init__(self, model: str, slo_s: float) -> None:
        registry = CollectorRegistry()
        histogram = Histogram(
            "trireme_client_request_duration_seconds",
            "What a caller waited",
            ["trireme_model", "trireme_slo"],
            buckets=BOUNDS_S,
            registry=registry,
        )
        self._slo_s = slo_s
        self._kept, self._missed = histogram.labels(model, "kept"), histogram.labels(model, "missed")
        self._server, self._thread = start_http_server(0, "127.0.0.1", registry)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def observe(self, seconds: float, failed: bool) -> None:
        (self._missed if failed or seconds > self._slo_s else self._kept).observe(seconds)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Load:
    """So many callers of one client, each asking for one of the ``users`` ``rate`` times a second, in a ``with`` block.

    Whoever waits longer than his turn leaves out what he is late for: a slow server is asked less, not ever more.
    """

    def __init__(self, url: str, model: str, users: Sequence[int], slo_s: float, callers: int, rate: float) -> None:
        self.waited = Waited(model, slo_s)
        self._client = Client(url, model=model)
        self._users = users
        self._period_s = 1 / rate
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(callers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._client.close()
        self.waited.close()

    def _ask(self, number: int) -> None:
        while not self._stopping.wait(self._period_s - time.perf_counter() % self._period_s):
            number += 1
            start = time.perf_counter()
            failed = self._is_refused(self._users[number % len(self._users)])
            self.waited.observe(time.perf_counter() - start, failed)

    def _is_refused(self, user: int) -> bool:
        try:
            self._client.recommend(user)
        except TriremeError:
            return True
        return False
