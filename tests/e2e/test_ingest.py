"""Consumers of a stream in a real Redis: what is applied, in which order, and what happens when something dies in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis

from tests.support.ingested import DIMS, LAYOUT, NAMESPACE, add, expected, held
from tests.support.redis_cluster import RedisCluster, redis_cluster
from tests.support.redis_server import RedisServer
from tests.support.serving import eventually
from trireme_ingest.connection import connected
from trireme_ingest.consumer import Consumer, Schedule
from trireme_ingest.events import Event
from trireme_ingest.metrics import Progress
from trireme_ingest.records import Records
from trireme_ingest.stream import EventStream, Lag
from trireme_runtime.features.address import StoreAddress
from trireme_runtime.features.record import RecordLayout, user_key

NOW_MS = round(time.time() * 1000)
HOUR_MS = 3_600_000
STREAM = "events"
#: Looks around before every read, so that nothing waits.
SCHEDULE = Schedule(batch=100, block_ms=10, idle_ms=HOUR_MS, housekeeping_s=0.0)


def records(redis: Redis, layout: RecordLayout = LAYOUT) -> Records:
    return Records(redis, layout, NAMESPACE, HOUR_MS)


class Running:
    """A consumer in a thread."""

    def __init__(self, redis: Redis, name: str = "one", schedule: Schedule = SCHEDULE) -> None:
        self.registry = CollectorRegistry()
        self.progress = Progress(self.registry)
        self.told: list[str] = []
        self.stop = threading.Event()
        stream = EventStream(redis, STREAM, "trireme", name)
        consumer = Consumer(stream, records(redis), self.progress, schedule, self.told.append)
        self.thread = threading.Thread(target=consumer.run, args=(self.stop,), daemon=True)

    def wait(self, events: int) -> None:
        assert eventually(lambda: self.progress.events >= events), (self.progress.outcomes, self.told)


@contextmanager
def running(redis: Redis, name: str = "one", schedule: Schedule = SCHEDULE) -> Iterator[Running]:
    one = Running(redis, name, schedule)
    one.thread.start()
    try:
        yield one
    finally:
        one.stop.set()
        one.thread.join(10)
    assert not one.thread.is_alive()


def at(seconds: int, user: int = 7, item: int = 1) -> Event:
    return Event(user, item, NOW_MS - HOUR_MS + 1000 * seconds)


def test_events_join_histories_in_the_order_of_their_times(redis: Redis) -> None:
    events = [at(10, item=3), at(20, item=4), at(5, item=5), at(20, item=4), at(30, user=8)]
    add(redis, STREAM, events)
    with running(redis) as one:
        one.wait(5)
    assert held(redis, (7, 8, 9)) == expected(events)
    assert [item for item, _ in held(redis, [7])[7]] == [5, 3, 4]
    assert one.progress.outcomes == {"applied": 4, "duplicate": 1}


def test_late_repeated_and_old_events_are_told_apart(redis: Redis) -> None:
    first = [at(second) for second in range(10, 10 + DIMS.history)]
    add(redis, STREAM, first)
    with running(redis) as one:
        one.wait(len(first))
        late, old = at(15, item=2), at(1)
        add(redis, STREAM, [late, first[-1], old])
        one.wait(len(first) + 3)
    assert held(redis, [7]) == expected([*first, late])
    assert one.progress.outcomes == {"applied": len(first), "late": 1, "duplicate": 1, "old": 1}


def test_what_is_no_positive_is_not_applied(redis: Redis) -> None:
    add(redis, STREAM, [at(1)], label="0")
    add(redis, STREAM, [at(2)], label="1")
    with running(redis) as one:
        one.wait(2)
    assert held(redis, [7]) == expected([at(2)])
    assert one.progress.outcomes == {"applied": 1, "negative": 1}


def test_what_is_no_event_is_kept_with_the_reason(redis: Redis) -> None:
    entry = redis.xadd(STREAM, {"user": "anna", "item": 1, "time": NOW_MS})
    add(redis, STREAM, [at(1)])
    with running(redis) as one:
        one.wait(2)
    assert one.progress.outcomes == {"applied": 1, "dead": 1}
    ((_, letter),) = redis.xrange(f"{STREAM}:dead")
    assert (letter[b"user"], letter[b"entry"]) == (b"anna", entry)
    assert letter[b"reason"].startswith(b"user is 'anna'; allowed: ")
    assert redis.xpending(STREAM, "trireme")["pending"] == 0


def test_dead_letters_are_bounded(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trireme_ingest.stream.DEAD_LETTERS", 100)
    pipeline = redis.pipeline()
    for _ in range(1000):
        pipeline.xadd(STREAM, {"no": "event"})
    pipeline.execute()
    with running(redis) as one:
        one.wait(1000)
    assert 100 <= redis.xlen(f"{STREAM}:dead") <= 300  # Redis removes whole nodes of 100


def test_the_features_of_a_user_stay(redis: Redis) -> None:
    before = LAYOUT.empty(1)
    before["encoding"], before["category"], before["number"] = 2**63, [[3]], [[0.5, -1.5]]
    redis.set(user_key(NAMESPACE, 7), before.tobytes())
    assert records(redis).apply([at(1)]).outcomes == {"applied": 1}
    after, _ = LAYOUT.decode([redis.get(user_key(NAMESPACE, 7))])
    for name in ("encoding", "category", "number"):
        assert after[name].tolist() == before[name].tolist()
    assert abs(int(after["written_ms"][0]) - time.time() * 1000) < 60_000


def test_a_record_that_cannot_be_read_is_replaced_and_counted(redis: Redis) -> None:
    redis.set(user_key(NAMESPACE, 7), b"\x00" * LAYOUT.dtype.itemsize)
    applied = records(redis).apply([at(1), at(2, user=8)])
    assert (applied.outcomes, applied.corrupt) == ({"applied": 2}, 1)
    assert held(redis, (7, 8)) == expected([at(1), at(2, user=8)])


def test_records_end_when_nothing_was_written_to_them_for_the_retention(redis: Redis) -> None:
    store = records(redis)
    store.apply([at(1)])
    redis.pexpire(user_key(NAMESPACE, 7), 1000)
    store.apply([at(1)])  # changes nothing
    assert redis.pttl(user_key(NAMESPACE, 7)) <= 1000
    store.apply([at(2)])
    assert HOUR_MS - 60_000 < redis.pttl(user_key(NAMESPACE, 7)) <= HOUR_MS


class Interrupted(Records):
    """Lets something happen once, after records were read and before they are written."""

    def __init__(self, redis: Redis, happens: Callable[[], Any]) -> None:
        super().__init__(redis, LAYOUT, NAMESPACE, HOUR_MS)
        self._happens: Callable[[], Any] | None = happens

    def _read(self, users: np.ndarray) -> Any:
        values = super()._read(users)
        if self._happens is not None:
            happens, self._happens = self._happens, None
            happens()
        return values


def test_a_record_that_another_consumer_changes_meanwhile_gets_the_events_of_both(redis: Redis) -> None:
    theirs, ours = [at(2, item=5)], [at(1), at(3), at(1, user=8)]
    applied = Interrupted(redis, lambda: records(redis).apply(theirs)).apply(ours)
    assert held(redis, (7, 8)) == expected(theirs + ours)
    assert (applied.conflicts, applied.outcomes) == (1, {"applied": 2, "late": 1})


def test_two_consumers_share_a_stream_and_users(redis: Redis, own_redis: RedisServer) -> None:
    rng = np.random.default_rng(0)
    events = [at(int(s), int(u), int(i)) for s, u, i in rng.integers((0, 0, 0), (3000, 20, 50), (4000, 3))]
    with own_redis.connect() as other, running(redis, "one") as one, running(other, "two") as two:
        add(redis, STREAM, events)
        assert eventually(lambda: one.progress.events + two.progress.events == len(events))
    assert held(redis, range(20)) == expected(events)
    assert redis.xpending(STREAM, "trireme")["pending"] == 0


def test_what_a_dead_consumer_left_is_taken_over(redis: Redis) -> None:
    add(redis, STREAM, [at(1), at(2)])
    gone = EventStream(redis, STREAM, "trireme", "gone")
    gone.prepare()
    assert len(gone.read(1, block_ms=1)) == 1
    with running(redis, "one", Schedule(block_ms=10, idle_ms=0, housekeeping_s=0.0)) as one:
        one.wait(2)
    assert held(redis, [7]) == expected([at(1), at(2)])
    assert redis.xpending(STREAM, "trireme")["pending"] == 0


def test_a_consumer_that_comes_back_goes_on_with_what_it_left(redis: Redis) -> None:
    """Also where its records were written, and only the acknowledgement is missing."""
    add(redis, STREAM, [at(1), at(2)])
    before = EventStream(redis, STREAM, "trireme", "one")
    before.prepare()
    assert len(before.read(2, block_ms=1)) == 2
    records(redis).apply([at(1)])
    with running(redis, "one") as one:
        one.wait(2)
    assert one.progress.outcomes == {"applied": 1, "duplicate": 1}
    assert held(redis, [7]) == expected([at(1), at(2)])


def test_entries_that_are_done_are_removed_and_no_others(redis: Redis) -> None:
    ids = add(redis, STREAM, [at(second) for second in range(1000)])
    stream = EventStream(redis, STREAM, "trireme", "one")
    stream.prepare()
    read = stream.read(900, block_ms=1)
    stream.done(read[:500], [])
    stream.trim(round(time.time() * 1000) + HOUR_MS)
    left = [entry for entry, _ in redis.xrange(STREAM)]
    assert set(ids[500:]) <= set(left)
    assert len(left) <= 600  # Redis removes whole nodes of 100
    stream.done(read[500:], [])
    redis.xgroup_create(STREAM, "another", id="0")
    stream.trim(round(time.time() * 1000) + HOUR_MS)
    assert [entry for entry, _ in redis.xrange(STREAM)] == left


def test_entries_stay_as_long_as_they_are_to_be_kept(redis: Redis) -> None:
    add(redis, STREAM, [at(second) for second in range(1000)])
    with running(redis) as one:
        one.wait(1000)
    assert redis.xlen(STREAM) == 1000


def test_the_lag_is_the_age_of_the_oldest_entry_that_is_not_done(redis: Redis) -> None:
    first, second, third = (redis.xadd(STREAM, {"n": n}, id=f"{ms}-0") for n, ms in enumerate((1000, 2000, 3000)))
    stream = EventStream(redis, STREAM, "trireme", "one")
    stream.prepare()
    assert stream.lag() == Lag(1000, 0)
    read = stream.read(2, block_ms=1)
    assert [entry.id for entry in read] == [first, second]
    assert stream.lag() == Lag(1000, 2)
    stream.done(read[:1], [])
    assert stream.lag() == Lag(2000, 1)
    stream.done(read[1:], [])
    assert stream.lag() == Lag(3000, 0)
    stream.done(stream.read(1, block_ms=1), [])
    assert stream.lag() == Lag(None, 0)
    assert third


def test_what_was_removed_before_it_could_be_applied_is_counted(redis: Redis) -> None:
    add(redis, STREAM, [at(1), at(2)])
    before = EventStream(redis, STREAM, "trireme", "one")
    before.prepare()
    (entry, _) = before.read(2, block_ms=1)
    redis.xdel(STREAM, entry.id)
    with running(redis, "one") as one:
        one.wait(2)
    assert one.progress.outcomes == {"applied": 1, "trimmed": 1}


def test_a_user_is_forgotten_and_comes_back_with_later_events_only(redis: Redis) -> None:
    store = records(redis)
    store.apply([at(1), at(2), at(1, user=8)])
    assert store.forget(7, at(2).time_ms)
    assert not store.forget(9, at(2).time_ms)
    assert held(redis, (7, 8)) == expected([at(1, user=8)])
    assert store.apply([at(1), at(2)]).outcomes == {"forgotten": 2}
    assert held(redis, [7]) == {}
    assert store.apply([at(1), at(3)]).outcomes == {"forgotten": 1, "applied": 1}
    assert held(redis, [7]) == expected([at(3)])


@pytest.mark.parametrize("known", [True, False])
def test_a_user_who_is_forgotten_while_events_are_applied_stays_forgotten(redis: Redis, known: bool) -> None:
    if known:
        records(redis).apply([at(1)])
    applied = Interrupted(redis, lambda: records(redis).forget(7, at(2).time_ms)).apply([at(2)])
    assert held(redis, [7]) == {}
    assert (applied.conflicts, applied.outcomes) == (1, {"forgotten": 1})


def test_a_consumer_goes_on_when_redis_is_back(redis: Redis, own_redis: RedisServer) -> None:
    with own_redis.connect() as own, running(own) as one:
        add(redis, STREAM, [at(1)])
        one.wait(1)
        own_redis.kill()
        assert eventually(lambda: bool(one.told))
        own_redis.start()
        add(redis, STREAM, [at(2)])
        one.wait(2)
        assert held(redis, [7]) == expected([at(1), at(2)])
        redis.flushall()  # takes the group with it
        add(redis, STREAM, [at(3)])
        one.wait(3)
        assert held(redis, [7]) == expected([at(3)])
    assert one.told[0].startswith("Redis cannot be used (")
    assert one.told.count("Redis answers again") == 2


def test_a_redis_that_does_not_answer_is_waited_for(redis: Redis, own_redis: RedisServer) -> None:
    with Redis.from_url(own_redis.url, socket_timeout=0.2, retry=None) as own, running(own) as one:
        add(redis, STREAM, [at(1)])
        one.wait(1)
        own_redis.freeze()
        assert eventually(lambda: bool(one.told))
        own_redis.thaw()
        add(redis, STREAM, [at(2)])
        one.wait(2)
    assert held(redis, [7]) == expected([at(1), at(2)])
    assert redis.xpending(STREAM, "trireme")["pending"] == 0


def is_up(cluster: RedisCluster) -> bool:
    """Whether all masters say that the cluster takes commands."""
    with ExitStack() as nodes:
        masters = [nodes.enter_context(cluster.connect(master)) for master in range(len(cluster.ports))]
        return all(master.cluster("info")["cluster_state"] == "ok" for master in masters)


def test_records_and_stream_may_be_in_a_cluster(tmp_path: Path) -> None:
    events = [at(second, user=second % 50) for second in range(200)]
    with (
        redis_cluster(tmp_path) as cluster,
        connected(StoreAddress.parse(f"redis-cluster://127.0.0.1:{cluster.ports[0]}")) as redis,
    ):
        assert eventually(lambda: is_up(cluster))
        add(redis, STREAM, events)
        redis.xadd(STREAM, {"no": "event"})
        with running(redis) as one:
            one.wait(201)
        assert one.progress.outcomes == {"applied": 200, "dead": 1}
        assert held(redis, range(50)) == expected(events)
        assert redis.xlen(f"{STREAM}:dead") == 1
        assert records(redis).forget(7, NOW_MS)
        assert held(redis, [7]) == {}
        applied = Interrupted(redis, lambda: records(redis).apply([at(2, user=8)])).apply([at(1, user=8)])
        assert applied.conflicts == 1


def test_metrics_tell_what_became_of_events(redis: Redis) -> None:
    add(redis, STREAM, [at(1), at(1), at(2)])
    with running(redis) as one:
        one.wait(3)
        assert eventually(lambda: b"trireme_ingest_lag_seconds 0.0" in generate_latest(one.registry))
        text = generate_latest(one.registry).decode()
    for line in (
        'trireme_ingest_events_total{outcome="applied"} 2.0',
        'trireme_ingest_events_total{outcome="duplicate"} 1.0',
        'trireme_ingest_events_total{outcome="dead"} 0.0',
        "trireme_ingest_delay_seconds_count 3.0",
        "trireme_ingest_pending_events 0.0",
        "trireme_ingest_failures_total 0.0",
    ):
        assert line in text.splitlines()
