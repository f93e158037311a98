"""Callers of a served model that ask at a steady rate and publish what they waited, as a Prometheus target."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, start_http_server

from trireme_client import Cache, Client, Telemetry, TriremeError


class Load:
    """Callers of one client, each asking for one of the ``users`` ``rate`` times a second, in a ``with`` block.

    They ask in turns, evenly spread. A caller who waits for an answer leaves out the turns that pass meanwhile: a slow server is
    asked less often.

    With a ``cache``, another client that keeps answers asks for one of the users twice, twice a second.
    """

    def __init__(
        self, url: str, model: str, users: Sequence[int], callers: int, rate: float, cache: Cache | None = None
    ) -> None:
        registry = CollectorRegistry()
        self._meters = MeterProvider([PrometheusMetricReader(registry=registry)])
        self._metrics, self._publishing = start_http_server(0, "127.0.0.1", registry)
        telemetry = Telemetry(meter_provider=self._meters)
        self._client = Client(url, model=model, telemetry=telemetry)
        self._users = users
        self._period_s = 1 / rate
        self._apart_s = self._period_s / callers
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(callers)]
        self._keeping = Client(url, model=model, telemetry=telemetry, cache=cache) if cache else None
        if self._keeping is not None:
            self._threads.append(threading.Thread(target=self._ask_twice, args=(self._keeping,), daemon=True))

    @property
    def target(self) -> str:
        """``host:port`` that Prometheus may scrape."""
        return f"127.0.0.1:{self._metrics.server_port}"

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._client.close()
        if self._keeping is not None:
            self._keeping.close()
        self._meters.shutdown()
        self._metrics.shutdown()
        self._metrics.server_close()
        self._publishing.join()

    def _ask(self, number: int) -> None:
        offset_s = number * self._apart_s
        while not self._stopping.wait(self._period_s - (time.perf_counter() - offset_s) % self._period_s):
            number += 1
            with suppress(TriremeError):  # the client counts it as missed
                self._client.recommend(self._users[number % len(self._users)])

    def _ask_twice(self, client: Client) -> None:
        for user in itertools.cycle(self._users):
            if self._stopping.wait(0.5):
                return
            for _ in range(2):
                with suppress(TriremeError):
                    client.recommend(user)
