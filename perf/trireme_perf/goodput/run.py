"""Contestants one after another, round after round, each on a fresh server, with the limit before every turn."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_perf.errors import PerfError
from trireme_perf.goodput.answers import check_answer, check_rung
from trireme_perf.goodput.contestants import Contestant, Running
from trireme_perf.goodput.probe import Probe
from trireme_perf.goodput.turn import Load, Turn, take_turn
from trireme_perf.host.server import StartError
from trireme_perf.load.connections import Answer
from trireme_perf.load.preparation import answers_to, warm_up
from trireme_perf.load.probe import AskError, run_precisely
from trireme_perf.load.users import UserMix

__all__ = ["Measured", "Reference", "Settings", "measure"]

SEED = 20060508
CHECKED_AT = (1, 32)  # requests at once: alone, and in whatever batches the contestant makes
MAY_FAIL = ("peer", "baseline")


@dataclass(frozen=True)
class Settings:
    """How long and against what: at least one round, seconds per probe > 0, the SLO on p99 in ms > 0."""

    rounds: int = 5
    seconds: float = 3.0
    slo_ms: float = 20.0


@dataclass(frozen=True)
class Reference:
    """What contestants are held against.

    limit: measures the in-process limit with users in the order of a seed, see ``limit.in_process``. answers: by user,
    those that are right.
    """

    limit: Callable[[Sequence[int]], dict[str, Any]]
    answers: Mapping[int, Answer]


@dataclass(frozen=True)
class Measured:
    """Complete rounds.

    turns: by contestant, one of each round. limits: likewise, measured right before; none without a reference. failed: the
    reason by contestant that failed on the way. ended_early: why there are fewer rounds than were wanted; empty if there
    are not.
    """

    rounds: int
    turns: dict[str, list[Turn]]
    limits: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    checked_users: int = 0
    ended_early: str = ""


def measure(
    contestants: Sequence[Contestant],
    user_ids: NDArray[np.int64],
    settings: Settings,
    tell: Callable[[str], None],
    reference: Reference | None = None,
) -> Measured:
    """Measures every contestant in every round, in an order that moves on by one per round.

    A peer or baseline that fails is left out from then on, with its reason. Any other contestant that fails, or a Ctrl-C,
    ends the run with the rounds before it.

    Args:
        contestants: who takes part, at least one.
        user_ids: int64 (users,), who ask.
        settings: how long and against what.
        tell: receives progress, line by line.
        reference: what contestants are held against; None for no limit and no check of answers.

    Raises:
        PerfError: a contestant that may not fail did in the first round, or no contestant was left.
        DifferenceError: a contestant's answer differs from that of the reference.
    """
    return run_precisely(_Run(user_ids, settings, tell, reference).all(list(contestants)))


class _Run:
    def __init__(
        self,
        user_ids: NDArray[np.int64],
        settings: Settings,
        tell: Callable[[str], None],
        reference: Reference | None,
    ) -> None:
        self._user_ids, self._settings, self._tell, self._reference = user_ids, settings, tell, reference
        self._turns: dict[str, list[Turn]] = {}
        self._limits: dict[str, list[dict[str, Any]]] = {}
        self._failed: dict[str, str] = {}

    async def all(self, contestants: list[Contestant]) -> Measured:
        complete, ended_early = 0, ""
        for number in range(self._settings.rounds):
            try:
                await self._round(contestants, number)
            except (PerfError, asyncio.CancelledError) as error:
                if not complete:
                    raise
                ended_early = str(error) or f"round {number + 1}: stopped"
                self._tell(ended_early)
                break
            complete += 1
        turns = {name: turns[:complete] for name, turns in self._turns.items()}
        limits = {name: limits[:complete] for name, limits in self._limits.items()}
        checked = len(self._reference.answers) if self._reference else 0
        return Measured(complete, turns, limits, self._failed, checked, ended_early)

    async def _round(self, contestants: list[Contestant], number: int) -> None:
        """Adds a turn to every contestant that has not failed."""
        self._tell(f"round {number + 1} of {self._settings.rounds}")
        first = number % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            if contestant.name not in self._failed:
                await self._turn(contestant, number)
        if not self._turns:
            raise PerfError(f"no contestant is left: {self._failed}")

    async def _turn(self, contestant: Contestant, number: int) -> None:
        # Before the server is there: pages of the files that it shared with this process would count half in its memory.
        limit = self._reference.limit([SEED, number]) if self._reference else None
        try:
            async with contestant.open() as running:
                turn = await self._measure(contestant, running, number)
        except (StartError, AskError) as error:
            reason = f"round {number + 1}: {error}"
            if contestant.kind not in MAY_FAIL:
                raise PerfError(f"{contestant.name}, {reason}") from error
            self._failed[contestant.name] = reason
            self._turns.pop(contestant.name, None)
            self._limits.pop(contestant.name, None)
            self._tell(f"  {contestant.name} is left out: {reason}")
            return
        self._turns.setdefault(contestant.name, []).append(turn)
        line = f"  {contestant.name}: goodput {turn.goodput:,.0f} users/s, alone {turn.alone_p50_ms:.2f} ms"
        if limit:
            self._limits.setdefault(contestant.name, []).append(limit)
            line += f", limit {limit['users_per_s']:,.0f} users/s"
        self._tell(line)

    async def _measure(self, contestant: Contestant, running: Running, number: int) -> Turn:
        # Every contestant of a round meets the same users in the same order, and the same random numbers.
        rng = np.random.default_rng([SEED, number])
        users = UserMix(self._user_ids, rng)
        await self._check_answers(contestant, running)
        await warm_up(running.connection.ask, users)
        load = Load(self._settings.seconds, self._settings.slo_ms / 1e3, users, rng)
        earlier = [turn.goodput for turn in self._turns.get(contestant.name, [])]
        start = statistics.median(earlier) if earlier else None
        return await take_turn(running, load, start, partial(self._tell_probe, contestant.name))

    async def _check_answers(self, contestant: Contestant, running: Running) -> None:
        if not self._reference:
            return
        check = check_rung if contestant.kind == "baseline" else check_answer
        for concurrency in CHECKED_AT:
            answers = await answers_to(running.connection.ask, list(self._reference.answers), concurrency)
            for user_id, expected in self._reference.answers.items():
                check(contestant.name, user_id, answers[user_id], expected)

    def _tell_probe(self, name: str, probe: Probe) -> None:
        p99 = "–" if probe.p99_ms is None else f"{probe.p99_ms:.2f}"
        outcome = "aborted" if probe.aborted else f"p50 {probe.p50_ms:.2f}, p99 {p99} ms"
        note = f" · load generator late: p99 {probe.lag_p99_ms:.2f} ms" if probe.generator_late else ""
        note += " · others had the machine" if probe.disturbed else ""
        note += f" · rungs {dict(sorted(probe.rungs.items()))}" if set(probe.rungs) - {0} else ""
        note += f" · {probe.first_error}" if probe.errors else ""
        self._tell(f"    {name} at {probe.offered:,.0f} users/s: {outcome}{note}")
