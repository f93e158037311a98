"""CPU per user with and without something, blocks of one and the other in turn on servers that are both up."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trireme_perf.ab.blocks import (
    Block,
    Load,
    Rounds,
    Side,
    check_rounds,
    contrast_client_cpu,
    contrast_server_cpu,
    in_turn,
)
from trireme_perf.ab.document import contrast_document
from trireme_perf.ab.run import start, warm
from trireme_perf.ab.statistics import CONFIDENCE, Contrast
from trireme_perf.compare.arrivals import UserMix, read_users
from trireme_perf.compare.probe import closed_loop, no_collection, run_precisely
from trireme_perf.compare.server import Server
from trireme_perf.compare.triton import ENTRIES, ClientConnection
from trireme_perf.compare.usage import pinned
from trireme_perf.errors import PerfError
from trireme_perf.overhead.repositories import copy_with
from trireme_perf.sweep import machine
from trireme_stages.bundle import read_manifest

__all__ = ["COMPARISONS", "LOADS", "Comparison", "Settings", "measure_overhead"]

SEED = 20060508
PACE = 400  # users asked to learn how many fill a block


@dataclass(frozen=True)
class Way:
    """A way to serve and ask. mixin: class of ``overhead.models`` that the models are of; empty for those of the bundle.
    ledger: whether every request asks for its ledger."""

    mixin: str = ""
    ledger: bool = False


@dataclass(frozen=True)
class Comparison:
    """about: what is compared, for people. target: wanted of the server's CPU, ``observed`` over ``without``, at most."""

    about: str
    without: Way
    observed: Way
    target: float


COMPARISONS = {
    "ledger_off": Comparison(
        "nobody asks for the ledger, against models that have none and look at no clock; both without metrics",
        Way("WithoutLedger"),
        Way("WithoutMetrics"),
        1.01,
    ),
    "ledger_on": Comparison("every request asks for its ledger, against none", Way(), Way(ledger=True), 1.10),
    "histograms": Comparison("metrics of the stages, against none", Way("WithoutMetrics"), Way(), 1.03),
}


@dataclass(frozen=True)
class Traffic:
    """Users asked in a closed loop, so many at a time, by a client that coalesces or does not."""

    concurrency: int
    coalescing: bool


#: One user per RPC, one after another, is the hardest case: what is paid per batch is paid per user.
LOADS = {"alone": Traffic(1, False), "coalesced": Traffic(32, True)}


@dataclass(frozen=True)
class Settings:
    """``rounds`` of a block of about ``seconds`` on either side, for every comparison of ``only`` (empty: all) and every load."""

    rounds: int = 20
    seconds: float = 2.0
    only: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_rounds(self.rounds, self.seconds)
        for name in self.only:
            if name not in COMPARISONS:
                raise PerfError(f"only names {name!r}; allowed: {', '.join(COMPARISONS)}")


def measure_overhead(repository: Path, settings: Settings, tell: Callable[[str], None]) -> dict[str, Any]:
    """Medians over blocks of the CPU time per user of server and client, and their ratios with intervals.

    Server processes have one core, the client, which is this process, another.

    Returns:
        ``{"rounds", "seconds", "confidence", "machine", "comparisons": {name: {"about", "target", "loads": {load:
        {"users", "server_us_per_user", "client_us_per_user", "state"}}}}}``; a is without what is looked at, b with it.
        ``state`` is of the server's ratio: `kept` if its whole interval is within the target, `exceeded` if none of it is,
        else `unclear`.

    Raises:
        PerfError: fewer than two cores, no fused plan, or a request failed. StartError: a server did not start.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise PerfError("this process may use 1 core; 2 are needed, one for the servers and one for the client")
    manifest = read_manifest(repository)
    if manifest.plan not in ENTRIES:
        raise PerfError(f"{repository} has the plan {manifest.plan!r}; allowed: {', '.join(ENTRIES)}")
    # Beside the original: only there can files be linked.
    with (
        tempfile.TemporaryDirectory(prefix=".trireme-overhead-", dir=repository.absolute().parent) as scratch,
        pinned(cores[0]),
    ):
        run = _Run(repository, ENTRIES[manifest.plan]["fused"], settings, cores[-1], Path(scratch), tell)
        return run_precisely(run.all())


class _Run:
    def __init__(
        self, repository: Path, model: str, settings: Settings, core: int, scratch: Path, tell: Callable[[str], None]
    ) -> None:
        self._repository, self._model, self._settings = repository, model, settings
        self._core, self._scratch, self._tell = core, scratch, tell
        self._rng = np.random.default_rng(SEED)
        self._users = UserMix(read_users(repository), self._rng)

    async def all(self) -> dict[str, Any]:
        names = self._settings.only or COMPARISONS
        return {
            "rounds": self._settings.rounds,
            "seconds": self._settings.seconds,
            "confidence": CONFIDENCE,
            "machine": machine(),
            "comparisons": {name: await self._comparison(name, COMPARISONS[name]) for name in dict.fromkeys(names)},
        }

    async def _comparison(self, name: str, comparison: Comparison) -> dict[str, Any]:
        self._tell(f"{name}: {comparison.about}")
        loads = {}
        async with AsyncExitStack() as stack:
            ways = (comparison.without, comparison.observed)
            servers = {way.mixin: await self._serve(stack, way.mixin) for way in ways}
            for load, traffic in LOADS.items():
                sides = [await self._side(stack, way, servers[way.mixin], traffic) for way in ways]
                loads[load] = await self._load(load, traffic, (sides[0], sides[1]), comparison.target)
        return {"about": comparison.about, "target": comparison.target, "loads": loads}

    async def _serve(self, stack: AsyncExitStack, mixin: str) -> tuple[Server, str]:
        copy = self._scratch / mixin
        if mixin and not copy.exists():
            copy_with(mixin, self._repository, copy)
        log = self._scratch / f"{mixin or 'original'}.log"
        return await start(stack, copy if mixin else self._repository, self._core, log)

    async def _side(self, stack: AsyncExitStack, way: Way, server: tuple[Server, str], traffic: Traffic) -> Side:
        process, address = server
        connection = await ClientConnection.open(address, self._model, traffic.coalescing)
        stack.push_async_callback(connection.close)
        name = f"{way.mixin or 'the bundle'}{', ledger asked for' if way.ledger else ''}"
        return Side(name, partial(connection.ask, ledger=way.ledger), process)

    async def _load(self, name: str, traffic: Traffic, sides: tuple[Side, Side], target: float) -> dict[str, Any]:
        for side in sides:
            await warm(side, self._users)
        with no_collection():
            paced = await closed_loop(sides[0].ask, self._users.take(PACE), traffic.concurrency)
        users = max(1, round(paced.answered / paced.wall_s * self._settings.seconds))
        self._tell(f"  {name}: {self._settings.rounds} rounds of 2 × {users:,} users")
        draw = partial(self._draw, users, traffic.concurrency)
        rounds = await in_turn(sides, self._settings.rounds, self._rng, draw, partial(self._tell_round, name))
        return {"users": users, **_figures(rounds, target)}

    def _draw(self, users: int, concurrency: int) -> Load:
        chosen = self._users.take(users)
        return lambda ask: closed_loop(ask, chosen, concurrency)

    def _tell_round(self, load: str, number: int, blocks: tuple[Block, Block]) -> None:
        costs = ", ".join(f"{block.server_us:.0f}" for block in blocks)
        self._tell(f"    {load}, round {number + 1} of {self._settings.rounds}: {costs} µs of server CPU per user")


def _figures(rounds: Rounds, target: float) -> dict[str, Any]:
    server, client = contrast_server_cpu(rounds), contrast_client_cpu(rounds)
    assert server is not None  # its processes are ours
    return {
        "server_us_per_user": contrast_document(server),
        "client_us_per_user": contrast_document(client),
        "state": _state(server, target),
    }


def _state(server: Contrast, target: float) -> str:
    if server.ratio.high <= target:
        return "kept"
    return "exceeded" if server.ratio.low > target else "unclear"
