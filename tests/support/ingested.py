"""Events, what a store must hold after them, and what it holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from redis import Redis

from trireme_ingest.events import Event
from trireme_runtime.bundle import Manifest
from trireme_runtime.features.record import FRESH, RecordLayout, user_key
from trireme_runtime.schema import Dims

__all__ = ["DIMS", "LAYOUT", "NAMESPACE", "Histories", "add", "expected", "held", "write_sizes"]

NAMESPACE = "shop"
DIMS = Dims(history=8, candidates=5, list_length=3, query=2, category=1, number=3, catalogue=9)
LAYOUT = RecordLayout.of(DIMS)

#: By user, items and times in ms, oldest first.
Histories = dict[int, list[tuple[int, int]]]


def write_sizes(repository: Path, dims: Dims = DIMS) -> Path:
    """Writes as much of a model repository as tells the sizes of its bundle."""
    version = repository / "recommend" / "1"
    version.mkdir(parents=True)
    (version / "manifest.json").write_text(Manifest("sizes-1", 1, "fused", "cpu", dims, {}, {}).to_json())
    return repository


def add(redis: Redis, stream: str, events: Sequence[Event], **more: str) -> list[bytes]:
    """Adds events to a stream, each with ``more`` fields; returns the ids of the entries."""
    pipeline = redis.pipeline(transaction=False)
    for event in events:
        pipeline.xadd(stream, {"user": event.user, "item": event.item, "time": event.time_ms, **more})
    return pipeline.execute()


def expected(events: Iterable[Event], length: int = DIMS.history) -> Histories:
    """What the records must be after these events, in whatever order: the newest distinct ones of each user."""
    of_user = defaultdict(set)
    for event in events:
        of_user[event.user].add((event.time_ms, event.item))
    return {user: [(item, time) for time, item in sorted(own)[-length:]] for user, own in of_user.items()}


def held(redis: Redis, users: Iterable[int], layout: RecordLayout = LAYOUT) -> Histories:
    """What the records of these users are; those without one are left out."""
    histories = {}
    for user in users:
        value = redis.get(user_key(NAMESPACE, user))
        if value is None:
            continue
        records, state = layout.decode([value])  # type: ignore[list-item]
        assert state.tolist() == [FRESH]
        first = layout.history - int(records["count"][0])
        columns = (records[name][0, first:].tolist() for name in ("history", "time_ms"))
        histories[user] = list(zip(*columns, strict=True))
    return histories
