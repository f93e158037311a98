"""A feature store in a real Redis Cluster."""

from __future__ import annotations

import threading
from binascii import crc_hqx
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.redis_cluster import MASTERS, SLOTS, RedisCluster, redis_cluster
from tests.support.serving import eventually
from trireme_runtime.features.address import StoreAddress
from trireme_runtime.features.breaker import FAILURES, Breaker
from trireme_runtime.features.opening import open_store
from trireme_runtime.features.record import ABSENT, FRESH, UNREACHABLE, RecordLayout, user_key
from trireme_runtime.features.redis_cluster import RedisClusterStore

LAYOUT = RecordLayout(5, 2, 1)


def slot(user: int) -> int:
    return crc_hqx(str(user).encode(), 0) % SLOTS


def master(user: int) -> int:
    return slot(user) * MASTERS // SLOTS


#: A user of each master.
USERS = [next(user for user in range(100) if master(user) == each) for each in range(MASTERS)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as running:
        for user in USERS:
            record = LAYOUT.empty(1)
            record["history"][0, -1], record["time_ms"][0, -1], record["count"] = user, 1000, 1
            with running.connect(master(user)) as connection:
                connection.set(user_key("shop", user), record.tobytes())
        yield running


@pytest.fixture
def address(cluster: RedisCluster) -> StoreAddress:
    return StoreAddress.parse(f"redis-cluster://127.0.0.1:{cluster.ports[1]}?namespace=shop&timeout_ms=500")


@pytest.fixture
def store(address: StoreAddress) -> RedisClusterStore:
    # Breakers that stay open: a pause does not end.
    return RedisClusterStore(address, LAYOUT, lambda probe: Breaker(probe, lambda seconds: threading.Event().wait()))


def states(store: RedisClusterStore, *users: int) -> list[int]:
    return store.read(np.array(users)).state.tolist()


def test_a_batch_is_read_from_all_masters(store: RedisClusterStore) -> None:
    users = [*USERS, 1000, *reversed(USERS)]
    reading = store.read(np.array(users))
    assert reading.state.tolist() == [FRESH] * 3 + [ABSENT] + [FRESH] * 3
    assert reading.records["history"][:, -1].tolist() == [*USERS, -1, *reversed(USERS)]


def test_the_address_says_that_it_is_a_cluster(address: StoreAddress) -> None:
    assert isinstance(open_store(address, LAYOUT), RedisClusterStore)


def test_a_frozen_master_costs_its_own_users_alone(
    cluster: RedisCluster, address: StoreAddress, store: RedisClusterStore
) -> None:
    assert states(store, *USERS) == [FRESH] * 3
    cluster.freeze(0)
    try:
        expected = [UNREACHABLE, FRESH, FRESH]
        assert [states(store, *USERS) for _ in range(FAILURES + 1)] == [expected] * (FAILURES + 1)
    finally:
        cluster.thaw(0)
    assert states(store, *USERS) == expected  # it is not asked: it would answer
    assert states(RedisClusterStore(address, LAYOUT), *USERS) == [FRESH] * 3


def test_a_master_that_comes_back_is_asked_again(cluster: RedisCluster, address: StoreAddress) -> None:
    store = RedisClusterStore(address, LAYOUT, lambda probe: Breaker(probe, jitter=lambda: 0.0))
    assert states(store, *USERS) == [FRESH] * 3
    cluster.freeze(0)
    assert [states(store, USERS[0]) for _ in range(FAILURES)] == [[UNREACHABLE]] * FAILURES
    cluster.thaw(0)
    assert eventually(lambda: states(store, *USERS) == [FRESH] * 3)


def test_an_answer_that_comes_late_is_not_that_of_the_next_user(
    cluster: RedisCluster, store: RedisClusterStore
) -> None:
    assert states(store, USERS[0]) == [FRESH]
    cluster.freeze(0)
    assert states(store, USERS[0]) == [UNREACHABLE]
    cluster.thaw(0)
    other = next(user for user in range(1000, 2000) if master(user) == 0)
    assert states(store, other) == [ABSENT]


def test_a_slot_that_moved_is_found_again(cluster: RedisCluster, store: RedisClusterStore) -> None:
    user = next(user for user in range(2000, 3000) if master(user) == 2)
    assert states(store, user) == [ABSENT]
    cluster.move([slot(user)], 0)
    assert states(store, user) == [UNREACHABLE]
    assert eventually(lambda: states(store, user) == [ABSENT])


def test_a_cluster_that_is_not_there_is_looked_for_again(tmp_path: Path) -> None:
    store = RedisClusterStore(StoreAddress.parse("redis-cluster://127.0.0.1:1"), LAYOUT)
    assert states(store, *USERS) == [UNREACHABLE] * 3


def test_a_master_that_has_lost_its_slots_is_not_tried_any_more(cluster: RedisCluster, address: StoreAddress) -> None:
    """The last of the tests: it leaves a master without slots, and frozen."""
    before = set(threading.enumerate())
    store = RedisClusterStore(address, LAYOUT)
    cluster.freeze(2)
    assert [states(store, USERS[2]) for _ in range(FAILURES)] == [[UNREACHABLE]] * FAILURES
    tries = [thread for thread in set(threading.enumerate()) - before if thread.name == "breaker"]
    assert [thread.is_alive() for thread in tries] == [True]
    cluster.move(range(SLOTS * 2 // MASTERS, SLOTS), 0, frozen=2)
    assert eventually(lambda: states(store, *USERS) == [FRESH, FRESH, ABSENT])
    assert eventually(lambda: not tries[0].is_alive())
