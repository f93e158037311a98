"""`trireme_client.Tracker` and a real Redis: events arrive, whatever happens to it, and nobody waits."""

from __future__ import annotations

import threading
import time

import pytest
from redis import Redis

from tests.support.redis_server import RedisServer
from tests.support.serving import eventually
from trireme_client import ClosedError, Tracker

STREAM = "trireme:events"


def entries(redis: Redis) -> list[tuple[int, int, int]]:
    return [tuple(int(fields[name]) for name in (b"user", b"item", b"time")) for _, fields in redis.xrange(STREAM)]


def test_events_arrive_in_order_with_their_times(own_redis: RedisServer, redis: Redis) -> None:
    before = time.time_ns() // 1_000_000
    with Tracker(own_redis.url) as tracker:
        assert tracker.track(7, 12, time=1_700_000_000.1234)
        assert tracker.track(8, 13)
    (first, second) = entries(redis)
    assert first == (7, 12, 1_700_000_000_123)
    assert second[:2] == (8, 13)
    assert before <= second[2] <= time.time_ns() // 1_000_000
    assert (tracker.sent, tracker.pending, tracker.dropped) == (2, 0, 0)


def test_all_threads_share_a_tracker(own_redis: RedisServer, redis: Redis) -> None:
    with Tracker(own_redis.url) as tracker:

        def track(user: int) -> None:
            for item in range(1000):
                assert tracker.track(user, item)

        threads = [threading.Thread(target=track, args=(user,)) for user in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = entries(redis)
    assert tracker.sent == len(found) == 4000
    for user in range(4):
        assert [item for one, item, _ in found if one == user] == list(range(1000))


def test_events_wait_while_redis_is_away(own_redis: RedisServer) -> None:
    with Tracker(own_redis.url) as tracker:
        tracker.track(1, 1)
        assert eventually(lambda: tracker.sent == 1)
        own_redis.kill()
        assert tracker.track(2, 2)
        own_redis.start()
        assert eventually(lambda: tracker.sent == 2)
    with own_redis.connect() as redis:
        assert [entry[:2] for entry in entries(redis)] == [(1, 1), (2, 2)]


def test_too_many_events_are_dropped_and_counted(own_redis: RedisServer) -> None:
    own_redis.freeze()
    with Tracker(own_redis.url, max_pending=3) as tracker:
        assert [tracker.track(1, item) for item in range(5)] == [True, True, True, False, False]
        assert (tracker.pending, tracker.dropped) == (3, 2)
        own_redis.thaw()
    assert (tracker.pending, tracker.sent, tracker.dropped) == (0, 3, 2)


def test_closing_gives_up_in_time(own_redis: RedisServer) -> None:
    own_redis.kill()
    tracker = Tracker(own_redis.url)
    assert tracker.track(1, 1)
    tracker.close(timeout=0.05)
    assert (tracker.pending, tracker.sent, tracker.dropped) == (0, 0, 1)
    tracker.close()
    with pytest.raises(ClosedError):
        tracker.track(1, 2)


def test_the_stream_is_bounded(own_redis: RedisServer, redis: Redis) -> None:
    with Tracker(own_redis.url, max_stream=100) as tracker:
        for item in range(1000):
            tracker.track(1, item)
    assert 100 <= redis.xlen(STREAM) <= 300  # Redis removes whole nodes of 100
    assert entries(redis)[-1][:2] == (1, 999)
