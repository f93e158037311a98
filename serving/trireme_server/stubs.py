"""The processes that run Python models, one for each instance: found below a server, and watched.

A server takes no notice of a stub's end: it goes on giving it requests, and each fails after a second. It does not survive a
stub that is stopped and continued, so a stopped one is ended, and so is one that hangs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trireme_server.hangs import HangWatch

STUB = b"triton_python_backend_stub"
# Of the arguments of a stub: the prefix of its shared memory, and the name of its instance.
MEMORY, INSTANCE = 2, 8
ENDED = ("Z", "X")
STOPPED = ("T", "t")
STOPPED_FOR_S = 0.5  # a debugger's or a container's short pause is no fault

_PROC = Path("/proc")


@dataclass(frozen=True)
class Stub:
    """A stub that lived when it was found."""

    pid: int
    started: str
    """As the kernel counts: tells it from a later process of the same id."""
    instance: str


@dataclass(frozen=True)
class LostStub:
    """A stub that has ended."""

    stub: Stub
    how: str = "has ended"
    """What it did, or why we ended it."""

    def __str__(self) -> str:
        return f"the stub of instance {self.stub.instance} (process {self.stub.pid}) {self.how}"


def find_stubs(shm_prefix: str, proc: Path = _PROC) -> list[Stub]:
    """Returns the living stubs whose server gave their shared memory this prefix, by instance."""
    found = []
    for pid in (entry.name for entry in os.scandir(proc) if entry.name.isdigit()):
        with contextlib.suppress(OSError):
            words = _read(f"{proc}/{pid}/cmdline").split(b"\0")
            if (
                not words[0].endswith(STUB)
                or len(words) <= INSTANCE
                or not words[MEMORY].startswith(shm_prefix.encode())
            ):
                continue
            state, started = _state(int(pid), proc)
            if state not in ENDED:
                found.append(Stub(int(pid), started, words[INSTANCE].decode()))
    return sorted(found, key=lambda stub: stub.instance)


class StubWatch:
    """Looks at the stubs of one server, which is ready.

    Args:
        server: id of the server's process, whose end takes its stubs with it.
        shm_prefix: of their shared memory.
        hangs: tells which of them do not get done.
        clock: seconds, rising.
        kill: ends a process.
        proc: where the kernel tells of processes.
    """

    def __init__(
        self,
        server: int,
        shm_prefix: str,
        hangs: HangWatch,
        *,
        clock: Callable[[], float] = time.monotonic,
        kill: Callable[[int, int], None] = os.kill,
        proc: Path = _PROC,
    ) -> None:
        self._server = Stub(server, _state(server, proc)[1], "")
        self._prefix = shm_prefix
        self._hangs = hangs
        self._clock = clock
        self._kill = kill
        self._proc = proc
        self._stopped_since: dict[Stub, float] = {}
        self._killed: set[Stub] = set()
        self.stubs = find_stubs(shm_prefix, proc)

    def look(self) -> list[LostStub]:
        """Returns the stubs that were lost since the last look; ends those that are stopped or hang."""
        lost = []
        for stub in self.stubs:
            state = self._state_of(stub)
            if state in ENDED:
                lost.append(LostStub(stub))
            elif self._is_stopped_for_long(stub, state):
                lost.append(self._killed_one(stub, "was stopped"))
            elif self._hangs.hangs(stub.pid):
                lost.append(self._killed_one(stub, "does not get done with a batch"))
        for one in lost:
            self.stubs.remove(one.stub)
            self._hangs.forget(one.stub.pid)
            self._stopped_since.pop(one.stub, None)
        return lost if lost and self._state_of(self._server) not in ENDED else []

    def refresh(self) -> None:
        """Looks for stubs that have started meanwhile; those that are known stay so until ``look`` misses them."""
        known = {*self.stubs, *self._killed}
        self.stubs += [stub for stub in find_stubs(self._prefix, self._proc) if stub not in known]

    def _killed_one(self, stub: Stub, why: str) -> LostStub:
        with contextlib.suppress(ProcessLookupError):
            self._kill(stub.pid, signal.SIGKILL)
        self._killed.add(stub)
        return LostStub(stub, f"{why}, and is killed")

    def _state_of(self, stub: Stub) -> str:
        """Returns the state of its process; one of ENDED if that has ended, and another has its id."""
        state, started = _state(stub.pid, self._proc)
        return state if started == stub.started else ENDED[0]

    def _is_stopped_for_long(self, stub: Stub, state: str) -> bool:
        if state not in STOPPED:
            self._stopped_since.pop(stub, None)
            return False
        return self._clock() - self._stopped_since.setdefault(stub, self._clock()) > STOPPED_FOR_S


def _state(pid: int, proc: Path) -> tuple[str, str]:
    """Returns the state of a process and when it started; ("X", "") if there is none."""
    try:
        fields = _read(f"{proc}/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return "X", ""
    return fields[0].decode(), fields[19].decode()


def _read(path: str) -> bytes:
    """Reads a file several times a second, beside a server that wants the core: a ``Path`` would take twice the time."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()
