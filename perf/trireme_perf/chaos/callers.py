"""Our clients under a scenario: processes of their own that ask at moments which were drawn before, and judge each answer."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_client import AsyncClient, Cache, Coalescing, Hedging, Recommendations, TriremeError
from trireme_perf.chaos.expected import Judge, kept_wrongly
from trireme_perf.chaos.scenario import Load
from trireme_perf.chaos.timeline import NO_ANSWER, Timeline
from trireme_perf.errors import PerfError
from trireme_perf.load.arrivals import poisson_arrivals
from trireme_perf.load.preparation import capacity
from trireme_perf.load.probe import closed_loop, no_collection, open_loop, run_precisely
from trireme_perf.load.users import UserMix

__all__ = ["Callers", "Task", "calling", "measure_capacity", "phased_arrivals"]

START_S, DRAIN_S, PATIENCE_S = 60.0, 5.0, 30.0
CONCURRENCY, FIRST, MEASURED_S = 32, 200, 1.5


@dataclass(frozen=True)
class Task:
    """What one process does. urls: of all servers. rates: users/s of it alone, each for so many seconds, one after the other."""

    urls: Sequence[str]
    model: str
    load: Load
    rates: Sequence[tuple[float, float]]
    seed: int
    judge: Judge


class Callers:
    """Processes that are connected, and wait for their start."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def start(self, moment: float) -> None:
        """Has them begin at ``moment`` of the monotonic clock."""
        for pipe in self._pipes:
            pipe.send(moment)

    def timelines(self, within_s: float) -> list[Timeline]:
        """Returns what became of their requests. Raises: PerfError: one has ended, or does not."""
        return [_receive(pipe, within_s, "ended without a result") for pipe in self._pipes]


@contextmanager
def calling(tasks: Sequence[Task]) -> Iterator[Callers]:
    """Starts a process per task and yields when all are connected. Raises: PerfError: one cannot connect."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for task in tasks:
            here, there = context.Pipe()
            process = context.Process(target=_call, args=(task, there), daemon=True)
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        for pipe in pipes:
            _receive(pipe, START_S, "did not connect")
        yield Callers(pipes)
    finally:
        for process in processes:
            process.kill()
            process.join()


def measure_capacity(urls: Sequence[str], model: str, load: Load, users: Sequence[int], seed: int) -> float:
    """Returns the users/s that a closed loop of ``CONCURRENCY`` callers reaches, with a client as those of the load, but that it
    keeps no answers."""
    load = load.model_copy(update={"cache_s": 0.0})
    mix = UserMix(np.array(users), np.random.default_rng(seed))

    async def measure() -> float:
        async with _client(urls, model, load) as client:

            async def ask(user: int) -> None:
                await client.recommend(user, load.k, timeout=PATIENCE_S)

            await closed_loop(ask, mix.take(FIRST), CONCURRENCY)
            first = await capacity(ask, mix.take(FIRST), CONCURRENCY)
            return await capacity(ask, mix.take(max(FIRST, round(first * MEASURED_S))), CONCURRENCY)

    return asyncio.run(measure())


def _receive(pipe: Connection, within_s: float, problem: str) -> Any:
    try:
        if pipe.poll(within_s):
            received = pipe.recv()
            if not isinstance(received, str):
                return received
            problem = received
    except EOFError:
        pass
    raise PerfError(f"a process that asks {problem}")


def _client(urls: Sequence[str], model: str, load: Load) -> AsyncClient:
    return AsyncClient(
        urls,
        model=model,
        timeout=load.timeout_ms / 1e3,
        coalescing=Coalescing() if load.coalescing else None,
        hedge=Hedging() if load.hedge else None,
        cache=Cache(ttl_s=load.cache_s, stale_s=load.oldest_s - load.cache_s) if load.cache_s else None,
        fallback=True,
    )


def _call(task: Task, pipe: Connection) -> None:
    """The program of one process."""
    try:
        pipe.send(run_precisely(_Calls(task).run(pipe)))
    except Exception as error:
        pipe.send(f"failed: {type(error).__name__}: {error}")
    except asyncio.CancelledError:
        pipe.send("was stopped")


def phased_arrivals(rates: Sequence[tuple[float, float]], rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns the due moments, float64 (requests,), rising; of what lasts no time, there are none."""
    parts, start_s = [], 0.0
    for rate, seconds in rates:
        if seconds:
            parts.append(start_s + poisson_arrivals(rate, seconds, rng))
        start_s += seconds
    return np.concatenate(parts)


class _Calls:
    def __init__(self, task: Task) -> None:
        self._task = task
        rng = np.random.default_rng(task.seed)
        self._due = phased_arrivals(task.rates, rng)
        self._users = UserMix(np.array(list(task.judge.users)), rng).take(len(self._due))
        self._outcomes: list[Recommendations | str] = ["not answered"] * len(self._due)

    async def run(self, pipe: Connection) -> Timeline:
        load = self._task.load
        async with _client(self._task.urls, self._task.model, load) as client:

            async def ask(number: int) -> None:
                try:
                    self._outcomes[number] = await client.recommend(self._users[number], load.k)
                except TriremeError as error:
                    self._outcomes[number] = f"{type(error).__name__}: {error}"

            await client.model_info(timeout=START_S)
            await closed_loop(lambda user: client.recommend(user, load.k, timeout=START_S), self._users[:FIRST], 4)
            gc.collect()
            pipe.send(True)
            hedged = client.hedged
            moment = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            await asyncio.sleep(moment - time.monotonic())
            late_s = time.monotonic() - moment
            with no_collection():
                found = await open_loop(ask, range(len(self._due)), self._due, None, DRAIN_S)
            hedged = client.hedged - hedged
        lag_s = np.zeros(len(self._due))
        lag_s[: len(found.lag_s)] = found.lag_s + late_s
        return self._timeline(found.seconds + late_s, lag_s, hedged)

    def _timeline(self, latency_s: Any, lag_s: Any, hedged: int) -> Timeline:
        judge, k = self._task.judge, self._task.load.k
        problems: Counter[str] = Counter()
        errors: Counter[str] = Counter()
        rung, reason = (np.full(len(self._due), NO_ANSWER) for _ in range(2))
        wrong = np.zeros(len(self._due), dtype=bool)
        for number, (user, outcome) in enumerate(zip(self._users, self._outcomes, strict=True)):
            if isinstance(outcome, str):
                errors[outcome] += 1
                continue
            rung[number], reason[number] = outcome.rung, outcome.reason
            if problem := judge.problem(user, k, outcome) or kept_wrongly(outcome, self._task.load.oldest_s):
                problems[problem] += 1
                wrong[number] = True
        return Timeline(self._due, latency_s, lag_s, rung, reason, wrong, dict(problems), dict(errors), hedged)
