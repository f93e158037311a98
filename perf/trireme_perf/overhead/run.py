"""CPU per user with and without something, on servers that are both up and asked in turn."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trireme_export.perf_input import read_perf_input
from trireme_perf.ab.blocks import Side, check_rounds
from trireme_perf.ab.document import estimate_document
from trireme_perf.ab.run import start, warm
from trireme_perf.errors import PerfError
from trireme_perf.host.server import Command, Server
from trireme_perf.host.triton import ENTRIES, ready_address
from trireme_perf.host.usage import pinned
from trireme_perf.load.connections import ClientConnection
from trireme_perf.load.probe import closed_loop, no_collection, run_precisely
from trireme_perf.load.users import UserMix
from trireme_perf.overhead.repositories import copy_with
from trireme_perf.overhead.turns import Cost, Turns, median_ratio, take_turns
from trireme_perf.stats.bootstrap import CONFIDENCE, Estimate
from trireme_perf.sweep.run import machine
from trireme_runtime.bundle import read_manifest

__all__ = ["COMPARISONS", "LOADS", "Comparison", "Settings", "measure_overhead"]

SEED = 20060508
PACE = 400  # users asked to learn how many fill a block
TURN_S = 0.1
SPAN_DELAY, SPAN_DELAY_MS = "OTEL_BSP_SCHEDULE_DELAY", 500


@dataclass(frozen=True)
class Way:
    """A way to serve and ask.

    mixin: class of ``overhead.models`` that the models are of; empty for those of the bundle. ledger: whether every request
    asks for its ledger. sampled: share of the calls that are traced; None: neither client nor server knows of tracing.
    """

    mixin: str = ""
    ledger: bool = False
    sampled: float | None = None

    def __str__(self) -> str:
        ledger = ", ledger asked for" if self.ledger else ""
        traced = "" if self.sampled is None else f", {self.sampled:.0%} traced"
        return f"{self.mixin or 'the bundle'}{ledger}{traced}"


@dataclass(frozen=True)
class Comparison:
    """about: what is compared, for people. target: wanted of the server's CPU, ``observed`` over ``without``, at most;
    None where nothing is wanted but to know it."""

    about: str
    without: Way
    observed: Way
    target: float | None = None


COMPARISONS = {
    "ledger_off": Comparison(
        "nobody asks for the ledger, against models that have none and look at no clock; both without metrics",
        Way("WithoutLedger"),
        Way("WithoutMetrics"),
        1.01,
    ),
    "ledger_on": Comparison("every request asks for its ledger, against none", Way(), Way(ledger=True), 1.10),
    "histograms": Comparison("metrics of the stages, against none", Way("WithoutMetrics"), Way(), 1.03),
    "tracing_0": Comparison(
        "client and server can trace and no call is sampled, against neither", Way(), Way(sampled=0.0)
    ),
    "tracing_1": Comparison("one call in 100 is traced, against no tracing", Way(), Way(sampled=0.01), 1.02),
    "tracing_100": Comparison("every call is traced, against no tracing", Way(), Way(sampled=1.0)),
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
    """``rounds`` of about ``seconds`` on either side, for every comparison of ``only`` (empty: all) and every load."""

    rounds: int = 20
    seconds: float = 2.0
    only: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_rounds(self.rounds, self.seconds)
        for name in self.only:
            if name not in COMPARISONS:
                raise PerfError(f"only names {name!r}; allowed: {', '.join(COMPARISONS)}")


def measure_overhead(repository: Path, settings: Settings, tell: Callable[[str], None]) -> dict[str, Any]:
    """Medians over rounds of the CPU time per user of server and client, and of the ratios of both sides, with intervals.

    Server processes have one core, the client, which is this process, another.

    Returns:
        ``{"rounds", "seconds", "confidence", "machine", "comparisons": {name: {"about", "target", "loads": {load:
        {"users", "server_us_per_user", "client_us_per_user", "state"}}}}}``. Costs are ``{"a", "b", "ratio": {"value", "low",
        "high"}}``, a without what is looked at, b with it. ``users`` are those of a round, on either side. ``state`` is of the
        server's ratio: `kept` if its whole interval is within the target, `exceeded` if none of it is, else `unclear`; None
        without a target.

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
        self._users = UserMix(read_perf_input(repository), self._rng)

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
            otlp_url = await self._sink(stack) if comparison.observed.sampled is not None else ""
            servers = [await self._serve(stack, way, otlp_url) for way in ways]
            for load, traffic in LOADS.items():
                first, second = [
                    (await self._side(stack, way, server, address, traffic, otlp_url), server)
                    for way, (server, address) in zip(ways, servers, strict=True)
                ]
                loads[load] = await self._load(load, traffic, (first, second), comparison.target)
        return {"about": comparison.about, "target": comparison.target, "loads": loads}

    async def _sink(self, stack: AsyncExitStack) -> str:
        """URL of a collector beside the client."""
        command = Command((sys.executable, "-m", "trireme_perf.overhead.sink"), Path.cwd())
        sink = Server(command, min(os.sched_getaffinity(0)), self._scratch / "sink.log")
        stack.callback(sink.stop)
        return await ready_address(sink, "otlp_url")

    async def _serve(self, stack: AsyncExitStack, way: Way, otlp_url: str) -> tuple[Server, str]:
        repository = self._scratch / way.mixin if way.mixin else self._repository
        if not repository.exists():
            copy_with(way.mixin, self._repository, repository)
        options = () if way.sampled is None else (f"--otlp-url={otlp_url}",)
        environment = {} if way.sampled is None else {SPAN_DELAY: str(SPAN_DELAY_MS)}
        log = self._scratch / f"{way}.log"
        return await start(stack, repository, self._core, log, options, environment)

    async def _side(
        self, stack: AsyncExitStack, way: Way, server: Server, address: str, traffic: Traffic, otlp_url: str
    ) -> Side:
        telemetry = None
        if way.sampled is not None:
            from trireme_perf.overhead.tracing import sampling  # needs OpenTelemetry, as nothing else here

            telemetry, end = sampling(way.sampled, otlp_url, SPAN_DELAY_MS)
            stack.callback(end)
        connection = await ClientConnection.open(address, self._model, traffic.coalescing, telemetry)
        stack.push_async_callback(connection.close)
        return Side(str(way), partial(connection.ask, ledger=way.ledger), server)

    async def _load(
        self,
        name: str,
        traffic: Traffic,
        sides: tuple[tuple[Side, Server], tuple[Side, Server]],
        target: float | None,
    ) -> dict[str, Any]:
        for side, _ in sides:
            await warm(side, self._users)
        with no_collection():
            paced = await closed_loop(sides[0][0].ask, self._users.take(PACE), traffic.concurrency)
        users = max(1, round(paced.answered / paced.wall_s * TURN_S))
        turns = Turns(max(1, round(self._settings.seconds / TURN_S)), users, traffic.concurrency)
        self._tell(f"  {name}: {self._settings.rounds} rounds of 2 × {turns.turns} turns of {users:,} users")
        rounds = await take_turns(
            sides, self._settings.rounds, turns, self._users, self._rng, partial(self._tell_round, name)
        )
        return {"users": turns.turns * users, **_figures(rounds, target)}

    def _tell_round(self, load: str, number: int, costs: tuple[Cost, Cost]) -> None:
        told = ", ".join(f"{cost.server_us:.0f}" for cost in costs)
        self._tell(f"    {load}, round {number + 1} of {self._settings.rounds}: {told} µs of server CPU per user")


def _figures(rounds: list[tuple[Cost, Cost]], target: float | None) -> dict[str, Any]:
    server = [(a.server_us, b.server_us) for a, b in rounds]
    client = [(a.client_us, b.client_us) for a, b in rounds]
    return {
        "server_us_per_user": _costs(server),
        "client_us_per_user": _costs(client),
        "state": _state(median_ratio(server), target),
    }


def _costs(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    a, b = (statistics.median(costs) for costs in zip(*pairs, strict=True))
    return {"a": a, "b": b, "ratio": estimate_document(median_ratio(pairs))}


def _state(ratio: Estimate, target: float | None) -> str | None:
    if target is None:
        return None
    if ratio.high <= target:
        return "kept"
    return "exceeded" if ratio.low > target else "unclear"
