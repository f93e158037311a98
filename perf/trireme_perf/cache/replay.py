"""The real thing: traffic through the client's cache and without it, to two servers in turn, on the clock of the traffic.

Each request is answered before the next is sent, and the cache's clock stands at the moment of the request: a year passes in a
minute, and every answer is exactly as old as it would have been.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trireme_client import AsyncClient, Request
from trireme_client.cache.entries import CacheCounts
from trireme_client.cache.options import Cache
from trireme_client.cache.tasks import TaskCache
from trireme_client.targets import Targets
from trireme_perf.ab.blocks import Load, Rounds, Side, in_turn
from trireme_perf.cache.simulation import Costs, VirtualClock, scaled
from trireme_perf.cache.traffic import Traffic
from trireme_perf.errors import PerfError
from trireme_perf.host.place import Place
from trireme_perf.host.server import Server
from trireme_perf.host.triton import ready_address, serve_command
from trireme_perf.load.probe import Ask, closed_loop, no_collection

__all__ = ["Contest", "Replayed", "open_contest"]

#: Requests of a turn in which costs are measured, at most, and turns.
COSTED, COST_TURNS = 100, 15
DAY_S = 86_400.0
SEED = 19991230


@dataclass(frozen=True)
class Replayed:
    """What came of traffic. rounds: of the side without a cache and the one with it. hits: by round, the share of requests that
    were answered from the cache. counts: of all of them."""

    rounds: Rounds
    hits: NDArray[np.float64]
    counts: CacheCounts


class Contest:
    """Two servers of one repository, and a client without a cache, which asks the first; clients with one ask the second."""

    def __init__(self, stack: AsyncExitStack, servers: Sequence[Server], urls: Sequence[str], model: str) -> None:
        self._stack, self._servers, self._urls, self._model = stack, servers, urls, model
        self._clock = VirtualClock()
        self._plain = self._client(0, None)

    def _client(self, server: int, cache: Cache | None) -> AsyncClient:
        clock = self._clock

        class TimedCache(TaskCache):
            def __init__(self, options: Cache, targets: Targets) -> None:
                super().__init__(options, targets, clock)

        class TimedClient(AsyncClient):
            _cache_type = TimedCache

        client = TimedClient(self._urls[server], model=self._model, timeout=None, cache=cache)
        self._stack.push_async_callback(client.close)
        return client

    async def costs(self, requests: Sequence[Request]) -> Costs:
        """Measures what a request costs: without a cache, and with one whether the answer is there or not.

        A miss costs a server what any request does, and a hit nothing; so the sides differ in the client's time alone, of which
        the median over short turns counts.

        Args:
            requests: different ones.
        """
        chosen = np.random.default_rng(SEED).permutation(len(requests))
        cached = self._client(1, Cache(ttl_s=DAY_S, negative_ttl_s=DAY_S, max_entries=len(requests)))
        plainly, through = _asker(self._plain, requests), _asker(cached, requests)
        turns = [np.resize(np.roll(chosen, -COSTED * turn), COSTED).tolist() for turn in range(COST_TURNS)]

        async def take(numbers: list[int]) -> list[float]:
            self._clock.now += 2 * DAY_S  # whatever is kept is too old
            different = list(dict.fromkeys(numbers))
            return [await _client_us(ask, different) for ask in (plainly, through, through)]

        await take(turns[0])
        meters = [server.meter() for server in self._servers]
        spent = [await take(numbers) for numbers in turns]
        asked = 2 * sum(len(set(numbers)) for numbers in turns)
        server = sum(meter.read().server_cpu_s for meter in meters) * 1e6 / asked
        plain, miss, hit = np.median(spent, axis=0).tolist()
        return Costs(server + plain, hit, server + miss)

    async def replay(
        self, traffic: Traffic, cache: Cache, invalidates: bool, rounds: int, tell: Callable[[int], None]
    ) -> Replayed:
        """Sends traffic to both sides, a part of it in each round.

        Args:
            traffic: at least a request for each round.
            cache: options of the side that has one.
            invalidates: whether an event drops the answers to its user.
            tell: is given the number of each round that has ended.

        Raises:
            PerfError: a request failed, or there are too few.
        """
        if traffic.size < rounds:
            raise PerfError(f"{traffic.size} requests are too few for {rounds} rounds")
        client = self._client(1, scaled(cache, traffic.share))
        sides = (
            Side("without cache", self._ask(self._plain, traffic, None), self._servers[0]),
            Side(
                "with cache",
                self._ask(client, traffic, traffic.users_before() if invalidates else None),
                self._servers[1],
            ),
        )
        parts = iter(np.array_split(np.arange(traffic.size), rounds))
        shares = _Shares(client)

        def ended(number: int, _: object) -> None:
            shares.note()
            tell(number)

        done = await in_turn(sides, rounds, np.random.default_rng(SEED), lambda: _load(next(parts).tolist()), ended)
        return Replayed(done, np.array(shares.found), _counts(client))

    def _ask(self, client: AsyncClient, traffic: Traffic, forgotten: list[list[int]] | None) -> Ask:
        """Returns what asks the request of a number, at its moment, after the events before it."""
        ask, kinds, times = _asker(client, traffic.requests), traffic.kind.tolist(), traffic.time.tolist()

        async def at(number: int) -> None:
            self._clock.now = times[number]
            if forgotten is not None and client.cache is not None:
                for user in forgotten[number]:
                    client.cache.forget(user)
            await ask(kinds[number])

        return at


async def open_contest(stack: AsyncExitStack, repository: Path, model: str, place: Place) -> Contest:
    """Serves a repository twice; all ends with the ``stack``.

    Raises:
        StartError: a server does not start.
    """
    servers = []
    for name in ("plain", "cached"):
        server = Server(serve_command(repository), place.core, place.folder / f"{name}.log")
        stack.callback(server.stop)
        servers.append(server)
    return Contest(stack, servers, [await ready_address(server) for server in servers], model)


class _Shares:
    """The share of requests in each round that a cache answered."""

    def __init__(self, client: AsyncClient) -> None:
        self._client, self._before = client, CacheCounts()
        self.found: list[float] = []

    def note(self) -> None:
        now, before = _counts(self._client), self._before
        answered = now.hits + now.stale - before.hits - before.stale
        self.found.append(answered / (answered + now.misses - before.misses))
        self._before = now


async def _client_us(ask: Ask, numbers: list[int]) -> float:
    """Returns the CPU time of this process per request, in µs."""
    with no_collection():
        before = time.process_time()
        await closed_loop(ask, numbers, 1)
        return (time.process_time() - before) * 1e6 / len(numbers)


def _counts(client: AsyncClient) -> CacheCounts:
    assert client.cache is not None
    return client.cache.counts


def _asker(client: AsyncClient, requests: Sequence[Request]) -> Ask:
    async def ask(kind: int) -> None:
        one = requests[kind]
        await client.recommend(one.user_id, one.k, history=one.history, exclude=one.exclude, context=one.context)

    return ask


def _load(numbers: list[int]) -> Load:
    return lambda side: side.closed_loop(numbers, 1)
