"""Keeps a tritonserver up: starts it again when it dies, has stubs replaced when they end, says and keeps what happened."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from trireme_server.backoff import LONGEST_S, Backoff
from trireme_server.errors import ServerError
from trireme_server.hangs import HangWatch
from trireme_server.healing import Healer, loader
from trireme_server.health import Readiness
from trireme_server.liveness import LivenessWatch
from trireme_server.log import telling_lines
from trireme_server.memory_watch import MemoryWatch
from trireme_server.metrics import SupervisorMetrics
from trireme_server.process import TritonServer, how_it_ended
from trireme_server.stubs import StubWatch

LOOK_S = 0.2  # how often the server is looked at
KEPT_DEATHS = 100


@dataclass(frozen=True)
class Death:
    """One end of a server that nobody asked for."""

    at: float
    """Seconds since 1970."""
    what: str
    """Which process, and its signal or exit code."""
    lived_s: float
    """How long it was up; 0 for one that did not come up."""
    lines: tuple[str, ...]
    """The telling lines of its log since it was ready."""

    def __str__(self) -> str:
        lived = f" after {self.lived_s:.0f} s" if self.lived_s else ""
        return f"{self.what}{lived}: {'; '.join(self.lines)}"


def say(line: str) -> None:
    """Writes a line to standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def healer_of(server: TritonServer, say: Callable[[str], None], metrics: SupervisorMetrics) -> Healer:
    """Returns what looks after the stubs of a server that is ready and can be told to load models."""
    assert server.pid is not None
    watch = StubWatch(server.pid, server.shm_prefix, HangWatch(server.busy_prefix))
    return Healer(watch, server.linked, loader(server.api, server.linked), say, server.load_s, metrics)


class Supervisor:
    """Watches a server that has been started, and starts it again on the same ports whenever it dies.

    Args:
        server: has become ready.
        readiness: is told whether requests should come.
        metrics: are told what is lost and started again.
        stopping: ends ``run``; set before the server is closed.
        say: is given a line for everything that happens.
        healer: returns what looks after the stubs of a server that is ready.
        memory: returns what looks at the memory of a server that is ready.
        turn: is held by the server that is started again for its memory: replicas leak alike, and one of them should answer.
        liveness: returns what asks a server, by its URL for HTTP, whether it lives.
        sleep: waits so many seconds, or until ``stopping``.
        clock: seconds, rising.
    """

    def __init__(
        self,
        server: TritonServer,
        readiness: Readiness,
        metrics: SupervisorMetrics,
        stopping: threading.Event,
        *,
        say: Callable[[str], None] = say,
        healer: Callable[[TritonServer, Callable[[str], None], SupervisorMetrics], Healer] = healer_of,
        memory: Callable[[TritonServer, Callable[[str], None]], MemoryWatch],
        turn: threading.Lock,
        liveness: Callable[[str], LivenessWatch] = LivenessWatch,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._readiness = readiness
        self._say = say
        self._healer_of = healer
        self._metrics = metrics
        self._healer = healer(server, say, metrics)
        self._memory_of = memory
        self._memory = memory(server, say)
        self._turn, self._has_turn = turn, False
        self._liveness_of = liveness
        self._liveness = liveness(server.http_url)
        self._note_health()
        self._stopping = stopping
        self._sleep = stopping.wait if sleep is None else sleep
        self._backoff = Backoff(clock)
        self._backoff.started()
        self.deaths: deque[Death] = deque(maxlen=KEPT_DEATHS)

    def run(self) -> None:
        """Returns when it is to stop, and leaves the server to be closed by the caller."""
        while (what := self._watch()) is not None:
            lines = telling_lines(self._server.log(), info=False) or ["its log tells of no error since it was ready"]
            self._restart(self._mourn(f"tritonserver (process {self._server.pid}) {what}", lines))

    def _watch(self) -> str | None:
        """Returns what ended the server, or why it has to be ended; None if it is to stop."""
        while (code := self._server.ended(LOOK_S)) is None and not self._stopping.is_set():
            if (reason := self._liveness.look()) is not None:
                self._server.kill()  # it would not hear a request to stop
            reason = reason or self._healer.look() or self._server.artifacts.look() or self._too_large()
            self._server.lost_instances |= self._healer.has_lost
            if reason is not None:
                return f"is given up ({reason})"
            self._note_health()
        return None if code is None or self._stopping.is_set() else how_it_ended(code)

    def _too_large(self) -> str | None:
        """Returns why the server is to be started anew for its memory, if it is its turn."""
        reason = self._memory.look()
        self._has_turn = reason is not None and self._turn.acquire(blocking=False)
        return reason if self._has_turn else None

    def _note_health(self) -> None:
        down = self._readiness.models_down = self._healer.models_down
        self._readiness.http_url = self._server.http_url
        self._readiness.reason = f"no instance works of {', '.join(down)}" if down else None

    def _restart(self, wait_s: float) -> None:
        while not self._stopping.is_set():
            self._sleep(wait_s)
            try:
                self._server.restart()
            except (ServerError, OSError) as error:  # the second one such as no space left for the shared memory
                if not self._stopping.is_set():
                    wait_s = self._mourn("tritonserver did not come up again", [str(error)])
            else:
                self._welcome()
                return

    def _welcome(self) -> None:
        self._backoff.started()
        self._metrics.server_restarted()
        self._memory = self._memory_of(self._server, self._say)
        if self._has_turn:
            self._has_turn = False
            self._turn.release()
        self._healer = self._healer_of(self._server, self._say, self._metrics)
        self._liveness = self._liveness_of(self._server.http_url)
        self._note_health()
        manifest = self._server.manifest
        self._say(
            f"tritonserver is ready again (process {self._server.pid}): "
            f"bundle {manifest.bundle_id} version {manifest.version}, loaded in {self._server.load_s:.1f} s"
        )

    def _mourn(self, what: str, lines: list[str]) -> float:
        """Keeps and says a death; returns how long to wait."""
        self._liveness.close()
        death = Death(time.time(), what, self._backoff.lived_s, tuple(lines))
        self.deaths.append(death)
        self._metrics.died()
        self._readiness.reason = death.what
        wait_s = self._backoff.died()
        self._say(f"{death}; {self._next(wait_s)}")
        return wait_s

    def _next(self, wait_s: float) -> str:
        if self._backoff.is_loop:
            return f"it died {self._backoff.deaths} times in a row, so it is started again only every {LONGEST_S:.0f} s"
        return f"it is started again in {wait_s:.0f} s" if wait_s else "it is started again at once"
