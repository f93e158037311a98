"""Blocks of traffic on two servers in turn: rounds of one block each, in random order, with the same work in both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trireme_perf.errors import PerfError
from trireme_perf.host.server import Server
from trireme_perf.load.probe import Ask, Latencies, no_collection
from trireme_perf.stats.bootstrap import FEWEST_ROUNDS, Contrast, contrast

__all__ = [
    "Block",
    "Load",
    "Rounds",
    "Side",
    "check_answered",
    "check_rounds",
    "contrast_client_cpu",
    "contrast_server_cpu",
    "in_turn",
]

PAUSE_S = 0.1  # what one server has left to do is not to be in the other's way

Load = Callable[[Ask], Awaitable[Latencies]]


@dataclass(frozen=True)
class Side:
    """One of the two that take turns. server: its processes; None if they are not ours to look at."""

    name: str
    ask: Ask
    server: Server | None


@dataclass(frozen=True)
class Block:
    """
    seconds: float64 (requests,), latencies. server_us, client_us: CPU time per user in µs, that of the server None if its
    processes cannot be looked at; the client is this process. steal_share: of all cores' time, what the host gave to others;
    None with the former.
    """

    seconds: NDArray[np.float64]
    server_us: float | None
    client_us: float
    steal_share: float | None


Rounds = Sequence[tuple[Block, Block]]
"""The blocks of both sides, by round."""


def check_rounds(rounds: int, seconds: float) -> None:
    """Raises: PerfError: too few rounds for an interval, or no time for a block."""
    if rounds < FEWEST_ROUNDS:
        raise PerfError(f"rounds is {rounds}, must be at least {FEWEST_ROUNDS}: fewer cannot be told from chance")
    if not 0 < seconds < float("inf"):
        raise PerfError(f"seconds is {seconds:g}, must be more than 0")


async def in_turn(
    sides: tuple[Side, Side],
    rounds: int,
    rng: np.random.Generator,
    draw: Callable[[], Load],
    on_round: Callable[[int, tuple[Block, Block]], None],
) -> list[tuple[Block, Block]]:
    """Puts a load of ``draw`` on both sides in every round, which of them first is drawn too.

    Raises:
        PerfError: a request failed or was not answered. StartError: a server ended.
    """
    measured: list[tuple[Block, Block]] = []
    for number in range(rounds):
        load = draw()
        blocks: dict[int, Block] = {}
        for which in rng.permutation(2).tolist():
            await asyncio.sleep(PAUSE_S)
            blocks[which] = await _measure(sides[which], load)
        measured.append((blocks[0], blocks[1]))
        on_round(number, measured[-1])
    return measured


def contrast_server_cpu(rounds: Rounds) -> Contrast | None:
    """Medians over blocks of the server's CPU time per user; None if it is not known of both."""
    costs = [(a.server_us, b.server_us) for a, b in rounds]
    return _contrast_medians([(a, b) for a, b in costs if a is not None and b is not None])


def contrast_client_cpu(rounds: Rounds) -> Contrast | None:
    """Medians over blocks of this process's CPU time per user."""
    return _contrast_medians([(a.client_us, b.client_us) for a, b in rounds])


def _contrast_medians(pairs: Sequence[tuple[float, float]]) -> Contrast | None:
    if not pairs:
        return None
    return contrast([np.array([a]) for a, _ in pairs], [np.array([b]) for _, b in pairs], "p50")


def check_answered(side: Side, latencies: Latencies) -> None:
    """Raises: PerfError: a request failed or was not answered. StartError: the server ended."""
    if side.server:
        side.server.check()
    if latencies.errors:
        raise PerfError(f"{side.name}: {latencies.first_error}")
    if latencies.answered < latencies.planned:
        raise PerfError(
            f"{side.name} left {latencies.planned - latencies.answered} of {latencies.planned} requests of a block "
            "unanswered; a lower rate is needed"
        )


async def _measure(side: Side, load: Load) -> Block:
    with no_collection():
        meter = side.server.meter() if side.server else None
        before = time.process_time()
        latencies = await load(side.ask)
        client = time.process_time() - before
        usage = meter.read() if meter else None
    check_answered(side, latencies)
    per_user = 1e6 / latencies.answered
    server_us, steal = (usage.server_cpu_s * per_user, usage.steal_share) if usage else (None, None)
    return Block(latencies.seconds, server_us, client * per_user, steal)
