"""The same users asked of two servers in turn, a tenth of a second on each, so finely that both see the same machine.

A block on one server and then one on the other would do for a difference of ten percent; one percent drowns in what a shared
machine does from one second to the next. As every server has processes of its own, whose CPU time the kernel counts by
itself, turns may be as short as one likes, and what a server does later for an answer (publish metrics, send spans)
still counts for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trireme_perf.ab.blocks import Side, check_answered
from trireme_perf.host.server import Server
from trireme_perf.load.probe import closed_loop, no_collection
from trireme_perf.load.users import UserMix
from trireme_perf.stats.bootstrap import Estimate, estimate_median

__all__ = ["Cost", "Turns", "median_ratio", "take_turns"]

#: Spans are sent in batches, so long after its turns at most. Metrics that are still to be published count with the next round.
SETTLE_S = 1.2


@dataclass(frozen=True)
class Cost:
    """CPU time per user in one round, µs, of the server's processes and of the client, which is this process."""

    server_us: float
    client_us: float


@dataclass(frozen=True)
class Turns:
    """``turns`` on either side make a round; in each, ``users`` are asked in a closed loop, ``concurrency`` at a time."""

    turns: int
    users: int
    concurrency: int


async def take_turns(
    sides: tuple[tuple[Side, Server], tuple[Side, Server]],
    rounds: int,
    turns: Turns,
    users: UserMix,
    rng: np.random.Generator,
    on_round: Callable[[int, tuple[Cost, Cost]], None],
) -> list[tuple[Cost, Cost]]:
    """What both sides cost, by round. Which of them is asked first is drawn for every turn.

    Raises:
        PerfError: a request failed or was not answered. StartError: a server ended.
    """
    measured = []
    for number in range(rounds):
        with no_collection():
            meters = [server.meter() for _, server in sides]
            client = [0.0, 0.0]
            for _ in range(turns.turns):
                chosen = users.take(turns.users)
                for which in rng.permutation(2).tolist():
                    side = sides[which][0]
                    before = time.process_time()
                    latencies = await closed_loop(side.ask, chosen, turns.concurrency)
                    client[which] += time.process_time() - before
                    check_answered(side, latencies)
            await asyncio.sleep(SETTLE_S)
            server = [meter.read().server_cpu_s for meter in meters]
        per_user = 1e6 / (turns.turns * turns.users)
        first, second = (Cost(server[which] * per_user, client[which] * per_user) for which in (0, 1))
        measured.append((first, second))
        on_round(number, measured[-1])
    return measured


def median_ratio(pairs: list[tuple[float, float]]) -> Estimate:
    """The median over rounds of the second over the first, with its interval: both of a round saw the same phase of the machine,
    so they are set against each other before anything is averaged."""
    return estimate_median(np.array([after / before for before, after in pairs]))
