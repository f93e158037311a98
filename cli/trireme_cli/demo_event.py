"""The section of ``trireme demo`` in which something that a user does changes the next answer."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from trireme_cli.ingest import open_records
from trireme_cli.output import console, results, warn
from trireme_cli.recommend import recommendations_table

__all__ = ["show_event"]

#: Longer than by default: the machine does everything at once.
TIMEOUT_MS = 50
STREAM = "trireme:events"


def show_event(repository: Path, user: int, titles: Mapping[int, str]) -> None:
    """Serves ``repository`` with a feature store, has ``user`` take the best item of their list, and prints the next answer; says
    what is missing where there is no ``redis-server``."""
    from trireme_client import Client, Tracker
    from trireme_perf.errors import PerfError
    from trireme_perf.features.redis_process import find_program, redis_process
    from trireme_perf.freshness import wait_for_event
    from trireme_perf.repositories import copy_repository, set_instances
    from trireme_server import TritonServer

    try:
        find_program("redis-server")
    except PerfError as error:
        console.print(f"skipped: {error}", markup=False)
        return
    with tempfile.TemporaryDirectory() as folder, redis_process() as url:
        store = f"{url}?timeout_ms={TIMEOUT_MS}"
        copy = copy_repository(repository, Path(folder) / "repository")
        set_instances(copy, 1)  # fewer processes start sooner
        with (
            TritonServer(copy, grpc_port=0, http_port=0, metrics_port=0, stop_grace_s=0.0, features=store) as server,
            _events_applied(store, repository),
            Client(server.grpc_url) as client,
            Tracker(url, stream=STREAM) as tracker,
        ):
            item = int(client.recommend(user, 1).item_ids[0])
            wait_s = wait_for_event(client, tracker, user, item)
            what = f"{item} ({titles[item]})" if item in titles else str(item)
            console.print(f"user {user} takes {what}: {1000 * wait_s:.0f} ms later, the answer is", markup=False)
            results.print(recommendations_table(client.recommend(user, 5), titles))


@contextmanager
def _events_applied(store: str, repository: Path) -> Iterator[None]:
    """What ``trireme ingest run`` does, in a thread."""
    from prometheus_client import CollectorRegistry

    from trireme_ingest.consumer import Consumer, Schedule
    from trireme_ingest.metrics import Progress
    from trireme_ingest.stream import EventStream

    stop = threading.Event()
    with open_records(store, repository, retention_days=1.0) as (connection, records):
        stream = EventStream(connection, STREAM, "trireme", "demo")
        consumer = Consumer(stream, records, Progress(CollectorRegistry()), Schedule(block_ms=100), warn)
        thread = threading.Thread(target=consumer.run, args=(stop,), name="ingest", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
