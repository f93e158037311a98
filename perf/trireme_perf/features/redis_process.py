"""A redis-server for a measurement: on a free port of this machine, gone afterwards."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from trireme_perf.errors import PerfError

__all__ = ["DURABLE", "RedisProcess", "find_program", "free_ports", "redis_process", "wait_until"]

STARTED_WITHIN_S, POLL_S = 30.0, 0.02
#: Options of a server that still knows after a kill what it has acknowledged.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def find_program(name: str) -> str:
    """Returns the path of a program of Redis. Raises: PerfError: it is not there."""
    program = shutil.which(name)
    if program is None:
        raise PerfError(f"{name} is not on PATH; install it (Debian: redis-server)")
    return program


class RedisProcess:
    """Runs within a ``with`` block, and can be frozen, killed and started again.

    Args:
        folder: for its files.
        options: of ``redis-server``, beside those on port and folder.
        port: a free one by default.

    Raises:
        PerfError: the program ``redis-server`` is not there.
    """

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_ports(1)[0]
        self._command = [find_program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._command += ["--dir", str(folder), *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> RedisProcess:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it answers. Raises: PerfError: it does not."""
        process = self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with self.connect() as connection:

            def answers() -> bool:
                if (code := process.poll()) is not None:
                    raise PerfError(f"redis-server did not come up, it ended with exit code {code}")
                return bool(connection.ping())

            wait_until(answers, "redis-server did not come up")

    def connect(self) -> redis.Redis:
        """A new connection."""
        return redis.Redis("127.0.0.1", self.port, socket_timeout=10.0)

    def kill(self) -> None:
        """SIGKILL, as far as it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stops it without closing a connection."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextmanager
def redis_process() -> Iterator[str]:
    """Yields the URL of a server that answers, and keeps everything in memory.

    Raises:
        PerfError: the program ``redis-server`` is not there, or does not come up.
    """
    with tempfile.TemporaryDirectory() as folder, RedisProcess(Path(folder)) as server:
        yield server.url


def wait_until(is_so: Callable[[], bool], problem: str) -> None:
    """Asks again while it is not so, or Redis answers with an error. Raises: PerfError: that does not end."""
    deadline = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < deadline:
        try:
            if is_so():
                return
        except redis.RedisError:
            pass
        time.sleep(POLL_S)
    raise PerfError(problem)


def free_ports(count: int) -> list[int]:
    """Returns ports that differ, since all are held until the last one is found."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
