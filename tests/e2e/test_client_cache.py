"""The cache of a client with a real server and a real Redis: whose answers end, for whom, and when."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Served
from tests.support.callers import WAIT, Tasks, Threads
from tests.support.commands import document, trireme
from tests.support.redis_server import RedisServer, redis_server
from tests.support.serving import CLOSED, eventually, served_briefly
from trireme_client import AsyncClient, Cache, Client, Recommendations, Rung
from trireme_export.pipeline import export_bundle
from trireme_ingest.events import Event
from trireme_ingest.records import Records
from trireme_runtime.bundle import read_manifest
from trireme_runtime.features.record import RecordLayout
from trireme_server import TritonServer
from trireme_server.instances import link_repository


@dataclass(frozen=True)
class Shop:
    """A server that reads fresh features from a Redis, which clients listen to as well."""

    server: TritonServer
    redis: RedisServer
    served: Served
    repository: Path

    @property
    def url(self) -> str:
        return self.server.grpc_url

    @property
    def address(self) -> str:
        return f"{self.redis.url}?namespace=shop&timeout_ms=500"

    def client(self, **options: Any) -> Client:
        """One that hears events, once it does."""
        return heard(Client(self.url, timeout=20, cache=Cache(ttl_s=600, **(options or {"features": self.address}))))

    def takes(self, user: int, item: int) -> None:
        """What `trireme ingest` does with an event."""
        with self.redis.connect() as redis:
            layout = RecordLayout.of(read_manifest(self.repository).dims)
            done = Records(redis, layout, "shop", 10**9).apply([Event(user, item, time.time_ns() // 1_000_000)])
        assert done.outcomes["applied"] == 1


@pytest.fixture(scope="module")
def shop(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    export_bundle(served.checkpoint, folder / "repository", "fused")
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        store = f"{redis.url}?namespace=shop&timeout_ms=500"
        with served_briefly(folder / "repository", features=store, access=CLOSED) as server:
            yield Shop(server, redis, served, folder / "repository")


def heard(client: Any) -> Any:
    assert eventually(lambda: client.cache.redis.hears)
    return client


def users(shop: Shop, first: int, count: int) -> list[int]:
    return [int(user) for user in shop.served.checkpoint.tables.user_ids[first : first + count]]


def test_an_event_ends_the_answers_to_its_user_in_all_clients(shop: Shop) -> None:
    user, other = users(shop, 3, 2)

    async def asked_later() -> None:
        async with AsyncClient(shop.url, timeout=20, cache=Cache(ttl_s=600, features=shop.address)) as client:
            while not client.cache or not client.cache.redis.hears:
                await asyncio.sleep(0.01)
            before = await client.recommend(user, 5)
            assert (await client.recommend(user, 5)).age_s > 0
            shop.takes(user, int(before.item_ids[0]))
            while client.cache.counts.invalidated < 1:
                await asyncio.sleep(0.01)
            after = await client.recommend(user, 5)
            assert (after.age_s, before.item_ids[0] in after.item_ids) == (0, False)

    with shop.client() as client:
        for one in (user, other):
            client.recommend(one, 5)
            assert client.recommend(one, 5).age_s > 0
        asyncio.run(asked_later())
        assert eventually(lambda: client.cache.counts.invalidated >= 1)
        assert client.recommend(user, 5).age_s == 0
        assert client.recommend(other, 5).age_s > 0


def test_nothing_counts_while_redis_is_away(shop: Shop) -> None:
    (user,) = users(shop, 6, 1)
    with shop.client() as client:
        client.recommend(user, 5)
        assert client.recommend(user, 5).age_s > 0
        shop.redis.kill()
        try:
            assert eventually(lambda: not client.cache.redis.hears)
            assert client.recommend(user, 5).age_s == 0
            assert client.cache.counts.entries == 0
        finally:
            shop.redis.start()
        heard(client)
        assert eventually(lambda: client.recommend(user, 5).rung == Rung.FULL and client.recommend(user, 5).age_s > 0)


def test_processes_share_answers_until_an_event(shop: Shop) -> None:
    (user,) = users(shop, 9, 1)
    store = {"store": shop.address}
    with shop.client(**store) as first, shop.client(**store) as second:
        second.recommend(users(shop, 10, 1)[0])  # from now on, the bundle is known
        answer = first.recommend(user, 5)

        def found() -> bool:
            with shop.client(**store) as third:
                third.recommend(users(shop, 11, 1)[0])
                return bool(
                    third.recommend(user, 5).item_ids.tolist() == answer.item_ids.tolist()
                    and third.cache.counts.store_hits
                )

        assert eventually(found)
        assert second.recommend(user, 5).age_s > 0
        assert second.cache.counts.store_hits == 1
        shop.takes(user, int(answer.item_ids[0]))
        assert not found()
        for client in (first, second):
            assert eventually(lambda: client.cache.counts.invalidated >= 1)  # noqa: B023
        assert answer.item_ids[0] not in second.recommend(user, 5).item_ids


def test_forget_reaches_all_processes_that_share_a_store(shop: Shop) -> None:
    (user,) = users(shop, 12, 1)
    with shop.client(store=shop.address) as first, shop.client(store=shop.address) as second:
        for client in (first, second):
            client.recommend(user, 5)
            assert client.recommend(user, 5).age_s > 0
        first.cache.forget(user)
        assert eventually(lambda: second.cache.counts.invalidated >= 1)
        assert second.recommend(user, 5).age_s == 0


def test_values_that_are_damaged_are_counted_and_asked_for(shop: Shop) -> None:
    (user,) = users(shop, 15, 1)
    with shop.client(store=shop.address) as client, shop.redis.connect() as redis:
        client.recommend(user, 5)
        client.recommend(user, 5)
        client.recommend(user, 6)
        keys = f"trireme:shop:answer:{{{user}}}:*"
        assert eventually(lambda: len(list(redis.scan_iter(keys))) >= 1)
        for key in redis.scan_iter(keys):
            redis.set(key, b"damaged", px=600_000)
        with shop.client(store=shop.address) as another:
            another.recommend(users(shop, 16, 1)[0])
            assert another.recommend(user, 6).age_s == 0
            assert another.cache.counts.corrupt == 1


def test_a_store_that_hangs_holds_nobody_up_for_long(shop: Shop) -> None:
    user, *others = users(shop, 20, 12)
    address = shop.address.replace("timeout_ms=500", "timeout_ms=5")
    with shop.client(store=address) as client:
        client.recommend(user, 5)
        shop.redis.freeze()
        try:
            for one in others:
                assert len(client.recommend(one, 5)) == 5
            assert client.cache.counts.store_failures >= 5
        finally:
            shop.redis.thaw()


def test_answers_that_were_precomputed_are_found(shop: Shop, tmp_path: Path) -> None:
    user, rare, other = users(shop, 18, 3)
    lines = [(user, {}), (user, {}), (rare, {}), (-1, {"history": [1]}), (other, {"exclude": [2]})]
    log = tmp_path / "requests.jsonl"
    log.write_text("".join(json.dumps({"time": 1.0, "user": one, "k": 5, **more}) + "\n" for one, more in lines))
    asked = ("--log", log, "--store", shop.address, "--url", shop.url, "--json")
    once = ("precompute", *asked, "--requests", 1)  # what is less than complete, as on a busy machine, is not kept
    assert eventually(lambda: document(trireme(*once)) == {"kept": 1, "refused": 0, "failed": 0})
    with shop.client(store=shop.address) as client:
        client.recommend(other, 5)  # from now on, the bundle is known
        assert [client.recommend(one, 5).age_s > 0 for one in (user, rare)] == [True, False]
        assert client.cache.counts.store_hits == 1
    assert eventually(lambda: document(trireme("precompute", *asked))["kept"] == 2)
    shop.takes(user, int(shop.served.checkpoint.tables.item_ids[0]))
    with shop.client(store=shop.address) as client:
        client.recommend(other, 5)
        assert client.recommend(user, 5).age_s == 0


def test_precompute_says_what_is_wrong(shop: Shop, tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    log.write_text(json.dumps({"time": 1.0, "user": -1, "k": 5, "history": [1]}) + "\n")
    asked = ("precompute", "--log", log, "--url", shop.url)
    nobody = trireme(*asked, "--store", shop.address)
    assert (nobody.returncode, "has no requests of known users" in nobody.stderr) == (1, True)
    late = trireme(*asked, "--store", shop.address, "--ttl", 5, "--every", 5)
    assert "--every is 5; allowed: less than --ttl, 5" in late.stderr
    log.write_text(json.dumps({"time": 1.0, "user": 1, "k": 5}) + "\n")
    away = trireme(*asked, "--store", "redis://127.0.0.1:1")
    assert (away.returncode, "the store of precomputed answers cannot be used" in away.stderr) == (1, True)


def load_another_bundle(shop: Shop, folder: Path) -> None:
    """Exports one and has Triton load it in place of the one before, as an operator of Triton's model control does."""
    version = str(export_bundle(shop.served.checkpoint, shop.repository, "fused").version)
    link_repository(shop.repository, folder, cpus=1, gpu=False)
    served = shop.server.linked / "recommend"
    shutil.copytree(folder / "recommend" / version, served / version, symlinks=True)
    shutil.copy(folder / "recommend/config.pbtxt", served)
    shop.server.api.load("recommend")


@dataclass
class Calls:
    """What the callers of one client were given: when each call began and had ended, and its answer."""

    callers: Threads | Tasks
    known: list[int]
    ended: list[tuple[float, float, Recommendations]] = field(default_factory=list)

    def make(self) -> list[Future[Recommendations]]:
        """Makes a call for each user whose answer is kept, and for two that are new to the cache, at a time."""
        new = [self._ask(user, exclude=[time.monotonic_ns()]) for user in self.known[:2]]
        return [*new, *(self._ask(user) for user in self.known)]

    def _ask(self, user: int, **more: Any) -> Future[Recommendations]:
        began = time.monotonic()
        asked = self.callers.ask(user, 5, **more)
        asked.add_done_callback(lambda done: self.ended.append((began, time.monotonic(), done.result())))
        return asked

    def kept(self, version: str) -> set[int | None]:
        """The users who were given an answer of a version that was kept."""
        return {answer.user_id for _, _, answer in self.ended if answer.age_s > 0 and answer.model_version == version}

    def late(self) -> list[Recommendations]:
        """The kept answers of the first bundle to calls that began after another one had been answered by the second."""
        new = min(end for _, end, answer in self.ended if answer.model_version == "2")
        return [one for began, _, one in self.ended if began > new and one.age_s > 0 and one.model_version == "1"]


def test_no_answer_of_the_bundle_before_is_given_once_a_new_one_has_answered(shop: Shop, tmp_path: Path) -> None:
    known = users(shop, 40, 3)
    addresses: list[dict[str, str]] = [{}, {"store": shop.address}]
    with ExitStack() as stack, ThreadPoolExecutor(1) as operator:
        clients = []
        for kind in (Threads, Tasks):
            for address in addresses:
                callers = kind(shop.url, cache=Cache(ttl_s=600, **address))
                stack.callback(callers.end)
                clients.append(Calls(callers, known))
        for calls in clients:
            heard(calls.callers.client)

        def served(version: str) -> bool:
            for asked in [asked for calls in clients for asked in calls.make()]:
                asked.result(WAIT)
            return all(calls.kept(version) == set(known) for calls in clients)

        assert eventually(lambda: served("1"))
        loading = operator.submit(load_another_bundle, shop, tmp_path / "linked")
        assert eventually(lambda: served("2")), loading.exception(WAIT)
        assert [calls.late() for calls in clients] == [[], [], [], []]
        (new,) = users(shop, 44, 1)
        clients[1].callers.ask(new, 5).result(WAIT)

        def found() -> bool:
            with shop.client(store=shop.address) as another:
                another.recommend(users(shop, 45, 1)[0])  # from now on, the bundle is known
                assert [another.recommend(user, 5).model_version for user in (*known, new)] == ["2"] * 4
                return bool(another.cache.counts.store_hits)

        assert eventually(found)
