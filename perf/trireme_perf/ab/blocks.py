"""Rounds of traffic on two servers: short blocks in turn, in random order, with the same work for both.

Both blocks of a round see the same phase of the machine. A difference of one percent drowns in what a shared machine does from
one second to the next, so a closed loop takes turns of a tenth of a second. As every server has processes of its own,
whose CPU time the kernel counts by itself, it is read over the whole round: what a server does later for an answer
(publish metrics, send spans) still counts for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trireme_perf.errors import PerfError
from trireme_perf.host.server import Server
from trireme_perf.host.usage import Usage
from trireme_perf.load.probe import Ask, Latencies, closed_loop, no_collection

__all__ = ["Block", "Course", "Load", "Rounds", "Side", "in_turn"]


@dataclass(frozen=True)
class Side:
    """One of the two that take turns. server: its processes; None if they are not ours to look at. loop: asks for
    users in a closed loop; None for that of ``probe``."""

    name: str
    ask: Ask
    server: Server | None
    loop: Callable[[Sequence[int], int], Awaitable[Latencies]] | None = None

    async def closed_loop(self, users: Sequence[int], concurrency: int) -> Latencies:
        """Raises: AskError: a request failed."""
        return await (self.loop(users, concurrency) if self.loop else closed_loop(self.ask, users, concurrency))

    def check(self, latencies: Latencies) -> None:
        """Raises: PerfError: a request failed or was not answered. StartError: the server ended."""
        if self.server:
            self.server.check()
        if latencies.errors:
            raise PerfError(f"{self.name}: {latencies.first_error}")
        if latencies.answered < latencies.planned:
            raise PerfError(
                f"{self.name} left {latencies.planned - latencies.answered} of {latencies.planned} requests of a block "
                "unanswered; a lower rate is needed"
            )


Load = Callable[[Side], Awaitable[Latencies]]


@dataclass(frozen=True)
class Course:
    """The course of a round: so many ``turns`` of both sides, each after a pause in which the other's server finishes its
    work, and at the end a time in which what was left for later is still counted; in seconds."""

    turns: int = 1
    pause_s: float = 0.1
    settle_s: float = 0.0


@dataclass(frozen=True)
class Block:
    """What one side did in a round.

    seconds: float64 (requests,), latencies. server_us, client_us: CPU time per user in µs, that of the server None if its
    processes cannot be looked at; the client is this process. steal_share: of all cores' time in the round, what the host
    gave to others; None with the former.
    """

    seconds: NDArray[np.float64]
    server_us: float | None
    client_us: float
    steal_share: float | None


Rounds = Sequence[tuple[Block, Block]]
"""The blocks of both sides, by round."""


async def in_turn(
    sides: tuple[Side, Side],
    rounds: int,
    rng: np.random.Generator,
    draw: Callable[[], Load],
    on_round: Callable[[int, tuple[Block, Block]], None],
    course: Course = Course(),
) -> list[tuple[Block, Block]]:
    """Puts a load of ``draw`` on both sides in every turn; which of them is first is drawn too.

    Raises:
        PerfError: a request failed or was not answered. StartError: a server ended.
    """
    measured: list[tuple[Block, Block]] = []
    for number in range(rounds):
        measured.append(await _round(sides, rng, draw, course))
        on_round(number, measured[-1])
    return measured


@dataclass
class _Tally:
    """What one side did so far in a round."""

    seconds: list[NDArray[np.float64]] = field(default_factory=list)
    client_s: float = 0.0

    async def add(self, side: Side, load: Load) -> None:
        with no_collection():
            before = time.process_time()
            latencies = await load(side)
            self.client_s += time.process_time() - before
        side.check(latencies)
        self.seconds.append(latencies.seconds)

    def block(self, usage: Usage | None) -> Block:
        seconds = np.concatenate(self.seconds)
        per_user = 1e6 / len(seconds)
        server_us, steal = (usage.server_cpu_s * per_user, usage.steal_share) if usage else (None, None)
        return Block(seconds, server_us, self.client_s * per_user, steal)


async def _round(
    sides: tuple[Side, Side], rng: np.random.Generator, draw: Callable[[], Load], course: Course
) -> tuple[Block, Block]:
    tallies = (_Tally(), _Tally())
    meters = [side.server.meter() if side.server else None for side in sides]
    for _ in range(course.turns):
        load = draw()
        for which in rng.permutation(2).tolist():
            await asyncio.sleep(course.pause_s)
            await tallies[which].add(sides[which], load)
    await asyncio.sleep(course.settle_s)
    first, second = (tally.block(meter.read() if meter else None) for tally, meter in zip(tallies, meters, strict=True))
    return first, second
