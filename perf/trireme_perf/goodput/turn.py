"""One contestant in one round: every figure that is taken from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from trireme_perf.goodput.contestants import Running
from trireme_perf.goodput.search import SLOWEST, find_goodput
from trireme_perf.host.usage import Meter, Usage
from trireme_perf.load.arrivals import poisson_arrivals
from trireme_perf.load.preparation import capacity
from trireme_perf.load.probe import Latencies, closed_loop, no_collection, open_loop
from trireme_perf.load.users import UserMix
from trireme_perf.stats.percentiles import FEWEST_FOR_P99, percentile, reported_p99

__all__ = ["Load", "Probe", "Turn", "take_turn"]

KEEPS_UP = 0.98  # achieved over offered rate
SATURATED = 0.9  # share of its core from which on the load generator is the bottleneck
ALONE = 100  # requests one after another
SHARES = (0.4, 0.8)  # of the goodput: loads at which the latency is measured; the last is what figures are quoted at
TRIES = 2  # probes that must miss the SLO before a rate counts as too high
STOLEN = 0.02  # share of the machine's time that a hypervisor may take; with more, a miss is not the server's
PATIENCE, PAUSE_S = 12, 1.0  # this many such misses of a rate are not counted; the pause after each of them
CAPACITY_CONCURRENCY = 32
FIRST_GUESS = 0.7  # of the closed-loop capacity
FIRST_STEP, LATER_STEP = 1.5, 1.1
SETTLE_S = 10.0


@dataclass(frozen=True)
class Probe:
    """One open-loop load. Rates in users/s, shares of one core or (steal, others) of the machine's time; latencies from
    the scheduled arrival, those of an aborted probe are lower bounds. p99_ms is None of too few requests, and what the
    server and others use is None where the server's processes are unknown."""

    offered: float
    achieved: float
    requests: int
    answered: int
    errors: int
    first_error: str
    p50_ms: float
    p95_ms: float
    p99_ms: float | None
    aborted: bool
    meets_slo: bool
    server_cpu_us_per_user: float | None
    load_cpu_us_per_user: float
    server_core_share: float | None
    load_core_share: float
    steal_share: float
    others_share: float | None

    @property
    def load_generator_saturated(self) -> bool:
        return self.load_core_share > SATURATED


@dataclass(frozen=True)
class Turn:
    """The figures of one contestant in one round.

    goodput: users/s, 0 if no rate met the SLO. limited_by_load_generator: the rate that missed the SLO did so with the
    load generator's core full, so the goodput is only known to be at least this. at_goodput: the probe that met the
    SLO there, of which CPU time is quoted. quoted: the probe at 80 % of it, of which latency is quoted. Both are None
    without goodput. alone_*: one request after another. capacity: users/s in a closed loop. pss_bytes: of all processes
    at the end, None if they are unknown.
    """

    goodput: float
    limited_by_load_generator: bool
    at_goodput: Probe | None
    quoted: Probe | None
    alone_p50_ms: float
    alone_p99_ms: float | None
    capacity: float
    pss_bytes: int | None
    probes: tuple[Probe, ...]


@dataclass(frozen=True)
class Load:
    """The load of a turn: seconds per probe, the SLO on p99 in seconds, who asks, and the randomness of the arrivals."""

    seconds: float
    slo_s: float
    users: UserMix
    rng: np.random.Generator


async def take_turn(running: Running, load: Load, earlier: float | None, on_probe: Callable[[Probe], None]) -> Turn:
    """Measures a server that is ready and warm.

    Args:
        running: the server, and how to ask it.
        load: what it is measured with.
        earlier: median goodput of earlier rounds, where the search begins; None for a search from the start.
        on_probe: receives every probe as it ends.

    Raises:
        AskError: a request failed without load. StartError: the server ended.
    """
    return await _Measurement(running, load, on_probe).run(earlier)


class _Measurement:
    def __init__(self, running: Running, load: Load, on_probe: Callable[[Probe], None]) -> None:
        self._server, self._ask = running.server, running.connection.ask
        self._load, self._on_probe = load, on_probe
        self._probes: list[Probe] = []
        self._alone_s = 0.0

    async def run(self, earlier: float | None) -> Turn:
        with no_collection():
            alone = await closed_loop(self._ask, self._load.users.take(ALONE), 1)
        self._alone_s = percentile(alone.seconds, 50)
        crowd = max(2 * CAPACITY_CONCURRENCY, int(self._load.seconds / self._alone_s))
        most = await capacity(self._ask, self._load.users.take(crowd), CAPACITY_CONCURRENCY)
        start, step = (earlier, LATER_STEP) if earlier else (max(SLOWEST, FIRST_GUESS * most), FIRST_STEP)
        goodput, missed = await find_goodput(self._meets, start, step=step)
        limiting = [probe for probe in self._probes if probe.offered == missed]
        met = [probe for probe in self._probes if probe.offered == goodput and probe.meets_slo]
        at_shares = [await self._undisturbed(share * goodput) for share in SHARES if goodput]
        return Turn(
            goodput=goodput,
            limited_by_load_generator=any(probe.load_generator_saturated for probe in limiting),
            at_goodput=met[-1] if met else None,
            quoted=at_shares[-1] if at_shares else None,
            alone_p50_ms=self._alone_s * 1e3,
            alone_p99_ms=_ms(reported_p99(alone.seconds)),
            capacity=most,
            pss_bytes=self._server.pss_bytes() if self._server else None,
            probes=tuple(self._probes),
        )

    async def _meets(self, rate: float) -> bool:
        """Whether the SLO is met at this rate; a miss takes ``TRIES`` probes, as a hiccup of the machine can spoil any.

        A miss while another virtual machine had the processor does not count. Most misses end within a fraction of a probe.
        """
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
        """Probes the latency at this rate until no time is stolen; returns the probe with the least of it."""
        probes = [await self._probe(rate, float("inf"))]
        while probes[-1].steal_share > STOLEN and len(probes) <= PATIENCE:
            await asyncio.sleep(PAUSE_S)
            probes.append(await self._probe(rate, float("inf")))
        return min(probes, key=lambda probe: probe.steal_share)

    async def _probe(self, rate: float, lost_s: float) -> Probe:
        """Puts one load on the server; gives up when p99 <= ``lost_s`` is out of reach. Leaves no backlog behind.

        It takes longer than the load's ``seconds`` where its p99 would be of too few requests.
        """
        seconds = max(self._load.seconds, FEWEST_FOR_P99 / rate)
        arrivals = poisson_arrivals(rate, seconds, self._load.rng)
        users = self._load.users.take(len(arrivals))
        with no_collection():
            meter = self._server.meter() if self._server else Meter()
            latencies = await open_loop(self._ask, users, arrivals, lost_s)
            usage = meter.read()
        probe = _summary(rate, seconds, self._load.slo_s, latencies, usage)
        if self._server:
            self._server.check()
        else:
            probe = replace(probe, server_cpu_us_per_user=None, server_core_share=None, others_share=None)
        self._probes.append(probe)
        self._on_probe(probe)
        if not probe.meets_slo:
            await self._settle()
        return probe

    async def _settle(self) -> None:
        """Waits until one request is as fast as it was alone: cancelled requests may still be in the server's queue."""
        deadline = time.monotonic() + SETTLE_S
        with no_collection():
            while time.monotonic() < deadline:
                one = await closed_loop(self._ask, self._load.users.take(1), 1)
                if one.wall_s <= 2 * self._alone_s:
                    return


def _summary(rate: float, seconds: float, slo_s: float, latencies: Latencies, usage: Usage) -> Probe:
    p50 = percentile(latencies.seconds, 50)
    # The last to come are not answered before the usual latency has passed, which must not count as falling behind.
    achieved = latencies.answered / max(seconds, latencies.wall_s - p50)
    in_time = percentile(latencies.seconds, 99) <= slo_s
    complete = not latencies.aborted and latencies.answered == latencies.planned
    per_user = 1e6 / max(1, latencies.answered)
    return Probe(
        offered=rate,
        achieved=achieved,
        requests=len(latencies.seconds),
        answered=latencies.answered,
        errors=latencies.errors,
        first_error=latencies.first_error,
        p50_ms=p50 * 1e3,
        p95_ms=percentile(latencies.seconds, 95) * 1e3,
        p99_ms=_ms(reported_p99(latencies.seconds)),
        aborted=latencies.aborted,
        meets_slo=complete and in_time and achieved >= KEEPS_UP * rate,
        server_cpu_us_per_user=usage.server_cpu_s * per_user,
        load_cpu_us_per_user=usage.load_cpu_s * per_user,
        server_core_share=usage.server_cpu_s / usage.wall_s,
        load_core_share=usage.load_cpu_s / usage.wall_s,
        steal_share=usage.steal_share,
        others_share=usage.others_share,
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
