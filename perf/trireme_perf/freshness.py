"""How soon an event is in an answer while many others are on their way: through stream, store and server."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from trireme_client import Client, Tracker
from trireme_perf.errors import PerfError
from trireme_perf.load.arrivals import poisson_arrivals
from trireme_perf.stats.percentiles import percentile, reported_p99

__all__ = ["Freshness", "measure_freshness", "wait_for_event"]

#: From here on, ids are of users who are made up, so that nobody's record is changed.
MADE_UP = 2**62
#: Of the events that nobody waits for.
USERS = 10_000
#: Seconds after which an event counts as lost, and between two questions for the same one.
LOST_S, ASK_S = 10.0, 0.001


@dataclass(frozen=True)
class Freshness:
    """Times in ms, from ``Tracker.track`` to the arrival of the first answer that knows the event."""

    rate: float
    """Events per second, those apart that were waited for."""
    events: int
    probes: int
    """Events that were waited for, one after the other."""
    p50_ms: float
    p99_ms: float | None
    """None of fewer than a hundred probes."""
    max_ms: float


def measure_freshness(client: Client, tracker: Tracker, rate: float, seconds: float) -> Freshness:
    """Sends events of made-up users for some seconds, and asks for one such user after the other until the answer has changed.

    Raises:
        PerfError: an event is in no answer for ten seconds, or events were dropped.
        trireme_client.TriremeError: the server cannot be asked.
    """
    first_user = MADE_UP + time.time_ns()  # other ones than those of an earlier run, whose records may still be there
    item = int(client.recommend(first_user, k=1).item_ids[0])
    load = threading.Thread(target=_send, args=(tracker, first_user - USERS, rate, seconds), daemon=True)
    load.start()
    waits: list[float] = []
    while load.is_alive():
        waits.append(wait_for_event(client, tracker, first_user + len(waits), item))
    if tracker.dropped:
        raise PerfError(f"{tracker.dropped} events were dropped: Redis does not take {rate:g} events per second")
    times = 1000 * np.array(waits, dtype=np.float64)
    return Freshness(
        rate, round(rate * seconds), times.size, percentile(times, 50), reported_p99(times), float(times.max())
    )


def _send(tracker: Tracker, first_user: int, rate: float, seconds: float) -> None:
    rng = np.random.default_rng(0)
    start = time.monotonic()
    for moment in poisson_arrivals(rate, seconds, rng).tolist():
        if (early := start + moment - time.monotonic()) > 0:
            time.sleep(early)
        tracker.track(first_user + int(rng.integers(USERS)), int(rng.integers(USERS)))


def wait_for_event(client: Client, tracker: Tracker, user: int, item: int) -> float:
    """Has ``user`` take ``item``, the best of their list, and returns the seconds until an answer leaves it out.

    Raises:
        PerfError: none does for ten seconds.
    """
    start = time.perf_counter()
    tracker.track(user, item)
    while item in client.recommend(user, k=1).item_ids:
        if time.perf_counter() - start > LOST_S:
            raise PerfError(
                f"an event was in no answer for {LOST_S:g} s; it takes a server with --features, and `trireme ingest run` with "
                "the same address and stream"
            )
        time.sleep(ASK_S)
    return time.perf_counter() - start
