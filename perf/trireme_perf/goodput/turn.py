"""One contestant in one round: every figure that is taken from it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from trireme_perf.goodput.contestants import Running
from trireme_perf.goodput.probe import Probe, milliseconds, summary
from trireme_perf.goodput.search import SLOWEST, confirm_goodput, find_goodput
from trireme_perf.host.usage import Meter
from trireme_perf.load.arrivals import poisson_arrivals
from trireme_perf.load.preparation import capacity
from trireme_perf.load.probe import closed_loop, no_collection, open_loop
from trireme_perf.load.users import UserMix
from trireme_perf.stats.percentiles import FEWEST_FOR_P99, percentile, reported_p99

__all__ = ["Load", "Turn", "find_knee", "take_probe", "take_turn"]

ALONE = 100  # requests one after another
SHARES = (0.4, 0.8)  # of the goodput: loads at which the latency is measured; the last is what figures are quoted at
TRIES = 2  # probes that must miss the SLO before the search takes a rate for too high
CONFIRMATIONS, CONFIRM_S = (
    3,
    5.0,
)  # probes that must all meet it at the rate that was found, and the least length of each
PATIENCE, PAUSE_S = 12, 1.0  # disturbed probes of a turn that are repeated; the pause before each repetition
LATE = 1  # probes that are repeated in a row as the load generator was late; with more, it cannot offer this rate
CAPACITY_CONCURRENCY = 32
FIRST_GUESS = 0.7  # of the closed-loop capacity
FIRST_STEP, LATER_STEP = 1.5, 1.1
SETTLE_S = 10.0


@dataclass(frozen=True)
class Turn:
    """The figures of one contestant in one round.

    goodput: users/s, 0 if no rate met the SLO. limited_by_load_generator: at the rate that missed it, the load generator
    was late or its core full, so the goodput is only known to be at least this. under_steal: the machine found no rest, so
    probes count in which the host or other processes took its time. at_goodput: the last of the probes that confirmed the
    goodput, of which CPU time is quoted. quoted: the probe at 80 % of it, of which latency is quoted. Both are None without
    goodput. alone_*: one request after another. capacity: users/s in a closed loop. pss_bytes: of all processes at the end,
    None if they are unknown.
    """

    goodput: float
    limited_by_load_generator: bool
    under_steal: bool
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


async def find_knee(running: Running, load: Load) -> float:
    """Returns the highest rate that a search finds, which nothing confirms; raises as ``take_turn``."""
    return (await _Measurement(running, load, lambda probe: None).search(None))[0]


async def take_probe(running: Running, load: Load, rate: float) -> Probe:
    """Puts one load of that rate on a server that is ready and warm. Raises: StartError: the server ended."""
    return await _Measurement(running, load, lambda probe: None).probe(rate)


class _Measurement:
    def __init__(self, running: Running, load: Load, on_probe: Callable[[Probe], None]) -> None:
        self._server, self._ask = running.server, running.connection.ask
        self._load, self._on_probe = load, on_probe
        self._probes: list[Probe] = []
        self._alone_s = self._capacity = 0.0
        self._alone_p99_ms: float | None = None
        self._patience, self._under_steal = PATIENCE, False

    async def search(self, earlier: float | None) -> tuple[float, float]:
        """Returns what ``find_goodput`` does, after a look at the server in closed loops."""
        with no_collection():
            alone = await closed_loop(self._ask, self._load.users.take(ALONE), 1)
        self._alone_s, self._alone_p99_ms = percentile(alone.seconds, 50), milliseconds(reported_p99(alone.seconds))
        crowd = max(2 * CAPACITY_CONCURRENCY, int(self._load.seconds / self._alone_s))
        self._capacity = await capacity(self._ask, self._load.users.take(crowd), CAPACITY_CONCURRENCY)
        guess = max(SLOWEST, FIRST_GUESS * self._capacity)
        start, step = (earlier, LATER_STEP) if earlier else (guess, FIRST_STEP)
        return await find_goodput(self._meets, start, step=step)

    async def probe(self, rate: float) -> Probe:
        return await self._probe(rate, self._load.slo_s)

    async def run(self, earlier: float | None) -> Turn:
        goodput, missed = await confirm_goodput(self._confirms, *await self.search(earlier))
        # The last one, which counted: those before it may have been repeated.
        limiting = [probe for probe in self._probes if probe.offered == missed][-1:]
        confirming = self._probes[-1] if goodput else None
        at_shares = [await self._counted(share * goodput, float("inf"), CONFIRM_S) for share in SHARES if goodput]
        return Turn(
            goodput=goodput,
            limited_by_load_generator=any(probe.limited_by_load_generator for probe in limiting),
            under_steal=self._under_steal,
            at_goodput=confirming,
            quoted=at_shares[-1] if at_shares else None,
            alone_p50_ms=self._alone_s * 1e3,
            alone_p99_ms=self._alone_p99_ms,
            capacity=self._capacity,
            pss_bytes=self._server.pss_bytes() if self._server else None,
            probes=tuple(self._probes),
        )

    async def _meets(self, rate: float) -> bool:
        """Whether the SLO is met at this rate, for the search; a miss takes ``TRIES`` probes, as a hiccup can spoil any."""
        for _ in range(TRIES):
            if (await self._counted(rate, self._load.slo_s)).passes:
                return True
        return False

    async def _confirms(self, rate: float) -> bool:
        """Whether the SLO is met at this rate by every one of several longer probes."""
        for _ in range(CONFIRMATIONS):
            if not (await self._counted(rate, self._load.slo_s, CONFIRM_S)).passes:
                return False
        return True

    async def _counted(self, rate: float, lost_s: float, least_s: float = 0.0) -> Probe:
        """Probes until nobody disturbs it, or patience ends: then it counts all the same, and the turn says so.

        A probe whose load was late is repeated as well, and never passes.
        """
        late = LATE
        while True:
            probe = await self._probe(rate, lost_s, least_s)
            if probe.disturbed and self._patience:
                self._patience -= 1
            elif probe.generator_late and late:
                late -= 1
            else:
                self._under_steal |= probe.disturbed
                return probe
            await asyncio.sleep(PAUSE_S)

    async def _probe(self, rate: float, lost_s: float, least_s: float = 0.0) -> Probe:
        """Puts one load on the server; gives up when p99 <= ``lost_s`` is out of reach. Leaves no backlog behind.

        It takes longer than the load's ``seconds`` where these are fewer than ``least_s``, or its p99 would be of too few
        requests.
        """
        seconds = max(self._load.seconds, least_s, FEWEST_FOR_P99 / rate)
        arrivals = poisson_arrivals(rate, seconds, self._load.rng)
        users = self._load.users.take(len(arrivals))
        rungs: Counter[int] = Counter()

        async def ask(user_id: int) -> None:
            rungs[(await self._ask(user_id)).rung] += 1

        with no_collection():
            meter = self._server.meter() if self._server else Meter()
            latencies = await open_loop(ask, users, arrivals, lost_s)
            usage = meter.read()
        probe = replace(summary(rate, seconds, self._load.slo_s, latencies, usage), rungs=dict(rungs))
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
            while self._alone_s and time.monotonic() < deadline:
                one = await closed_loop(self._ask, self._load.users.take(1), 1)
                if one.wall_s <= 2 * self._alone_s:
                    return
