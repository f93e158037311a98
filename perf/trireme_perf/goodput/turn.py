"""One contestant in one round: every figure that is taken from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trireme_perf.goodput.contestants import Connection
from trireme_perf.goodput.search import SLOWEST, find_goodput
from trireme_perf.host.server import Server
from trireme_perf.host.usage import Usage
from trireme_perf.load.arrivals import UserMix, poisson_arrivals
from trireme_perf.load.probe import Latencies, closed_loop, no_collection, open_loop, percentile

__all__ = ["Load", "Probe", "Turn", "take_turn"]

KEEPS_UP = 0.98  # achieved over offered rate
SATURATED = 0.9  # share of its core from which on the load generator is the bottleneck
ALONE = 100  # requests one after another
SHARES = (0.4, 0.8)  # of the goodput: loads at which the latency is measured; the last is what figures are quoted at
FEWEST = 100  # requests in a probe, which takes longer for that if it must: a p99 of fewer is their maximum
TRIES = 2  # probes that must miss the SLO before a rate counts as too high
STOLEN = 0.02  # share of the machine's time that a hypervisor may take before a miss says nothing of the server
PATIENCE, PAUSE_S = 12, 1.0  # so many such misses of a rate are not counted; the pause after each of them
CAPACITY_CONCURRENCY = 32
FIRST_GUESS = 0.7  # of the closed-loop capacity
FIRST_STEP, LATER_STEP = 1.5, 1.1
SETTLE_S = 10.0


@dataclass(frozen=True)
class Probe:
    """One open-loop load. Rates in users/s, shares of one core or (steal, others) of the machine's time; latencies from
    the scheduled arrival, those of an aborted probe are lower bounds."""

    offered: float
    achieved: float
    requests: int
    answered: int
    errors: int
    first_error: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    aborted: bool
    meets_slo: bool
    server_cpu_us_per_user: float
    load_cpu_us_per_user: float
    server_core_share: float
    load_core_share: float
    steal_share: float
    others_share: float

    @property
    def load_generator_saturated(self) -> bool:
        return self.load_core_share > SATURATED


@dataclass(frozen=True)
class Turn:
    """What one contestant did in one round.

    goodput: users/s, 0 if no rate met the SLO. limited_by_load_generator: the rate that missed the SLO did so with the
    load generator's core full, so the goodput is only known to be at least this. at_goodput: the probe that met the
    SLO there, of which CPU time is quoted. quoted: the probe at 80 % of it, of which latency is quoted. Both are None
    without goodput. alone_*: one request after another. pss_bytes: of all processes, at the end.
    """

    goodput: float
    limited_by_load_generator: bool
    at_goodput: Probe | None
    quoted: Probe | None
    alone_p50_ms: float
    alone_p99_ms: float
    capacity: float
    pss_bytes: int
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class Load:
    """What a turn is measured with: seconds per probe, the SLO on p99 in seconds, who asks, and the randomness of the
    arrivals."""

    seconds: float
    slo_s: float
    users: UserMix
    rng: np.random.Generator


async def take_turn(
    server: Server, connection: Connection, load: Load, earlier: float | None, on_probe: Callable[[Probe], None]
) -> Turn:
    """Measures a server that is ready and warm.

    Args:
        earlier: median goodput of earlier rounds, where the search begins; None for a search from the start.

    Raises:
        AskError: a request failed without load. StartError: the server ended.
    """
    return await _Measurement(server, connection, load, on_probe).run(earlier)


class _Measurement:
    def __init__(self, server: Server, connection: Connection, load: Load, on_probe: Callable[[Probe], None]) -> None:
        self._server, self._connection, self._load, self._on_probe = server, connection, load, on_probe
        self._probes: list[Probe] = []
        self._alone_s = 0.0

    async def run(self, earlier: float | None) -> Turn:
        alone = await self._closed(ALONE, 1)
        self._alone_s = percentile(alone.seconds, 50)
        enough = max(2 * CAPACITY_CONCURRENCY, int(self._load.seconds / self._alone_s))
        crowd = await self._closed(enough, CAPACITY_CONCURRENCY)
        capacity = crowd.answered / crowd.wall_s
        start, step = (earlier, LATER_STEP) if earlier else (max(SLOWEST, FIRST_GUESS * capacity), FIRST_STEP)
        goodput, missed = await find_goodput(self._meets, start, step=step)
        limiting = [probe for probe in self._probes if probe.offered == missed]
        met = [probe for probe in self._probes if probe.offered == goodput and probe.meets_slo]
        at_shares = [await self._undisturbed(share * goodput) for share in SHARES if goodput]
        self._server.check()
        return Turn(
            goodput=goodput,
            limited_by_load_generator=any(probe.load_generator_saturated for probe in limiting),
            at_goodput=met[-1] if met else None,
            quoted=at_shares[-1] if at_shares else None,
            alone_p50_ms=self._alone_s * 1e3,
            alone_p99_ms=percentile(alone.seconds, 99) * 1e3,
            capacity=capacity,
            pss_bytes=self._server.pss_bytes(),
            probes=tuple(self._probes),
        )

    async def _closed(self, requests: int, concurrency: int) -> Latencies:
        with no_collection():
            return await closed_loop(self._connection.ask, self._load.users.take(requests), concurrency)

    async def _meets(self, rate: float) -> bool:
        """A hiccup of the machine can spoil any probe, so a rate is missed only when ``TRIES`` probes miss it, and a miss
        while another virtual machine had the processor does not count. Most misses are aborted within a fraction of a probe."""
        misses = disturbed = 0
        while misses < TRIES:
            probe = await self._probe(rate, self._load.slo_s)
            if probe.meets_slo:
                return True
            if probe.steal_share > STOLEN and disturbed < PATIENCE:
                disturbed += 1
                await asyncio.sleep(PAUSE_S)
            else:
                misses += 1
        return False

    async def _undisturbed(self, rate: float) -> Probe:
        """A probe of the latency at this rate; the one with the least stolen time of those that it took."""
        probes = [await self._probe(rate, float("inf"))]
        while probes[-1].steal_share > STOLEN and len(probes) <= PATIENCE:
            await asyncio.sleep(PAUSE_S)
            probes.append(await self._probe(rate, float("inf")))
        return min(probes, key=lambda probe: probe.steal_share)

    async def _probe(self, rate: float, lost_s: float) -> Probe:
        """One load; it is given up when p99 <= ``lost_s`` is out of reach. Leaves the server without a backlog."""
        seconds = max(self._load.seconds, FEWEST / rate)
        arrivals = poisson_arrivals(rate, seconds, self._load.rng)
        users = self._load.users.take(len(arrivals))
        with no_collection():
            meter = self._server.meter()
            latencies = await open_loop(self._connection.ask, users, arrivals, lost_s)
            usage = meter.read()
        self._server.check()
        probe = _summary(rate, seconds, self._load.slo_s, latencies, usage)
        self._probes.append(probe)
        self._on_probe(probe)
        if not probe.meets_slo:
            await self._settle()
        return probe

    async def _settle(self) -> None:
        """Waits until one request is as fast as it was alone: cancelled requests may still be in the server's queue."""
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            if (await self._closed(1, 1)).wall_s <= 2 * self._alone_s:
                return


def _summary(rate: float, seconds: float, slo_s: float, latencies: Latencies, usage: Usage) -> Probe:
    achieved = latencies.answered / max(seconds, latencies.wall_s)
    p99 = percentile(latencies.seconds, 99)
    complete = not latencies.aborted and latencies.answered == latencies.planned
    per_user = 1e6 / max(1, latencies.answered)
    return Probe(
        offered=rate,
        achieved=achieved,
        requests=latencies.sent,
        answered=latencies.answered,
        errors=latencies.errors,
        first_error=latencies.first_error,
        p50_ms=percentile(latencies.seconds, 50) * 1e3,
        p95_ms=percentile(latencies.seconds, 95) * 1e3,
        p99_ms=p99 * 1e3,
        aborted=latencies.aborted,
        meets_slo=complete and p99 <= slo_s and achieved >= KEEPS_UP * rate,
        server_cpu_us_per_user=usage.server_cpu_s * per_user,
        load_cpu_us_per_user=usage.load_cpu_s * per_user,
        server_core_share=usage.server_cpu_s / usage.wall_s,
        load_core_share=usage.load_cpu_s / usage.wall_s,
        steal_share=usage.steal_share,
        others_share=usage.others_share,
    )
