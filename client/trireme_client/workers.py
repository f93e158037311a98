"""Threads that make blocking calls for callers who may stop waiting for them.

gRPC's own futures would do, but while no other is in flight, gRPC starts a thread for each: that is half of what a call costs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

# Threads that are kept for the next call.
_MOST_IDLE = 32


class Job:
    """A call in another thread: the part of gRPC's futures that is used here."""

    __slots__ = ("_callbacks", "_error", "_finished", "_lock", "_result")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Any], object]] = []

    def run(self, work: Callable[[], Any]) -> None:
        """Calls ``work``, and then the callbacks, in the order in which they were added."""
        try:
            self._result = work()
        except BaseException as error:
            self._error = error
        with self._lock:
            self._finished = True
        for callback in self._callbacks:
            callback(self)

    def done(self) -> bool:
        return self._finished

    @property
    def failed(self) -> bool:
        """Whether it is done, and ``result`` raises."""
        return self._error is not None

    def result(self) -> Any:
        """Returns what ``work`` returned, or raises what it raised; only once it is done."""
        if self._error is not None:
            raise self._error
        return self._result

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Has ``callback`` called with this job when it is done, or now if it is."""
        with self._lock:
            if not self._finished:
                self._callbacks.append(callback)
                return
        callback(self)


class _Worker:
    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._ready = threading.Lock()
        self._ready.acquire()
        self._next: tuple[Job, Callable[[], Any]] | None = None
        threading.Thread(target=self._loop, name="trireme-client", daemon=True).start()

    def take(self, job: Job, work: Callable[[], Any]) -> None:
        self._next = job, work
        self._ready.release()

    def _loop(self) -> None:
        while True:
            self._ready.acquire()
            assert self._next is not None
            (job, work), self._next = self._next, None
            job.run(work)
            del job, work  # else the last answer would be kept as long as this waits
            if not self._workers.keep(self):
                return


class Workers:
    """As many threads as there are calls at a time, kept for the next ones."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []

    def start(self, job: Job, work: Callable[[], Any]) -> None:
        """Runs a job in a thread that has nothing to do, or in a new one."""
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(self)
        worker.take(job, work)

    def keep(self, worker: _Worker) -> bool:
        """Notes a thread that has nothing to do; returns whether it is to wait for more."""
        if len(self._idle) >= _MOST_IDLE:
            return False
        self._idle.append(worker)
        return True

    def forget(self) -> None:
        """Drops all threads: a fork does not take them along."""
        self._idle.clear()


WORKERS = Workers()
os.register_at_fork(after_in_child=WORKERS.forget)
