"""Load on one server: open loop for what users see, closed loop for one request at a time.

The open loop sends at moments that were drawn before and never waits for an answer, and a latency counts from the
moment at which the request was due, whether or not it could be sent then. A closed loop, or a latency that counts from
the sending, leaves out the requests that a slow server kept from being sent, and with them the tail: "coordinated
omission" (G. Tene, wrk2). Open and closed systems differ by an order of magnitude, and independent users are an open
one (Schroeder, Wierman, Harchol-Balter, Open Versus Closed: A Cautionary Tale, NSDI 2006).
"""

from __future__ import annotations

import asyncio
import gc
import selectors
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trireme_perf.errors import PerfError

__all__ = ["Ask", "AskError", "Latencies", "closed_loop", "no_collection", "open_loop", "run_precisely"]

Ask = Callable[[int], Awaitable[Any]]
T = TypeVar("T")

MISSES_ALLOWED = 0.01  # share of the requests that may be later than an SLO on p99
DRAIN_S = 1.0  # after the last arrival; a request without an answer by then counts as unanswered


class AskError(PerfError):
    """A request failed where all have to be answered."""


@dataclass(frozen=True)
class Latencies:
    """The outcome of one load.

    seconds: float64 (sent,), from the moment each request was due to its answer; for one without an answer, to the
    end of the probe, so less than the truth. planned, answered: requests. aborted: the SLO was certain to be
    missed, so the rest was not sent. wall_s: from the start to the last answer. lag_s: float64 (sent,), how much later than
    due each request was sent: the load generator's own part of its latency; a closed loop has none.
    """

    seconds: NDArray[np.float64]
    planned: int
    answered: int
    aborted: bool
    wall_s: float
    errors: int
    first_error: str
    lag_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


async def open_loop(
    ask: Ask, users: Sequence[int], arrivals: NDArray[np.float64], slo_s: float | None, drain_s: float = DRAIN_S
) -> Latencies:
    """Asks for ``users[i]`` at ``arrivals[i]`` seconds from now, without waiting for answers.

    Ends early when an SLO of p99 <= ``slo_s`` can no longer be met: a request failed, or more than 1 % of all planned
    requests are late already. Requests still on their way then, or ``drain_s`` after the last arrival, are cancelled.
    With ``slo_s`` None, nothing ends it early.
    """
    return await _OpenLoop(ask, users, arrivals, slo_s, drain_s).run()


async def closed_loop(ask: Ask, users: Sequence[int], concurrency: int) -> Latencies:
    """Asks for all ``users``, ``concurrency`` at a time, each as soon as one before it is answered.

    Raises:
        AskError: a request failed.
    """
    waiting = iter(users)
    seconds: list[float] = []

    async def one_after_another() -> None:
        for user in waiting:
            sent = time.perf_counter()
            try:
                await ask(user)
            except Exception as error:
                raise AskError(f"user {user}: {type(error).__name__}: {error}") from error
            seconds.append(time.perf_counter() - sent)

    start = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(concurrency)))
    wall = time.perf_counter() - start
    return Latencies(np.array(seconds), len(users), len(seconds), False, wall, 0, "")


@contextmanager
def no_collection() -> Iterator[None]:
    """Keeps this process from collecting garbage, which would look like latency of the server."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run_precisely(work: Coroutine[Any, Any, T]) -> T:
    """Runs ``work`` in an event loop that wakes at the microsecond; Ctrl-C and SIGTERM cancel it.

    asyncio's default selector rounds every wait up to a whole millisecond (the unit of epoll_wait), which would be
    a good part of the latencies here.
    """
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    try:
        task = loop.create_task(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        return loop.run_until_complete(task)
    finally:
        loop.close()


class _OpenLoop:
    """One open-loop run; times in seconds from its start."""

    def __init__(
        self, ask: Ask, users: Sequence[int], arrivals: NDArray[np.float64], slo_s: float | None, drain_s: float
    ) -> None:
        self._ask, self._users, self._slo_s, self._drain_s = ask, users, slo_s, drain_s
        self._arrivals: list[float] = arrivals.tolist()
        self._allowed = int(MISSES_ALLOWED * len(arrivals))
        self._latencies = np.full(len(arrivals), np.nan)
        self._lags = np.full(len(arrivals), np.nan)
        self._pending: dict[int, asyncio.Task[None]] = {}  # in the order of arrival
        self._sent = self._late = self._errors = 0
        self._first_error = ""
        self._last_answer = 0.0
        self._start = 0.0

    async def run(self) -> Latencies:
        self._start = time.perf_counter()
        try:
            await self._send()
            aborted = self._lost()
            if self._pending and not aborted:
                await asyncio.wait(list(self._pending.values()), timeout=self._drain_s)
        finally:
            unanswered, end = list(self._pending.values()), self._now()
            for task in unanswered:
                task.cancel()
            await asyncio.gather(*unanswered, return_exceptions=True)
        return self._summary(aborted, end, wall=end if unanswered else self._last_answer)

    async def _send(self) -> None:
        """Asks at every arrival, until the last one or until the SLO is missed for certain."""
        while self._sent < len(self._arrivals) and not self._lost():
            now = self._now()
            while self._sent < len(self._arrivals) and self._arrivals[self._sent] <= now:
                self._pending[self._sent] = asyncio.ensure_future(self._one(self._sent))
                self._sent += 1
            if self._sent < len(self._arrivals):
                await asyncio.sleep(max(0.0, self._arrivals[self._sent] - self._now()))

    async def _one(self, number: int) -> None:
        self._lags[number] = self._now() - self._arrivals[number]
        try:
            await self._ask(self._users[number])
        except Exception as error:
            self._errors += 1
            self._first_error = self._first_error or f"{type(error).__name__}: {error}"
        else:
            self._last_answer = self._now()
            self._latencies[number] = latency = self._last_answer - self._arrivals[number]
            self._late += self._slo_s is not None and latency > self._slo_s
        finally:
            del self._pending[number]

    def _summary(self, aborted: bool, end: float, wall: float) -> Latencies:
        latencies = self._latencies[: self._sent]
        answered = np.isfinite(latencies)
        seconds = np.where(answered, latencies, end - np.array(self._arrivals[: self._sent]))
        lags = self._lags[: self._sent]
        return Latencies(
            seconds,
            len(self._arrivals),
            int(answered.sum()),
            aborted,
            wall,
            self._errors,
            self._first_error,
            lags[np.isfinite(lags)],  # a task that was cancelled before it ran has sent nothing
        )

    def _lost(self) -> bool:
        """Whether the SLO is missed for certain: the backlog may only be what 1 % and the SLO leave room for."""
        if self._slo_s is None:
            return False
        overdue, oldest_allowed = self._late, self._now() - self._slo_s
        for number in self._pending:
            if self._arrivals[number] >= oldest_allowed or overdue > self._allowed:
                break
            overdue += 1
        return overdue > self._allowed or self._errors > 0

    def _now(self) -> float:
        return time.perf_counter() - self._start
