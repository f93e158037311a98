"""A server under measurement: started on one core, watched, and gone without a trace afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trireme_perf.errors import PerfError
from trireme_perf.host.memory import pss_bytes, unmapped_bytes
from trireme_perf.host.processes import alive, family
from trireme_perf.host.usage import Meter, pinned

__all__ = ["Command", "Server", "StartError"]

MARKER = "TRIREME_COMPARE"
STOP_S = 30.0
KILL_POLL_S = 0.01


class StartError(PerfError):
    """A contestant's server did not come up, or ended by itself."""


@dataclass(frozen=True)
class Command:
    """How a server is started: arguments (program first), what is added to our environment, where, and how long it
    may take until it is ready, in seconds."""

    arguments: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_s: float = 120.0


class Server:
    """The processes of one contestant. Everything that ``command`` prints goes to ``log``.

    Args:
        core: the only one that they may use.
    """

    def __init__(self, command: Command, core: int, log: Path) -> None:
        self._command = command
        self._log = log
        name, value = MARKER, secrets.token_hex(8)
        self._marker = f"{name}={value}".encode()
        # The affinity is inherited, so the server is on its core from its first instruction on.
        with pinned(core), log.open("wb") as output:
            self._process = subprocess.Popen(
                command.arguments,
                cwd=command.directory,
                env={**os.environ, **command.environment, name: value},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we stop it
            )
        self._deadline = time.monotonic() + command.ready_s

    def check(self) -> None:
        """Raises StartError if it has ended, with the end of its log."""
        code = self._process.poll()
        if code is not None:
            raise StartError(f"{self._command.arguments[0]} ended with exit code {code}: {self._last_words()}")

    def check_starting(self) -> None:
        """As ``check``; and raises StartError if it should have been ready by now."""
        self.check()
        if time.monotonic() > self._deadline:
            raise StartError(f"not ready after {self._command.ready_s:g} s: {self._last_words()}")

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def meter(self, generators: Sequence[int] = ()) -> Meter:
        """Measures what the server and the load generator use from now on: this process and the ``generators``."""
        return Meter(self._process.pid, self._marker, generators)

    def family(self) -> list[int]:
        """Returns the ids of all its processes."""
        return family(self._process.pid, self._marker)

    def pss_bytes(self) -> int:
        return pss_bytes(self.family())

    def unmapped_bytes(self) -> int:
        return unmapped_bytes(self.family())

    def stop(self) -> None:
        """SIGTERM to the process that was started, time to clean up, SIGKILL to whatever is left of the family."""
        members = set(self.family())
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        while left := alive(members | set(self.family())):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(KILL_POLL_S)
        self._process.wait()

    def _last_words(self) -> str:
        lines = [line.strip() for line in self.log().splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-600:] or "it printed nothing"
