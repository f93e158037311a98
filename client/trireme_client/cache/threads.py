"""How threads wait for the answers of a cache."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ..recommendations import Recommendations
from ..recorder import NO_CALL, Recorder
from ..requests import CheckedRequest
from ..rpc import T
from ..session import Limit
from ..workers import WORKERS, Job
from .answers import AnswerCache, Ask, Step, Steps, Wait

AskServer = Callable[[CheckedRequest, Recorder, Limit], Recommendations]


class ThreadCache(AnswerCache):
    """The cache of a client for threads."""

    def recommend(self, request: CheckedRequest, recorder: Recorder, timeout: Limit, ask: AskServer) -> Recommendations:
        """Returns the answer that is kept, or one for which ``ask`` asks the server.

        Raises:
            TriremeError: as ``ask`` raises it, or no other call was answered in time.
        """
        found = self.look(request, recorder, timeout)
        if found is None:
            return self._run(self.steps(request, recorder, timeout), partial(ask, request, recorder))
        answer, stale = found
        if stale and (steps := self.renewal(request)) is not None:
            WORKERS.start(Job(), partial(self._run, steps, partial(ask, request, NO_CALL)))
        recorder.ended("cache")
        return answer

    def _run(self, steps: Steps[T], ask: Callable[[Limit], Recommendations]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = self._take(step, ask)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as finished:
            result: T = finished.value
            return result

    def _take(self, step: Step, ask: Callable[[Limit], Recommendations]) -> Any:
        if isinstance(step, Ask):
            return ask(step.timeout)
        if isinstance(step, Wait):
            return _waited(step.flight.add_done_callback, step.seconds)
        job = self.redis.read(step.key)
        in_time = _waited(lambda wake: job.add_done_callback(lambda _: wake()), self.redis.timeout_s)
        return self.redis.result(job, in_time)


def _waited(add_done_callback: Callable[[Callable[[], object]], object], seconds: float | None) -> bool:
    """Returns whether something ended within so many seconds."""
    ended = threading.Event()
    add_done_callback(ended.set)
    return ended.wait(None if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX))
