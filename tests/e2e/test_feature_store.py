"""A feature store in a real Redis: what is read, and what a Redis that is slow, frozen or gone costs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.redis_server import RedisServer, redis_server
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
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def store(server: RedisServer, pauses: Pauses) -> RedisStore:
    address = StoreAddress.parse(f"{server.url}?namespace=shop&timeout_ms=500")
    return RedisStore(address, LAYOUT, lambda probe: Breaker(probe, pauses.wait))


def write(server: RedisServer, user: int, item: int) -> None:
    record = LAYOUT.empty(1)
    record["history"][0, -1], record["time_ms"][0, -1], record["count"] = item, 1000, 1
    with server.connect() as connection:
        connection.set(user_key("shop", user), record.tobytes())


def newest(store: RedisStore, *users: int) -> list[int]:
    return store.read(np.array(users))[0]["history"][:, -1].tolist()


def states(store: RedisStore, *users: int) -> list[int]:
    return store.read(np.array(users)).state.tolist()


def test_a_batch_of_users_is_one_command(server: RedisServer, store: RedisStore) -> None:
    write(server, 7, 70)
    write(server, 2**62, 90)
    with server.connect() as connection:
        connection.set(user_key("shop", 8), b"what is this")
        connection.set(user_key("other", 9), LAYOUT.empty(1).tobytes())
        connection.config_resetstat()
        assert states(store, 7, 8, 9, 2**62) == [FRESH, CORRUPT, ABSENT, FRESH]
        commands = connection.info("commandstats")
    assert commands["cmdstat_mget"]["calls"] == 1
    assert {name for name in commands if name != "cmdstat_mget"} <= {"cmdstat_config|resetstat", "cmdstat_info"}
    assert newest(store, 7, 8, 9, 2**62) == [70, -1, -1, 90]


def test_a_key_of_another_type_is_like_none(server: RedisServer, store: RedisStore) -> None:
    with server.connect() as connection:
        connection.lpush(user_key("shop", 7), "value")
    assert states(store, 7) == [ABSENT]


def test_a_frozen_redis_costs_a_few_time_outs_and_then_nothing(
    server: RedisServer, pauses: Pauses, store: RedisStore
) -> None:
    write(server, 7, 70)
    assert states(store, 7) == [FRESH]
    server.freeze()
    assert [states(store, 7, 8) for _ in range(FAILURES)] == [[UNREACHABLE, UNREACHABLE]] * FAILURES
    server.thaw()
    assert states(store, 7) == [UNREACHABLE]  # not asked: it would answer
    pauses.end()
    assert eventually(lambda: states(store, 7) == [FRESH])


def test_an_answer_that_comes_late_is_not_that_of_the_next_users(server: RedisServer, store: RedisStore) -> None:
    write(server, 7, 70)
    write(server, 8, 80)
    assert newest(store, 7) == [70]
    server.freeze()
    assert states(store, 7) == [UNREACHABLE]
    server.thaw()
    assert newest(store, 8) == [80]


def test_a_redis_that_comes_back_is_asked_again(server: RedisServer, pauses: Pauses, store: RedisStore) -> None:
    write(server, 7, 70)
    server.kill()
    assert [states(store, 7) for _ in range(FAILURES + 1)] == [[UNREACHABLE]] * (FAILURES + 1)
    pauses.end()
    server.start()
    assert eventually(lambda: newest(store, 7) == [70])


def test_a_redis_that_was_started_anew_between_two_reads_costs_one_of_them_at_most(
    server: RedisServer, store: RedisStore
) -> None:
    write(server, 7, 70)
    assert newest(store, 7) == [70]
    server.kill()
    server.start()
    assert FRESH in [states(store, 7)[0] for _ in range(2)]


def test_errors_of_redis_count_as_not_reached(server: RedisServer, store: RedisStore) -> None:
    write(server, 7, 70)
    assert states(store, 7) == [FRESH]
    with server.connect() as connection:
        connection.config_set("requirepass", "secret")
        connection.client_kill_filter(_type="normal", skipme=True)
    assert [states(store, 7) for _ in range(2)] == [[UNREACHABLE]] * 2


def test_answers_that_trickle_in_open_the_breaker(server: RedisServer, pauses: Pauses, store: RedisStore) -> None:
    write(server, 7, 70)
    address = StoreAddress.parse(f"{server.url}?namespace=shop&timeout_ms=500")
    readings = iter(range(0, 1000, 2))  # two seconds between any two looks at the clock
    slow = RedisStore(address, LAYOUT, lambda probe: Breaker(probe, pauses.wait), lambda: float(next(readings)))
    assert [states(slow, 7) for _ in range(FAILURES + 1)] == [[FRESH]] * FAILURES + [[UNREACHABLE]]


def test_reads_are_measured_on_a_redis_of_their_own() -> None:
    result = measure_reading(Settings(users=10, stored=100, reads=100))
    assert 0 < result["mget"]["p50_ms"] <= result["mget"]["p99_ms"]
    assert 0 < result["read"]["p50_ms"] <= result["read"]["p99_ms"]
