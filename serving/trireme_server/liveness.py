"""Notices that a tritonserver lives and does not answer: one that hangs, or that something has stopped."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

ASK_EVERY_S = 1.0
#: A busy machine answers late, but not so late. Questions are counted, not seconds: where all processes are frozen together,
#: such as in a container that is paused, only the one that was on its way has no answer.
PATIENCE_S, QUESTIONS = 2.0, 5


def ask(http_url: str) -> bool:
    """Whether the server at ``http_url`` says that it lives; waits for ``PATIENCE_S`` at most."""
    try:
        urllib.request.urlopen(f"{http_url}/v2/health/live", timeout=PATIENCE_S).close()
    except OSError:
        return False
    return True


class LivenessWatch:
    """Asks one server, which is ready, again and again whether it lives. Answers are waited for in a thread.

    Args:
        http_url: of the server.
        ask: whether it answers.
        clock: seconds, rising.
    """

    def __init__(
        self, http_url: str, ask: Callable[[str], bool] = ask, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._http_url = http_url
        self._ask = ask
        self._clock = clock
        self._pool = ThreadPoolExecutor(1, "liveness")
        self._asked: Future[bool] | None = None
        self._due = clock()
        self._unanswered = 0

    def look(self) -> str | None:
        """Returns why the server has to be ended, or None. Does not block."""
        if self._asked is not None and self._asked.done():
            self._unanswered = 0 if self._asked.result() else self._unanswered + 1
            self._asked = None
        if self._unanswered >= QUESTIONS:
            return f"it has not answered {QUESTIONS} questions in a row whether it lives"
        if self._asked is None and self._clock() >= self._due:
            self._due = self._clock() + ASK_EVERY_S
            self._asked = self._pool.submit(self._ask, self._http_url)
        return None

    def close(self) -> None:
        """Asks nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
