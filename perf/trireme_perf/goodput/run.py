"""Contestants one after another, round after round, each on a fresh server, with the limit in between."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_export.perf_input import read_perf_input
from trireme_perf.errors import PerfError
from trireme_perf.goodput.answers import check_answer, check_rung
from trireme_perf.goodput.contestants import Answer, Connection, Contestant
from trireme_perf.goodput.turn import Load, Probe, Turn, take_turn
from trireme_perf.host.server import Server, StartError
from trireme_perf.host.usage import pinned
from trireme_perf.limit.in_process import measure_limit
from trireme_perf.load.arrivals import UserMix
from trireme_perf.load.probe import AskError, closed_loop, run_precisely
from trireme_runtime.stages.chain import Funnel

__all__ = ["Measured", "Settings", "measure"]

CHECKED = 64  # users whose answers are compared
WARM = 300  # requests, some at once, before anything is measured
WARM_CONCURRENCY = 16
SEED = 20060508


@dataclass(frozen=True)
class Settings:
    """How long and against what: `rounds`, `seconds` per probe, the SLO on p99 in ms."""

    rounds: int = 5
    seconds: float = 3.0
    slo_ms: float = 20.0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise PerfError(f"rounds is {self.rounds}, must be at least 1")
        for name, value in (("seconds", self.seconds), ("slo_ms", self.slo_ms)):
            if not 0 < value < float("inf"):
                raise PerfError(f"{name} is {value:g}, must be more than 0")


@dataclass(frozen=True)
class Measured:
    """Turns by contestant and the limits, one of each per round; who failed on the way, and why; why there are fewer
    rounds than were asked for, empty if there are not."""

    turns: dict[str, list[Turn]]
    limits: list[dict[str, Any]]
    failed: dict[str, str]
    checked_users: int
    ended_early: str


def measure(
    repository: Path,
    funnel: Path,
    contestants: Sequence[Contestant],
    settings: Settings,
    tell: Callable[[str], None],
) -> Measured:
    """Every contestant in every round, in an order that moves on by one per round.

    Server processes have one core to themselves, the load generator, which is this process, another. A peer or
    baseline that fails is left out from then on, with its reason. An own plan that fails, or a Ctrl-C, ends the run with
    the rounds before it.

    Args:
        repository: whose users ask, and whose in-process limit is measured.
        funnel: version directory of its fused plan, for the answers that are right.
        tell: is told how it goes, line by line.

    Raises:
        PerfError: fewer than two cores, no users, an own plan failed in the first round, or no contestant was left.
        DifferenceError: a contestant answers something else than the funnel.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise PerfError("this process may use 1 core; 2 are needed, one for the server and one for the load")
    with tempfile.TemporaryDirectory(prefix="trireme-compare-") as logs, pinned(cores[0]):
        run = _Run(repository, funnel, settings, cores[-1], Path(logs), tell)
        return run_precisely(run.all(list(contestants)))


class _Run:
    def __init__(
        self,
        repository: Path,
        funnel: Path,
        settings: Settings,
        server_core: int,
        logs: Path,
        tell: Callable[[str], None],
    ) -> None:
        self._repository, self._settings, self._tell = repository, settings, tell
        self._server_core, self._logs = server_core, logs
        self._user_ids = read_perf_input(repository)
        self._expected = _expected_answers(funnel, self._user_ids)
        self._turns: dict[str, list[Turn]] = {}
        self._failed: dict[str, str] = {}

    async def all(self, contestants: list[Contestant]) -> Measured:
        limits: list[dict[str, Any]] = []
        ended_early = ""
        for number in range(self._settings.rounds):
            try:
                limit = await self._round(contestants, number)
            except (PerfError, asyncio.CancelledError) as error:
                if not limits:
                    raise
                ended_early = str(error) or f"round {number + 1}: stopped"
                self._tell(ended_early)
                break
            limits.append(limit)
        turns = {name: turns[: len(limits)] for name, turns in self._turns.items()}
        return Measured(turns, limits, self._failed, len(self._expected), ended_early)

    async def _round(self, contestants: list[Contestant], number: int) -> dict[str, Any]:
        """Adds a turn to every contestant that has not failed. Returns the limit."""
        with pinned(self._server_core):
            limit = measure_limit(self._repository)
        self._tell(f"round {number + 1} of {self._settings.rounds} · limit: {limit['users_per_s']:,.0f} users/s")
        first = number % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            if contestant.name not in self._failed:
                await self._turn(contestant, number)
        if not self._turns:
            raise PerfError(f"no contestant is left: {self._failed}")
        return limit

    async def _turn(self, contestant: Contestant, number: int) -> None:
        try:
            turn = await self._measure(contestant, number)
        except (StartError, AskError) as error:
            reason = f"round {number + 1}: {error}"
            if contestant.kind == "own":
                raise PerfError(f"{contestant.name}, {reason}") from error
            self._failed[contestant.name] = reason
            self._turns.pop(contestant.name, None)
            self._tell(f"  {contestant.name} is left out: {reason}")
            return
        self._turns.setdefault(contestant.name, []).append(turn)
        self._tell(f"  {contestant.name}: goodput {turn.goodput:,.0f} users/s, alone {turn.alone_p50_ms:.2f} ms")

    async def _measure(self, contestant: Contestant, number: int) -> Turn:
        # Every contestant of a round meets the same users in the same order, and the same random numbers.
        rng = np.random.default_rng([SEED, number])
        users = UserMix(self._user_ids, rng)
        port = _free_port()
        server = Server(contestant.command(port), self._server_core, self._logs / f"{contestant.name}.log")
        try:
            connection = await contestant.connect(await contestant.address(server, port))
            try:
                await self._check_answers(contestant, connection)
                await closed_loop(connection.ask, users.take(WARM), WARM_CONCURRENCY)
                load = Load(self._settings.seconds, self._settings.slo_ms / 1e3, users, rng)
                earlier = [turn.goodput for turn in self._turns.get(contestant.name, [])]
                start = statistics.median(earlier) if earlier else None
                return await take_turn(server, connection, load, start, partial(self._tell_probe, contestant.name))
            finally:
                await connection.close()
        finally:
            server.stop()

    async def _check_answers(self, contestant: Contestant, connection: Connection) -> None:
        check = check_rung if contestant.kind == "baseline" else check_answer
        answers: dict[int, Answer] = {}

        async def remember(user_id: int) -> None:
            answers[user_id] = await connection.ask(user_id)

        await closed_loop(remember, list(self._expected), 1)
        for user_id, expected in self._expected.items():
            check(contestant.name, user_id, answers[user_id], expected)

    def _tell_probe(self, name: str, probe: Probe) -> None:
        outcome = "aborted" if probe.aborted else f"p50 {probe.p50_ms:.2f}, p99 {probe.p99_ms:.2f} ms"
        note = " · load generator saturated" if probe.load_generator_saturated else ""
        note += f" · {probe.first_error}" if probe.errors else ""
        self._tell(f"    {name} at {probe.offered:,.0f} users/s: {outcome}{note}")


def _expected_answers(funnel: Path, user_ids: NDArray[np.int64]) -> dict[int, Answer]:
    """The funnel's own answers for up to ``CHECKED`` users."""
    chosen = np.random.default_rng(SEED).permutation(user_ids)[:CHECKED]
    slate = Funnel.load(funnel)(chosen[:, None])
    rows = zip(chosen.tolist(), slate.item_id, slate.score, slate.rung[:, 0].tolist(), strict=True)
    return {user_id: Answer(item_id, score, rung) for user_id, item_id, score, rung in rows}


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])
