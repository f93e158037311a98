"""Several servers on one gRPC port, or one: started one after the other, supervised side by side, and stopped together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from trireme_server.health import Readiness, any_ready
from trireme_server.memory_watch import MemoryWatch, memory_of
from trireme_server.metrics import SupervisorMetrics
from trireme_server.process import TritonServer
from trireme_server.supervisor import LOOK_S, Supervisor, say

#: Between the ports of two replicas: consecutive ones would be those of the other endpoints (8000, 8001, …).
PORT_STEP = 10


class Replicas:
    """Readiness and supervision of servers that do the same.

    Args:
        count: of the servers that ``start`` will be given.
        memory_limit: bytes that each of them may take.
    """

    def __init__(self, count: int, memory_limit: float) -> None:
        self._memory_limit = memory_limit
        self._readiness = [Readiness() for _ in range(count)]
        self.metrics = SupervisorMetrics(self._readiness)
        self._stopping = threading.Event()
        self._servers: Sequence[TritonServer] = ()
        self._supervisors: list[Supervisor] = []
        self._pool = ThreadPoolExecutor(count, "supervisor")

    def ready(self) -> tuple[bool, str]:
        """Returns whether requests should come, and a line about it."""
        return (False, "it is being stopped") if self._stopping.is_set() else any_ready(self._readiness)

    def start(self, servers: Sequence[TritonServer]) -> None:
        """Starts the servers one after the other. Raises: ServerError: one did not come up."""
        self._servers = servers
        for server in servers:
            server.start()
        turn = threading.Lock()
        for number, (server, readiness) in enumerate(zip(servers, self._readiness, strict=True), start=1):
            line_of = _numbered(number) if len(servers) > 1 else say
            self._supervisors.append(
                Supervisor(
                    server, readiness, self.metrics, self._stopping, say=line_of, memory=self._memory_of, turn=turn
                )
            )

    def _memory_of(self, server: TritonServer, say: Callable[[str], None]) -> MemoryWatch:
        pid, prefix = server.pid or 0, server.shm_prefix
        return MemoryWatch(lambda: memory_of(pid, prefix), self._memory_limit, say)

    def run(self) -> None:
        """Keeps the servers up until a signal's exception ends it."""
        running: list[Future[None]] = [self._pool.submit(supervisor.run) for supervisor in self._supervisors]
        # Looks again and again: Python handles a signal that came just before a blocking call only after that call.
        while not (done := wait(running, LOOK_S, "FIRST_COMPLETED").done):
            pass
        for supervisor in done:
            supervisor.result()

    def stop(self) -> None:
        """Stops the servers at the same time; returns when all is gone."""
        self._stopping.set()
        with ThreadPoolExecutor(max(1, len(self._servers)), "stop") as pool:
            list(pool.map(TritonServer.close, self._servers))
        self._pool.shutdown()


def _numbered(number: int) -> Callable[[str], None]:
    return lambda line: say(f"replica {number}: {line}")
