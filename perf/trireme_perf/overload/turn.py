"""One contestant in one round, on a fresh server: its capacity, what a refused request costs, and the points of its curve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trireme_perf.errors import PerfError
from trireme_perf.ledger.histograms import read_metrics
from trireme_perf.overload.contestants import Contestant, Served
from trireme_perf.overload.generator import Crowd, Generators
from trireme_perf.overload.point import FULL, Point, merge
from trireme_runtime.triton.metrics import ANSWERS, PERIOD_S

__all__ = ["Turn", "take_turn"]

CONCURRENCY = 32  # of each process, for the capacity
FIRST_USERS = 128  # of each process, for a first idea of it
CAPACITY_S = 3.0
PUBLISHED_S = PERIOD_S + 0.5  # after which the server has published what it counted


@dataclass(frozen=True)
class Turn:
    """capacity: users/s of a closed loop without deadlines. cpu_us: the server's CPU time per user then. shed_cpu_us: the same of
    requests that it does not compute; None if that cannot be measured. points: in the order of their multiples."""

    capacity: float
    cpu_us: float
    shed_cpu_us: float | None
    points: tuple[Point, ...]

    @property
    def shed_cost(self) -> float | None:
        """What a request that is not computed costs, as a share of a full one."""
        return None if self.shed_cpu_us is None else self.shed_cpu_us / self.cpu_us

    @property
    def peak(self) -> float:
        """The highest goodput of the points that count, users/s; 0 without one."""
        return max((point.goodput for point in self.points if not point.invalid), default=0.0)


async def take_turn(
    contestant: Contestant,
    served: Served,
    generators: Generators,
    multiples: Sequence[float],
    seconds: float,
    deadline_s: float,
    on_point: Callable[[Point], None],
) -> Turn:
    """Measures a server that is ready.

    Args:
        multiples: of the capacity, in the order in which they are put on the server.
        seconds: of each point.
        deadline_s: in which callers want their answer.
        on_point: receives every point as it ends.

    Raises:
        PerfError: the server or a process of the load generator ended, or a request failed without load.
    """
    await generators.open(contestant.caller, served.address, contestant.model, deadline_s)
    measurement = _Measurement(contestant, served, generators)
    capacity, cpu_us = await measurement.closed("ask_patiently")
    shed_cpu_us = await measurement.shed_cpu_us() if contestant.sheds_plainly else None
    points = []
    await measurement.count()
    for multiple in multiples:
        points.append(await measurement.point(multiple, multiple * capacity, seconds, deadline_s))
        on_point(points[-1])
    return Turn(capacity, cpu_us, shed_cpu_us, tuple(sorted(points, key=lambda point: point.multiple)))


class _Measurement:
    def __init__(self, contestant: Contestant, served: Served, generators: Generators) -> None:
        self._model, self._served, self._generators = contestant.model, served, generators
        self._cut_short = 0.0
        self._computed: int | None = None

    async def closed(self, method: str) -> tuple[float, float]:
        """Returns the users/s of a closed loop, and the server's CPU time per user in µs."""
        processes = len(self._generators.pids)
        first = await self._crowd(method, FIRST_USERS)
        meter = self._served.server.meter()
        crowd = await self._crowd(method, max(FIRST_USERS, round(first.rate / processes * CAPACITY_S)))
        self._cut_short = crowd.cut_short / crowd.users
        return crowd.rate, meter.read().server_cpu_s * 1e6 / crowd.users

    async def shed_cpu_us(self) -> float:
        """Returns the CPU time of a request that has no time left. Raises: PerfError: the server computed some all the same."""
        cpu_us = (await self.closed("ask_in_vain"))[1]
        if self._cut_short < 1:
            raise PerfError(f"{1 - self._cut_short:.1%} of the requests without any time left were computed in full")
        return cpu_us

    async def point(self, multiple: float, rate: float, seconds: float, deadline_s: float) -> Point:
        before = self._computed
        meter = self._served.server.meter(self._generators.pids)
        parts = await self._generators.load(rate, seconds)
        usage = meter.read()
        self._served.server.check()
        await self._generators.settle()
        point = merge(parts, usage, multiple, rate, seconds, deadline_s)
        await self.count()
        if before is None or self._computed is None:
            return point
        settling = len(self._generators.pids)  # requests that are not of the load
        return replace(point, computed_full=self._computed - before - settling)

    async def count(self) -> None:
        """Reads the full answers of the model so far, which the next point is counted from, if the server counts them."""
        if not self._served.metrics_url:
            return
        await asyncio.sleep(PUBLISHED_S)
        samples = [sample for family in read_metrics(self._served.metrics_url) for sample in family.samples]
        counted = [
            sample.value
            for sample in samples
            if sample.name == ANSWERS and sample.labels["model"] == self._model and sample.labels["rung"] == str(FULL)
        ]
        self._computed = round(sum(counted)) if counted else None

    async def _crowd(self, method: str, users: int) -> Crowd:
        crowd = await self._generators.closed(method, users, CONCURRENCY)
        self._served.server.check()
        return crowd
