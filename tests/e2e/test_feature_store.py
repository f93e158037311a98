"""A feature store in a real Redis: what is read, and what a Redis that is slow, frozen or gone costs."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.support.redis_server import RedisServer
from tests.support.serving import eventually
from trireme_perf.features import Settings, measure_reading
from trireme_runtime.features.address import StoreAddress
from trireme_runtime.features.breaker import FAILURES, Breaker
from trireme_runtime.features.record import ABSENT, CORRUPT, FRESH, UNREACHABLE, RecordLayout, user_key
from trireme_runtime.features.redis_store import RedisStore

LAYOUT = RecordLayout(5, 2, 1)


class Pauses:
    """Of a breaker, which end when it is said."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def wait(self, seconds: float) -> None:
        self._ended.wait()

    def end(self) -> None:
        self._ended.set()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def store(own_redis: RedisServer, pauses: Pauses) -> RedisStore:
    address = StoreAddress.parse(f"{own_redis.url}?namespace=shop&timeout_ms=500")
    return RedisStore(address, LAYOUT, lambda probe: Breaker(probe, pauses.wait))


def write(own_redis: RedisServer, user: int, item: int) -> None:
    record = LAYOUT.empty(1)
    record["history"][0, -1], record["time_ms"][0, -1], record["count"] = item, 1000, 1
    with own_redis.connect() as connection:
        connection.set(user_key("shop", user), record.tobytes())


def newest(store: RedisStore, *users: int) -> list[int]:
    return store.read(np.array(users))[0]["history"][:, -1].tolist()


def states(store: RedisStore, *users: int) -> list[int]:
    return store.read(np.array(users)).state.tolist()


def test_a_batch_of_users_is_one_command(own_redis: RedisServer, store: RedisStore) -> None:
    write(own_redis, 7, 70)
    write(own_redis, 2**62, 90)
    with own_redis.connect() as connection:
        connection.set(user_key("shop", 8), b"what is this")
        connection.set(user_key("other", 9), LAYOUT.empty(1).tobytes())
        connection.config_resetstat()
        assert states(store, 7, 8, 9, 2**62) == [FRESH, CORRUPT, ABSENT, FRESH]
        commands = connection.info("commandstats")
    assert commands["cmdstat_mget"]["calls"] == 1
    assert {name for name in commands if name != "cmdstat_mget"} <= {"cmdstat_config|resetstat", "cmdstat_info"}
    assert newest(store, 7, 8, 9, 2**62) == [70, -1, -1, 90]


def test_a_key_of_another_type_is_like_none(own_redis: RedisServer, store: RedisStore) -> None:
    with own_redis.connect() as connection:
        connection.lpush(user_key("shop", 7), "value")
    assert states(store, 7) == [ABSENT]


def test_a_frozen_redis_costs_a_few_time_outs_and_then_nothing(
    own_redis: RedisServer, pauses: Pauses, store: RedisStore
) -> None:
    write(own_redis, 7, 70)
    assert states(store, 7) == [FRESH]
    own_redis.freeze()
    assert [states(store, 7, 8) for _ in range(FAILURES)] == [[UNREACHABLE, UNREACHABLE]] * FAILURES
    own_redis.thaw()
    assert states(store, 7) == [UNREACHABLE]  # not asked: it would answer
    pauses.end()
    assert eventually(lambda: states(store, 7) == [FRESH])


def test_an_answer_that_comes_late_is_not_that_of_the_next_users(own_redis: RedisServer, store: RedisStore) -> None:
    write(own_redis, 7, 70)
    write(own_redis, 8, 80)
    assert newest(store, 7) == [70]
    own_redis.freeze()
    assert states(store, 7) == [UNREACHABLE]
    own_redis.thaw()
    assert newest(store, 8) == [80]


def test_a_redis_that_comes_back_is_asked_again(own_redis: RedisServer, pauses: Pauses, store: RedisStore) -> None:
    write(own_redis, 7, 70)
    own_redis.kill()
    assert [states(store, 7) for _ in range(FAILURES + 1)] == [[UNREACHABLE]] * (FAILURES + 1)
    pauses.end()
    own_redis.start()
    assert eventually(lambda: newest(store, 7) == [70])


def test_a_redis_that_was_started_anew_between_two_reads_costs_one_of_them_at_most(
    own_redis: RedisServer, store: RedisStore
) -> None:
    write(own_redis, 7, 70)
    assert newest(store, 7) == [70]
    own_redis.kill()
    own_redis.start()
    assert FRESH in [states(store, 7)[0] for _ in range(2)]


def test_errors_of_redis_count_as_not_reached(own_redis: RedisServer, store: RedisStore) -> None:
    write(own_redis, 7, 70)
    assert states(store, 7) == [FRESH]
    with own_redis.connect() as connection:
        connection.config_set("requirepass", "secret")
        connection.client_kill_filter(_type="normal", skipme=True)
    assert [states(store, 7) for _ in range(2)] == [[UNREACHABLE]] * 2


def test_answers_that_trickle_in_open_the_breaker(own_redis: RedisServer, pauses: Pauses, store: RedisStore) -> None:
    write(own_redis, 7, 70)
    address = StoreAddress.parse(f"{own_redis.url}?namespace=shop&timeout_ms=500")
    readings = iter(range(0, 1000, 2))  # two seconds between any two looks at the clock
    slow = RedisStore(address, LAYOUT, lambda probe: Breaker(probe, pauses.wait), lambda: float(next(readings)))
    assert [states(slow, 7) for _ in range(FAILURES + 1)] == [[FRESH]] * FAILURES + [[UNREACHABLE]]


def test_reads_are_measured_on_a_redis_of_their_own() -> None:
    result = measure_reading(Settings(users=10, stored=100, reads=100))
    assert 0 < result["mget"]["p50_ms"] <= result["mget"]["p99_ms"]
    assert 0 < result["read"]["p50_ms"] <= result["read"]["p99_ms"]
