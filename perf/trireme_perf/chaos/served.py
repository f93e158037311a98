"""``trireme serve`` under a scenario: its endpoints, its processes, and what it says, with the moment."""

from __future__ import annotations

import asyncio
import re
import shlex
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from trireme_perf.errors import PerfError
from trireme_perf.host.server import Server
from trireme_perf.host.triton import ready_address, serve_command

__all__ = ["Line", "LogWatch", "Served", "serve"]

LOOK_S = 0.01
TRITONSERVER, STUB = b"/tritonserver", b"/triton_python_backend_stub"
#: The argument of a stub that names its instance.
INSTANCE = 8
DEATH = re.compile(
    r"(replica \d+: )?(tritonserver \(process \d+\) (was killed|ended|is given up)|tritonserver did not come up again)"
)


@dataclass(frozen=True, order=True)
class Line:
    """What was said, and when, on the monotonic clock."""

    at: float
    text: str

    @property
    def is_death(self) -> bool:
        """Whether it tells of the end of a tritonserver."""
        return DEATH.match(self.text) is not None


class LogWatch:
    """Notes when the lines of a file that grows come, in a thread, in a ``with`` block."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines: list[Line] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"watch of {file.name}", daemon=True)

    def __enter__(self) -> LogWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._thread.join()

    def between(self, start: float, end: float) -> list[Line]:
        """Returns the lines that came in that time of the monotonic clock."""
        return [line for line in self._lines.copy() if start < line.at <= end]

    def _follow(self) -> None:
        rest = ""
        with self._file.open(errors="replace") as file:
            while not self._ending.wait(LOOK_S):
                *lines, rest = (rest + file.read()).split("\n")
                now = time.monotonic()
                self._lines += [Line(now, line) for line in lines if line.strip()]


@dataclass(frozen=True)
class Served:
    """A server that is ready. Addresses are host:port."""

    server: Server
    said: LogWatch
    grpc: str
    http: str
    health: str
    #: Where its log and its temporary files are, if that is a disk of its own.
    disk: Path | None = None

    def tritonserver(self) -> int:
        """Raises: PerfError: it does not live."""
        for pid, words in self._processes():
            if words[0].endswith(TRITONSERVER):
                return pid
        raise PerfError("tritonserver does not live when something should happen to it")

    def stubs(self, model: str) -> list[tuple[str, int]]:
        """Returns names and processes of the instances of a model. Raises: PerfError: there are none."""
        found = [
            (words[INSTANCE].decode(), pid)
            for pid, words in self._processes()
            if words[0].endswith(STUB) and len(words) > INSTANCE
        ]
        if own := sorted((name, pid) for name, pid in found if re.fullmatch(rf"{model}(_\d+)+", name)):
            return own
        raise PerfError(f"model {model!r} has no stub when something should happen to it")

    def _processes(self) -> Iterator[tuple[int, list[bytes]]]:
        for pid in self.server.family():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended
            yield pid, words


@contextmanager
def serve(
    repository: Path,
    core: int,
    folder: Path,
    *,
    replicas: int = 1,
    shared_memory_mb: int | None = None,
    disk_mb: int | None = None,
    memory_limit_gb: float | None = None,
    features: str | None = None,
) -> Iterator[Served]:
    """Serves a repository with ``trireme serve`` on one core until the block is left.

    Args:
        folder: is made, for its logs: what it says, and apart from that, tritonserver's.
        replicas: tritonservers on its gRPC port.
        shared_memory_mb: the size of a /dev/shm of its own; None for that of the machine.
        disk_mb: the size of a disk of its own for its log, which is verbose then, and its temporary files; None for ``folder``.
        memory_limit_gb: see `trireme serve`; None for its default.
        features: address of a feature store; None for none.

    Raises:
        StartError: it does not come up.
    """
    log, disk = folder / "serve.log", folder / "disk"
    disk.mkdir(parents=True)
    options = [f"--log={disk / 'tritonserver.log'}", f"--replicas={replicas}"]
    options += [f"--features={features}"] if features else []
    if memory_limit_gb is not None:
        options.append(f"--memory-limit={memory_limit_gb}")
    command = serve_command(repository, options=tuple(options))
    if disk_mb is not None:
        verbose = (*command.arguments, "--", "--log-verbose=1")
        command = replace(command, arguments=verbose, environment={"TMPDIR": str(disk)})
    mounts = {Path("/dev/shm"): shared_memory_mb, disk: disk_mb}
    if own := {place: size for place, size in mounts.items() if size is not None}:
        command = replace(command, arguments=(*_with_disks(own), *command.arguments))
    server = Server(command, core, log)
    try:
        grpc, http, health = (asyncio.run(ready_address(server, f"{name}_url")) for name in ("grpc", "http", "health"))
        with LogWatch(log) as said:
            yield Served(server, said, grpc, _host_port(http), _host_port(health), disk if disk_mb else None)
    finally:
        server.stop()


def _with_disks(sizes: Mapping[Path, int]) -> tuple[str, ...]:
    """Returns what comes before a program so that it has disks of its own in these places, of so many MiB."""
    mounts = [f"mount -t tmpfs -o size={size}m tmpfs {shlex.quote(str(place))}" for place, size in sizes.items()]
    return ("unshare", "--mount", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh")


def _host_port(url: str) -> str:
    return url.removeprefix("http://").partition("/")[0]
