"""The load generator: several processes, each with an event loop and a client of its own.

One process asks no more than its event loop can send, and then its own lag looks like latency of the server. Here every process
sends a part of the load, at moments that were drawn beforehand, and says how late it was.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trireme_perf.errors import PerfError
from trireme_perf.load.arrivals import poisson_arrivals
from trireme_perf.load.preparation import warm_up
from trireme_perf.load.probe import closed_loop, no_collection, open_loop, run_precisely
from trireme_perf.load.users import UserMix
from trireme_perf.overload.callers import Caller, CallerKind, open_caller
from trireme_perf.overload.point import FULL, NO_ANSWER, Part, part

__all__ = ["Crowd", "Generators"]

LEAD_S = 0.5  # from the command to the first request: all processes begin together
STOP_S = 10.0
METHODS = {"ask_patiently", "ask_in_vain"}


class Crowd(NamedTuple):
    """A closed loop. users, their rate (users/s), and those of them whose answer was not full."""

    users: int
    rate: float
    cut_short: int


class Generators:
    """The processes, in an ``async with`` block.

    Args:
        processes: how many, at least 1.
        cores: that they may use.
        user_ids: int64 (users,), who ask.
        seed: of their order and of the arrivals; equal seeds give equal loads.
    """

    def __init__(self, processes: int, cores: Sequence[int], user_ids: NDArray[np.int64], seed: Sequence[int]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, cores, user_ids, [*seed, number]), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes if process.pid]

    async def __aenter__(self) -> Generators:
        return self

    async def __aexit__(self, kind: object, *error: object) -> None:
        """Ends the processes, which close their clients unless there was an error."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            if kind:
                process.kill()
            await asyncio.to_thread(process.join, STOP_S)
            process.kill()

    async def open(self, kind: CallerKind, address: str, model: str, deadline_s: float) -> None:
        """Connects, see ``callers.open_caller``, and sends requests that are not measured."""
        await self._all("open", kind, address, model, deadline_s)

    async def closed(self, method: str, users: int, concurrency: int) -> Crowd:
        """Each process asks for ``users``, ``concurrency`` at a time, by a method of ``callers.Caller`` (``METHODS``)."""
        crowds = await self._all("closed", method, users, concurrency, time.monotonic() + LEAD_S)
        return Crowd(*(sum(figures) for figures in zip(*crowds, strict=True)))

    async def load(self, rate: float, seconds: float) -> list[Part]:
        """Puts an open load of ``rate`` users/s on the server, an equal part by each process."""
        start = time.monotonic() + LEAD_S
        parts: list[Part] = await self._all("load", rate / len(self._pipes), seconds, start)
        return parts

    async def settle(self) -> None:
        """Waits until nothing of a load is left in the server: first what callers left, then one more request of each process."""
        await self._all("settle")

    async def _all(self, command: str, *arguments: Any) -> list[Any]:
        """Hands a command to every process. Raises: PerfError: one of them failed, or has ended."""
        try:
            for pipe in self._pipes:
                pipe.send((command, arguments))
            answers = [await _received(pipe) for pipe in self._pipes]
        except (EOFError, OSError):
            raise PerfError("a process of the load generator has ended") from None
        for answer in answers:
            if isinstance(answer, PerfError):
                raise answer
        return answers


def _work(pipe: Connection, cores: Sequence[int], user_ids: NDArray[np.int64], seed: Sequence[int]) -> None:
    """The main function of a process."""
    os.sched_setaffinity(0, cores)
    with suppress(asyncio.CancelledError):  # Ctrl-C; the process that started this one says so
        run_precisely(_Generator(pipe, user_ids, np.random.default_rng(seed)).run())


class _Generator:
    def __init__(self, pipe: Connection, user_ids: NDArray[np.int64], rng: np.random.Generator) -> None:
        self._pipe, self._rng = pipe, rng
        self._users = UserMix(user_ids, rng)
        self._caller: Caller | None = None
        self._deadline_s = 0.0

    async def run(self) -> None:
        """Follows commands until the other end of the pipe is closed."""
        commands: dict[str, Callable[..., Awaitable[Any]]] = {
            "open": self._open,
            "closed": self._closed,
            "load": self._load,
            "settle": self._settle,
        }
        try:
            while True:
                name, arguments = await _received(self._pipe)
                try:
                    self._pipe.send(await commands[name](*arguments))
                except Exception as error:
                    self._pipe.send(PerfError(f"{type(error).__name__}: {error}"))
        except (EOFError, OSError):
            pass
        finally:
            if self._caller:
                await self._caller.close()

    async def _open(self, kind: CallerKind, address: str, model: str, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._caller = await open_caller(kind, address, model, deadline_s)
        await warm_up(self._caller.ask_patiently, self._users)

    async def _closed(self, method: str, users: int, concurrency: int, start: float) -> Crowd:
        assert method in METHODS
        ask, cut_short = getattr(self._caller, method), 0

        async def count(user_id: int) -> None:
            nonlocal cut_short
            rung = await ask(user_id)
            cut_short += rung != FULL

        chosen = self._users.take(users)
        with no_collection():
            await _until(start)
            done = await closed_loop(count, chosen, concurrency)
        return Crowd(done.answered, done.answered / done.wall_s, cut_short)

    async def _load(self, rate: float, seconds: float, start: float) -> Part:
        assert self._caller
        caller, arrivals = self._caller, poisson_arrivals(rate, seconds, self._rng)
        users = self._users.take(len(arrivals))
        rungs = np.full(len(arrivals), NO_ANSWER)
        failed: Counter[str] = Counter()

        async def ask(number: int) -> None:
            try:
                rungs[number] = await caller.ask(users[number])
            except TimeoutError:
                pass
            except Exception as error:
                failed[f"{type(error).__name__}: {error}"[:200]] += 1

        with no_collection():
            await _until(start)
            behind_s = time.monotonic() - start
            done = await open_loop(ask, range(len(arrivals)), arrivals, None, 2 * self._deadline_s)
        lag_s = done.lag_s + behind_s
        sent_s = max(seconds, float(arrivals[-1] + done.lag_s[-1]) + behind_s)
        return part(done.seconds, rungs, failed, self._deadline_s, len(done.lag_s) / sent_s, lag_s)

    async def _settle(self) -> None:
        assert self._caller
        await self._caller.drain()
        await self._caller.ask_patiently(self._users.take(1)[0])


async def _received(pipe: Connection) -> Any:
    """Returns the next message; lets the event loop go on until it is there. Raises: EOFError: the other end is closed."""
    loop, there = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pipe.fileno(), there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(pipe.fileno())
    return pipe.recv()


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
