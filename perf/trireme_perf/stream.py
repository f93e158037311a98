"""How soon a stream has the first of its two lists, how soon the second, and how soon one answer to the same user is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trireme_client import AsyncClient
from trireme_export.perf_input import read_perf_input
from trireme_perf.errors import PerfError
from trireme_perf.host.machine import machine
from trireme_perf.host.place import own_place
from trireme_perf.host.server import Server
from trireme_perf.host.triton import ENTRIES, fused_plan, ready_address, serve_command
from trireme_perf.load.probe import no_collection, run_precisely
from trireme_perf.load.users import UserMix
from trireme_perf.stats.bootstrap import FEWEST_ROUNDS, estimate_median
from trireme_runtime.schema import STREAM

__all__ = ["FEWEST_ROUNDS", "measure_stream"]

#: Items that are asked for.
K = 10
TIMEOUT_S = 30.0
MS = 1e3


def measure_stream(
    repository: Path, rounds: int, users: int, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Asks the server of a repository on one core, one user at a time: in every round some users by streams and without, in turn.

    Args:
        repository: with the fused plan and the model `recommend_stream`.
        rounds: at least ``FEWEST_ROUNDS``.
        users: who are asked in a round, both ways.
        tell: is given a line about every round.

    Returns:
        ``{"bundle_id", "machine", "items", "candidates", "rounds", "users", "ms": {"first", "second", "recommend"}, "ratio":
        {"first", "second"}, "cpu_us_per_user": {"stream", "recommend"}}``: medians over the rounds, of medians of a round, as
        ``Estimate``; ratios to ``recommend`` in the same round. The CPU time is the server's.

    Raises:
        PerfError: the repository has no such models; fewer than two cores.
        trireme_client.TriremeError: a request failed.
    """
    manifest, _ = fused_plan(repository)
    if not (repository / STREAM).is_dir():
        raise PerfError(f"{repository} has no model {STREAM}; an export with serving.stream writes it")
    mix = UserMix(read_perf_input(repository), np.random.default_rng(0))
    with own_place() as place:
        server = Server(serve_command(repository), place.core, place.folder / "server.log")
        try:
            asking = _Asking(server, ENTRIES[manifest.plan]["fused"], mix, users)
            found = run_precisely(asking.measure(rounds, tell))
        finally:
            server.stop()
    sizes = {"items": manifest.dims.catalogue, "candidates": manifest.dims.candidates}
    return {
        "bundle_id": manifest.bundle_id,
        "machine": machine(),
        **sizes,
        "rounds": rounds,
        "users": users,
        **_estimates(found),
    }


@dataclass
class _Times:
    """Seconds by round: medians until the first list of a stream, its second one, and the answer of ``recommend``; and the
    server's CPU seconds for a user."""

    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)
    recommend: list[float] = field(default_factory=list)
    stream_cpu: list[float] = field(default_factory=list)
    recommend_cpu: list[float] = field(default_factory=list)


class _Asking:
    def __init__(self, server: Server, model: str, mix: UserMix, users: int) -> None:
        self._server, self._model, self._mix, self._users = server, model, mix, users

    async def measure(self, rounds: int, tell: Callable[[str], None]) -> _Times:
        address = await ready_address(self._server)
        times = _Times()
        async with AsyncClient(address, model=self._model, timeout=TIMEOUT_S) as client:
            await self._round(client, 0, _Times())  # what happens once only
            for number in range(rounds):
                await self._round(client, number, times)
                last = [f"{MS * each[-1]:.2f}" for each in (times.first, times.second, times.recommend)]
                tell(f"round {number + 1} of {rounds}: lists after {last[0]} and {last[1]} ms; one answer {last[2]} ms")
        return times

    async def _round(self, client: AsyncClient, number: int, times: _Times) -> None:
        """Each way has a block of its own, for the CPU time; which one is first changes from round to round."""
        users = self._mix.take(self._users)
        ways = [partial(self._streams, client, users, times), partial(self._answers, client, users, times)]
        with no_collection():
            for way in ways if number % 2 else reversed(ways):
                await way()

    async def _streams(self, client: AsyncClient, users: list[int], times: _Times) -> None:
        meter, waited = self._server.meter(), []
        for user in users:
            began = time.perf_counter()
            came = [time.perf_counter() - began async for _ in client.recommend_stream(user, K)]
            waited.append((came[0], came[-1]))
        times.stream_cpu.append(meter.read().server_cpu_s / len(users))
        first, second = np.median(waited, axis=0).tolist()
        times.first.append(first)
        times.second.append(second)

    async def _answers(self, client: AsyncClient, users: list[int], times: _Times) -> None:
        meter, waited = self._server.meter(), []
        for user in users:
            began = time.perf_counter()
            await client.recommend(user, K)
            waited.append(time.perf_counter() - began)
        times.recommend_cpu.append(meter.read().server_cpu_s / len(users))
        times.recommend.append(float(np.median(waited)))


def _estimates(times: _Times) -> dict[str, Any]:
    def estimate(values: list[float], unit: float = 1.0, over: list[float] | None = None) -> dict[str, float]:
        return asdict(estimate_median(unit * np.array(values) / (1.0 if over is None else np.array(over))))

    ways = {"first": times.first, "second": times.second}
    return {
        "ms": {name: estimate(values, MS) for name, values in (ways | {"recommend": times.recommend}).items()},
        "ratio": {name: estimate(values, over=times.recommend) for name, values in ways.items()},
        "cpu_us_per_user": {
            "stream": estimate(times.stream_cpu, 1e6),
            "recommend": estimate(times.recommend_cpu, 1e6),
        },
    }
